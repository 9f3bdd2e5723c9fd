"""Viewers: what those who hold the first page of the dashboard open cost a worker that drains, and what ten cost beyond one.

A viewer asks as the page's script does: for the part that lives, every 2 s, with the tag of what it has. Drains without, with one and with ten
viewers alternate; each has a fresh database and a server of its own.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.drain import enqueue, work
from bench.ground import Database
from bench.pages import Client, serving
from bench.stage import Record, Stage

EVERY = 2.0
ROUNDS = 5
VIEWERS = (0, 1, 10)


class Watched(NamedTuple):
    """What one drain gave."""

    rate: float
    """Jobs per second."""
    cpu: float
    """Of the server, percent of a core, while it was watched."""
    transactions: float
    """Of the server's reads, per second; only on Postgres."""


def measure(stage: Stage, record: Record) -> None:
    jobs = stage.count(400_000)
    runs: dict[int, list[Watched]] = {viewers: [] for viewers in VIEWERS}
    for _ in range(1 if stage.quick else ROUNDS):
        for viewers in VIEWERS:
            runs[viewers].append(_watched(stage, jobs, viewers))
    for viewers, found in runs.items():
        whom = f"{viewers} viewer{'' if viewers == 1 else 's'}"
        rates = [100 * each.rate / none.rate for each, none in zip(found, runs[0], strict=True)]
        record(f"{whom}: the worker's rate, of without", statistics.median(rates), "%")
        record(f"{whom}: CPU of the server", _median(found, "cpu"), "% of a core")
        if stage.kind == "postgres":
            record(f"{whom}: transactions of the server", _median(found, "transactions"), "1/s")


def _median(found: list[Watched], name: str) -> float:
    return statistics.median(getattr(each, name) for each in found)


def _watched(stage: Stage, jobs: int, viewers: int) -> Watched:
    with stage.fresh() as database:
        enqueue(database, jobs)
        with serving(database) as (port, pid), _viewing(port, viewers):
            time.sleep(2 * EVERY)  # The first looks are over.
            cpu, reads, began = _cpu(pid), _transactions(database), time.monotonic()
            time.sleep(4 * EVERY)
            passed = time.monotonic() - began
            used = 100 * (_cpu(pid) - cpu) / passed
            made = (_transactions(database) - reads) / passed
            rate = work(database, jobs).rate
    return Watched(rate, used, made)


@contextmanager
def _viewing(port: int, viewers: int) -> Iterator[None]:
    over = threading.Event()
    threads = [
        threading.Thread(target=_view, args=(port, over, EVERY * place / viewers))
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


def _view(port: int, over: threading.Event, after: float) -> None:
    over.wait(after)
    client = Client(port)
    client.get("/", {})
    while not over.wait(EVERY):
        client.get("/", {"HX-Request": "true", "If-None-Match": client.tag})
    client.close()


def _cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _transactions(database: Database) -> int:
    if database.name == "sqlite":
        return 0
    ((count,),) = database.execute(
        "SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname = current_database()"
    )
    return int(count)
