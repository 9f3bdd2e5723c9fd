"""huey on SQLite, each commit synced. It has no bulk enqueue."""

import threading
import time
from typing import Any

from huey import SqliteHuey
from huey.signals import SIGNAL_COMPLETE

from bench.peer import roles

SETTINGS = {
    "drain": "fsync, 4 threads",
    "single": "fsync",
    "pickup": "fsync, 1 thread, looks every 1 ms",
}
FOUR = {"workers": 4, "periodic": False, "initial_delay": 0.001, "max_delay": 0.01}
ONE = {"workers": 1, "periodic": False, "initial_delay": 0.001, "max_delay": 0.001}
"""For pickups: more threads that look as often are in each other's way. By default huey looks every 0.1 to 10 s."""

began: list[float] = []


def _app(url: str) -> tuple[SqliteHuey, Any]:
    queue = SqliteHuey(filename=url.removeprefix("sqlite:///"), fsync=True)

    @queue.task()
    def add(x: int, y: int) -> int:
        if not began:
            began.append(time.perf_counter())
        roles.entered(x)
        return x + y

    return queue, add


def drain(url: str, total: int) -> float:
    queue, add = _app(url)
    ended: list[float] = []

    @queue.signal(SIGNAL_COMPLETE)  # After the result was stored.
    def complete(*_: object) -> None:
        ended.append(time.perf_counter())

    for number in range(total):
        add(number, 2)
    roles.filled()
    consumer = queue.create_consumer(**FOUR)
    consumer.start()
    while len(ended) < total:
        time.sleep(0.01)
    consumer.stop(graceful=True)
    return ended[-1] - began[0]


def single(url: str, total: int) -> float:
    _, add = _app(url)
    return roles.one_by_one(lambda number: add(number, 2), total)


def work(url: str) -> None:
    queue, _ = _app(url)
    queue.create_consumer(**ONE).start()
    roles.ready()
    threading.Event().wait()


def produce(url: str, total: int) -> None:
    _, add = _app(url)
    roles.produce(lambda number: add(number, 2), total)
