"""Starvation: a user's own short transactions on a SQLite file that two worker processes drain at the same time.

The engine is a default one, `create_engine(url)`, which knows nothing of our turns: SQLite's busy handler gets it in, or does not.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from sqlalchemy import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from bench.app import app, effects, plain_engine
from bench.ground import Database
from bench.stage import Record, Stage, fill
from bench.worker import WorkerChild


@contextmanager
def drained(stage: Stage) -> Iterator[Database]:
    """A database that two workers are busy with, until the end."""
    with stage.fresh() as database, ExitStack() as stack:
        with plain_engine(database.url).begin() as connection:
            effects.create(connection)
        fill(database, 1_000_000 if not stage.quick else 200_000)
        for _ in range(2):
            stack.enter_context(WorkerChild(database.url, queues="default")).tell("start")
        while not database.execute("SELECT count(*) FROM jobqueue_jobs WHERE state = 'running'")[0][
            0
        ]:
            time.sleep(0.05)
        time.sleep(0.5)
        yield database
        left = database.execute(
            "SELECT count(*) FROM jobqueue_jobs WHERE state = 'available' AND queue = 'default'"
        )[0][0]
        assert left, "the workers had nothing left to do before the measurement ended"
        plain_engine(database.url).dispose()


def measure(stage: Stage, record: Record) -> None:
    """Seconds of whole transactions, first in this process, then in the handlers of a third worker."""
    if stage.kind != "sqlite":
        return
    with drained(stage) as database:
        _within(stage, database, record)
    with drained(stage) as database:
        _finish_within(stage, database, record)


def _within(stage: Stage, database: Database, record: Record) -> None:
    queue, add, *_ = app(database.url)
    took, refused = [], 0
    until = time.monotonic() + (2 if stage.quick else 10)
    with queue:
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                with Session(plain_engine(database.url)) as session:
                    session.execute(insert(effects).values(number=1))
                    add.options(queue="later").within(session).enqueue(1, 2)
                    session.commit()
            except OperationalError as error:
                if "locked" not in str(error):
                    raise
                refused += 1
            took.append(time.perf_counter() - began)
            time.sleep(0.005)
    _report(record, "a write and within(session).enqueue()", took, refused)


def _finish_within(stage: Stage, database: Database, record: Record) -> None:
    queue, *_, effect = app(database.url)
    count = stage.count(1000)
    with queue:
        queue.enqueue_many(effect.call(number) for number in range(count))
    with WorkerChild(database.url, queues="effects", concurrency=1) as worker:
        worker.tell("start")
        until = time.monotonic() + (5 if stage.quick else 15)
        seconds: list[float] = []
        while len(seconds) < count and time.monotonic() < until:
            time.sleep(0.2)
            seconds = worker.ask("durations")["seconds"]
    with closing(database.connect()) as connection:
        errored = connection.execute(
            "SELECT count(*) FROM jobqueue_attempts WHERE outcome = 'errored'"
        ).fetchone()[0]
    _report(record, "a write and finish_within(session)", seconds, errored)


def _report(record: Record, what: str, seconds: list[float], refused: int) -> None:
    assert len(seconds) > 1, f"{what}: only {len(seconds)} got through"
    record(f"{what}, how many", len(seconds), "transactions")
    record(f"{what}, p50", 1e3 * statistics.median(seconds), "ms")
    record(f"{what}, p99", 1e3 * statistics.quantiles(seconds, n=100, method="inclusive")[98], "ms")
    record(f"{what}, max", 1e3 * max(seconds), "ms")
    record(f"{what}, refused (database is locked)", refused, "transactions")
