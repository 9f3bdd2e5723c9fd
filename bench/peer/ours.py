"""jobqueue, with its default settings, by the same method as the others. (Its drain is that of drain.py.)"""

import threading
import time
from typing import Any

from bench.children import end_with_parent
from bench.peer import roles
from bench.worker import tune_gc
from jobqueue import JobQueue

SETTINGS = {"bulk": "10,000 at once", "pickup": "4 threads"}


def _app(url: str) -> tuple[JobQueue, Any]:
    jobs = JobQueue(url)

    @jobs.task
    def add(x: int, y: int) -> int:
        roles.entered(x)
        return x + y

    return jobs, add


def bulk(url: str, total: int) -> float:
    end_with_parent()
    jobs, add = _app(url)
    with jobs:
        jobs.enqueue_many([add.call(1, 2)])  # Connects.
        began = time.perf_counter()
        for numbers in roles.batches(total, 10_000):
            jobs.enqueue_many(add.call(number, 2) for number in numbers)
        return time.perf_counter() - began


def single(url: str, total: int) -> float:
    jobs, add = _app(url)
    with jobs:
        return roles.one_by_one(lambda number: add.enqueue(number, 2), total)


def work(url: str) -> None:
    jobs, _ = _app(url)
    worker = jobs.worker(concurrency=4)
    tune_gc()  # As `jobqueue worker` does.
    worker.start()
    roles.ready()
    threading.Event().wait()


def produce(url: str, total: int) -> None:
    jobs, add = _app(url)
    with jobs:
        roles.produce(lambda number: add.enqueue(number, 2), total)
