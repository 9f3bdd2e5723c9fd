"""Processes: jobs that compute in Python, by `jobqueue worker --processes` with 1, 2 and 4.

    python -m bench.processes URL COUNT

All workers are at work before the first job may begin, so that what their start takes is not measured.
"""

import os
import sys
import time
from datetime import datetime
from functools import cache

from jobqueue import JobQueue

from bench.children import Child, end_with_parent, say
from bench.ground import Database
from bench.stage import Record, Stage

COUNTS = (1, 2, 4)
QUEUE = "sums"
BIDE = 120.0  # seconds

jobs = JobQueue()


@jobs.task(queue=QUEUE)
def add_up(count: int) -> int:
    """All of it under the interpreter's lock."""
    total = 0
    for number in range(count):
        total += number
    return total


def measure(stage: Stage, record: Record) -> None:
    """The rates, and how much faster several are than one."""
    count = stage.count(2000)
    rates = {}
    for processes in COUNTS:
        with stage.fresh() as database:
            rates[processes] = work(database, count, processes)
        plural = "es" if processes > 1 else ""
        record(f"{processes} process{plural}, jobs of about 10 ms", rates[processes], "jobs/s")
    for processes in COUNTS[1:]:
        record(f"{processes} processes, of one", 100 * rates[processes] / rates[1], "%")


@cache
def size() -> int:
    """For how many numbers `add_up` takes 10 ms on this machine, when nothing disturbs it."""
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        add_up(200_000)
        taken.append(time.perf_counter() - began)
    return int(200_000 * 0.01 / min(taken))


def work(database: Database, count: int, processes: int) -> float:
    """Jobs per second, from the first start to the last end by the database's clock."""
    with JobQueue(database.url) as queue:
        queue.pause(QUEUE)
        queue.enqueue_many(add_up.call(size()) for _ in range(count))
        with Child("bench.processes", database.url, processes) as child:
            child.hear("ready", 60)
            _await(database, "SELECT count(*) FROM jobqueue_workers", processes)
            queue.resume(QUEUE)
            done = "SELECT count(*) FROM jobqueue_jobs WHERE state = 'succeeded'"
            _await(database, done, count)
    ((first, last),) = database.execute(
        "SELECT min(started_at), max(finished_at) FROM jobqueue_jobs"
    )
    return count / (_instant(last) - _instant(first)).total_seconds()


def _await(database: Database, question: str, wanted: int) -> None:
    until = time.monotonic() + BIDE
    while database.execute(question)[0][0] < wanted:
        assert time.monotonic() < until, f"not {wanted} within {BIDE:g} s: {question}"
        time.sleep(0.1)


def _instant(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def main() -> None:
    from jobqueue.cli.main import cli

    os.environ["JOBQUEUE_URL"], processes = sys.argv[1:]
    end_with_parent()  # And the workers end with this process.
    say("ready")
    sys.stderr = open(os.devnull, "w")
    os.dup2(sys.stderr.fileno(), 2)
    cli.main(
        ["worker", "--app", "bench.processes:jobs", "--processes", processes, "--stats-interval=0"]
    )


if __name__ == "__main__":
    main()
