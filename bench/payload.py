"""Large arguments and results: enqueue beside the driver's executemany of the same rows, drain beside the bare loop with the same bytes.

python -m bench.payload URL JOBS BYTES
"""

import json
import sys
import time

from bench import ceiling, drain
from bench.app import app
from bench.children import Child, end_with_parent, say
from bench.enqueue import INSERT, bare
from bench.stage import Record, Stage

SIZES = {10_000: 10_000, 200_000: 500}
"""Bytes of a job's arguments, and how many such jobs."""


def executemany(url: str, jobs: int, size: int) -> float:
    """Rows per second of the driver's, in one transaction."""
    connection, statement = bare(url)
    text = json.dumps({"args": ["x" * size], "kwargs": {}})
    rows = [("echo", "default", 0, text, 10, "cancelled")] * jobs
    began = time.perf_counter()
    connection.cursor().executemany(statement.removesuffix(" RETURNING id"), rows)
    connection.commit()
    took = time.perf_counter() - began
    connection.close()
    return jobs / took


def enqueue(url: str, jobs: int, size: int) -> float:
    """Jobs per second through the API, in one transaction."""
    queue, *_ = app(url)
    echo, text = queue.registry["echo"], "x" * size
    with queue:
        queue.store.require_schema()
        began = time.perf_counter()
        queue.enqueue_many(echo.call(text) for _ in range(jobs))
        return jobs / (time.perf_counter() - began)


def measure(stage: Stage, record: Record) -> None:
    """Each size on a database of its own."""
    for size, full in SIZES.items():
        jobs, name = stage.count(full), f"{size // 1000} kB"
        with stage.fresh() as database:
            with Child("bench.payload", database.url, jobs, size) as child:
                wrote = child.hear("wrote")
            one = drain.work(database, jobs)
        top = ceiling.drain(stage, jobs, size)
        record(f"enqueue_many, {name}", wrote["ours"], "jobs/s")
        record(f"the driver's executemany, {name}", wrote["bare"], "rows/s")
        record(f"enqueue_many, {name}, of the driver", 100 * wrote["ours"] / wrote["bare"], "%")
        record(f"drain, {name}", one.rate, "jobs/s")
        record(f"bare loop, {name}", top["rate"], "jobs/s")
        record(f"drain, {name}, of the bare loop", 100 * one.rate / top["rate"], "%")


if __name__ == "__main__":
    end_with_parent()
    given = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    theirs = executemany(*given)
    say("wrote", ours=enqueue(*given), bare=theirs)
