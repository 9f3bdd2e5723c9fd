"""Many jobs under limits: a queue that is given a limit while a backlog waits, and light tenants beside a heavy one in a fair queue.

Two processes with ten threads each run jobs of 20 ms. A handler returns when it began and ended, by the clock that all processes share:
the limit is in force after the last beginning beside which as many others ran, and taken back at the next one of those.

The light tenants are 10,000 keys, of which a random one gets a job each 10 ms. Their wait is from the call of `enqueue` until the
handler begins.
"""

import heapq
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from jobqueue import JobQueue
from jobqueue.store.queue_control import QueueControl

from bench.app import app
from bench.ground import Database
from bench.stage import Record, Stage
from bench.worker import WorkerChild

LIMIT = 4
PROCESSES, THREADS = 2, 10
SECONDS = 0.02
PHASE = 3.0  # seconds without the limit, with it, and without it again
TENANTS = 10_000
LIGHT, PAUSE = 1_000, 0.01  # jobs of light tenants, and seconds between two of them


def measure(stage: Stage, record: Record) -> None:
    _switch(stage, record)
    _tenants(stage, record)


@contextmanager
def _at_work(stage: Stage, lane: str = "NULL") -> Iterator[tuple[JobQueue, Database]]:
    """Workers, and a backlog that they are not at yet."""
    numbers = f"n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {stage.jobs})"
    values = f"""'span', {lane}, '{{"args":[{SECONDS}],"kwargs":{{}}}}'"""
    with stage.fresh() as database, ExitStack() as stack:
        database.execute(
            f"WITH RECURSIVE {numbers} INSERT INTO jobqueue_jobs (task, lane, args)"
            f" SELECT {values} FROM n WHERE true"
        )
        database.settle()
        queue = stack.enter_context(app(database.url)[0])
        for _ in range(PROCESSES):
            worker = WorkerChild(database.url, concurrency=THREADS)
            stack.enter_context(worker).tell("start")
        yield queue, database


def _switch(stage: Stage, record: Record) -> None:
    with _at_work(stage) as (queue, database):
        control = QueueControl(queue.store)
        time.sleep(2 * PHASE)  # They have started.
        set_at = time.monotonic_ns()
        control.limit("default", LIMIT)
        queue.wake_workers()  # As the command does.
        time.sleep(PHASE)
        taken_back_at = time.monotonic_ns()
        control.limit("default", None)
        queue.wake_workers()
        time.sleep(PHASE)
        ended_at = time.monotonic_ns()
        rows = database.execute("SELECT result FROM jobqueue_jobs WHERE state = 'succeeded'")
    spans = sorted(json.loads(row[0]) for row in rows)
    beyond = _beyond(spans)
    last = max(at for at in beyond if at < taken_back_at)
    first = min(at for at in beyond if at > taken_back_at)
    since, until = int(set_at - PHASE * 1e9), ended_at - 500_000_000
    rates = [
        sum(begin <= at < end for at, _ in spans) / (end - begin)
        for begin, end in ((since, set_at), (taken_back_at + 1_000_000_000, until))
    ]
    what = f"a limit of {LIMIT} on a queue with {stage.jobs:,} waiting jobs"
    record(f"{what}, in force after (at most 1,000)", max(0.0, (last - set_at) / 1e6), "ms")
    record(f"{what}, taken back after (at most 1,000)", (first - taken_back_at) / 1e6, "ms")
    record(f"{what}, its rate when it is taken back, of before", 100 * rates[1] / rates[0], "%")


def _beyond(spans: list[list[int]]) -> list[int]:
    """When handlers began while as many others ran as the limit says, or more."""
    running: list[int] = []
    found = []
    for begin, end in spans:
        while running and running[0] <= begin:
            heapq.heappop(running)
        if len(running) >= LIMIT:
            found.append(begin)
        heapq.heappush(running, end)
    return found


def _tenants(stage: Stage, record: Record) -> None:
    pick = random.Random(1)
    with _at_work(stage, "'heavy'") as (queue, _):
        moment = queue.registry["moment"]
        QueueControl(queue.store).fair("default", fair=True)
        time.sleep(PHASE)
        samples = []
        for _ in range(LIGHT):
            time.sleep(PAUSE)
            light = moment.options(concurrency_key=f"tenant-{pick.randrange(TENANTS)}")
            called = time.monotonic_ns()
            samples.append((called, light.enqueue()))
        waits = [(job.result(timeout=60) - called) / 1e6 for called, job in samples]
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    beside = f"light ones of {TENANTS:,} tenants beside one with {stage.jobs:,} jobs"
    record(f"{beside}, p50", cuts[49], "ms")
    record(f"{beside}, p99 (at most 1,000)", cuts[98], "ms")
