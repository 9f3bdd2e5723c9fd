"""Memory: what a worker process grows by while it drains 200,000 jobs, from 10,000 done to the end."""

import time

from bench.stage import Record, Stage, fill
from bench.worker import WorkerChild

MB = 1_000_000


def measure(stage: Stage, record: Record) -> None:
    """The worker does not end by itself, so that it can still be asked at the end."""
    jobs = stage.count(200_000)
    with stage.fresh() as database:
        fill(database, jobs)
        with WorkerChild(database.url) as worker:
            worker.tell("start")
            early = usage = worker.ask("usage")
            until = time.monotonic() + 600
            while usage["processed"] < jobs:
                assert time.monotonic() < until, (
                    f"only {usage['processed']} of {jobs} jobs were done in 600 s"
                )
                time.sleep(0.02)
                usage = worker.ask("usage")
                if early["processed"] < stage.count(10_000):
                    early = usage
    record(f"resident at {stage.count(10_000):,} done", early["resident"] / MB, "MB")
    record(f"resident at {jobs:,} done", usage["resident"] / MB, "MB")
    record("growth (must be at most 30)", (usage["resident"] - early["resident"]) / MB, "MB")
