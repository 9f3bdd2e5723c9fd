"""rq on Redis, with its SimpleWorker, which runs one job at a time in its own process. The URL is the path of the server's socket."""

import time

import redis
from rq import Queue, SimpleWorker

from bench.peer import roles

SETTINGS = {
    "drain": "SimpleWorker: one job at a time",
    "pickup": "SimpleWorker: one job at a time",
}

began: list[float] = []


def add(x: int, y: int) -> int:
    """The job; rq imports it by its name."""
    if not began:
        began.append(time.perf_counter())
    roles.entered(x)
    return x + y


def _open(socket: str) -> tuple[redis.Redis, Queue]:
    connection = redis.Redis(unix_socket_path=socket)
    return connection, Queue(connection=connection)


def drain(url: str, total: int) -> float:
    connection, queue = _open(url)
    for numbers in roles.batches(total, 1000):
        queue.enqueue_many([Queue.prepare_data(add, (number, 2)) for number in numbers])
    roles.filled()
    SimpleWorker([queue], connection=connection).work(burst=True, logging_level="ERROR")
    seconds = time.perf_counter() - began[0]
    assert queue.finished_job_registry.count == total
    return seconds


def single(url: str, total: int) -> float:
    _, queue = _open(url)
    return roles.one_by_one(lambda number: queue.enqueue(add, number, 2), total)


def work(url: str) -> None:
    connection, queue = _open(url)
    roles.ready()
    SimpleWorker([queue], connection=connection).work(logging_level="ERROR")


def produce(url: str, total: int) -> None:
    _, queue = _open(url)
    roles.produce(lambda number: queue.enqueue(add, number, 2), total)
