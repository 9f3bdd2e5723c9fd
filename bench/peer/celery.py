"""celery on Redis, with its pool of threads and results in the same Redis. The URL is the path of the server's socket."""

import contextlib
import os
import signal
import sys
import time
from typing import Any

from celery import Celery
from celery.signals import task_success

from bench.peer import roles

SETTINGS = {"drain": "4 threads", "pickup": "4 threads"}

began: list[float] = []


def _app(socket: str) -> tuple[Celery, Any]:
    url = f"redis+socket://{socket}"
    app = Celery("bench", broker=url, backend=url)
    app.conf.worker_redirect_stdouts = False  # Standard output is for the bench.

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        if not began:
            began.append(time.perf_counter())
        roles.entered(x)
        return x + y

    return app, add


def _run_worker(app: Celery) -> None:
    worker = app.Worker(pool="threads", concurrency=4, loglevel="ERROR", quiet=True)
    sys.__stdout__ = sys.__stderr__  # Where its last words go: the bench reads ours.
    with contextlib.suppress(SystemExit):
        worker.start()


def drain(url: str, total: int) -> float:
    app, add = _app(url)
    ended: list[float] = []

    @task_success.connect(weak=False)  # After the result was stored.
    def success(**_: object) -> None:
        ended.append(time.perf_counter())
        if len(ended) == total:
            os.kill(os.getpid(), signal.SIGTERM)  # As one stops it: in order.

    for number in range(total):
        add.delay(number, 2)
    roles.filled()
    _run_worker(app)
    assert len(ended) == total
    return ended[-1] - began[0]


def single(url: str, total: int) -> float:
    _, add = _app(url)
    return roles.one_by_one(lambda number: add.delay(number, 2), total)


def work(url: str) -> None:
    app, _ = _app(url)
    roles.ready()
    _run_worker(app)


def produce(url: str, total: int) -> None:
    _, add = _app(url)
    roles.produce(lambda number: add.delay(number, 2), total)
