"""Viewers: what those who hold the first page of the dashboard open cost a worker that drains, and what ten cost beyond one.

A viewer asks as the page's script does: for the part that lives, every 2 s, with the tag of what it has. During a drain viewers rest and look
in turn, 2 s each, and each look is compared with the rests before and after it: whole drains scatter far more than a viewer costs.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.drain import enqueue
from bench.pages import Client, serving
from bench.stage import Record, Stage
from bench.worker import WorkerChild

EVERY = 2.0
ROUNDS = 6
VIEWERS = (1, 10)


class Window(NamedTuple):
    """What 2 s of a drain gave."""

    rate: float
    """Jobs per second."""
    cpu: float
    """Seconds of the worker per job."""
    server: float
    """CPU of the server, percent of a core."""


def measure(stage: Stage, record: Record) -> None:
    for viewers in VIEWERS:
        whom = f"{viewers} viewer{'' if viewers == 1 else 's'}"
        windows: list[Window] = []
        rates: list[float] = []
        costs: list[float] = []
        for _ in range(1 if stage.quick else ROUNDS):
            drained = _windows(stage, 300_000 if stage.quick else 500_000, viewers)
            windows += drained
            for before, during, after in zip(
                drained[::2], drained[1::2], drained[2::2], strict=False
            ):
                rates.append(200 * during.rate / (before.rate + after.rate))
                costs.append(200 * during.cpu / (before.cpu + after.cpu))
        record(f"{whom}: the worker's rate, of without", statistics.median(rates), "%")
        record(f"{whom}: the worker's CPU per job, of without", statistics.median(costs), "%")
        for what, chosen in ((whom, windows[1::2]), ("none", windows[::2])):
            used = statistics.mean(window.server for window in chosen)
            record(f"{whom}: CPU of the server with {what}", used, "% of a core")


def _windows(stage: Stage, jobs: int, viewers: int) -> list[Window]:
    """The windows of one drain, an odd number: every other one, from the second on, with viewers."""
    looking = threading.Event()
    windows: list[Window] = []
    with stage.fresh() as database:
        enqueue(database, jobs)
        with (
            serving(database) as (port, pid),
            _viewing(port, viewers, looking),
            WorkerChild(database.url) as worker,
        ):
            looking.set()
            time.sleep(2 * EVERY)  # The first looks are over.
            looking.clear()
            database.settle()
            worker.tell("start")
            time.sleep(1)
            before = _look(worker, pid)
            while before[1] < jobs:
                time.sleep(EVERY)
                after = _look(worker, pid)
                seconds, done, cpu, server = (
                    new - old for new, old in zip(after, before, strict=True)
                )
                if after[1] < jobs:
                    windows.append(Window(done / seconds, cpu / done, 100 * server / seconds))
                before = after
                looking.set() if len(windows) % 2 else looking.clear()
            looking.clear()
    return windows[: len(windows) - 1 + len(windows) % 2]


def _look(worker: WorkerChild, server: int) -> tuple[float, int, float, float]:
    """The moment, the jobs that are done, the worker's CPU and the server's."""
    usage = worker.ask("usage")
    return time.monotonic(), usage["processed"], usage["cpu"], _cpu(server)


@contextmanager
def _viewing(port: int, viewers: int, looking: threading.Event) -> Iterator[None]:
    over = threading.Event()
    threads = [
        threading.Thread(target=_view, args=(port, over, looking, EVERY * place / viewers))
        for place in range(viewers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _view(port: int, over: threading.Event, looking: threading.Event, after: float) -> None:
    over.wait(after)
    client = Client(port)
    client.get("/", {})
    while not over.wait(EVERY):
        if looking.is_set():
            client.get("/", {"HX-Request": "true", "If-None-Match": client.tag})
    client.close()


def _cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
