"""Latency: from the call of `enqueue` here until the handler begins in an idle worker in another process; and what idling costs.

Both moments are read from CLOCK_MONOTONIC, which all processes of a machine share; the handler returns its own.
"""

import random
import statistics
import time

from bench.app import app
from bench.stage import Record, Stage
from bench.worker import WorkerChild


def measure(stage: Stage, record: Record) -> None:
    """Samples at random distances, so that they meet no rhythm of the worker's."""
    random.seed(1)
    with stage.fresh() as database, WorkerChild(database.url) as worker:
        queue, _, moment, _ = app(database.url)
        with queue:
            worker.tell("start")
            for _ in range(10):
                moment.enqueue().result(timeout=30)
            time.sleep(2)
            before, began = worker.ask("usage"), time.perf_counter()
            time.sleep(2 if stage.quick else 10)
            idle = (worker.ask("usage")["cpu"] - before["cpu"]) / (time.perf_counter() - began)
            samples = []
            for _ in range(40 if stage.quick else 200):
                time.sleep(random.uniform(0.010, 0.060))
                called = time.monotonic_ns()
                samples.append((called, moment.enqueue()))
            waits = [(job.result(timeout=30) - called) / 1e6 for called, job in samples]
    record("enqueue to handler, p50", statistics.median(waits), "ms")
    record(
        "enqueue to handler, p99", statistics.quantiles(waits, n=100, method="inclusive")[98], "ms"
    )
    record("enqueue to handler, max", max(waits), "ms")
    record("an idle worker's CPU", 100 * idle, "% of a core")
