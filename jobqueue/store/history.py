"""History: the figures of each worker per minute, written by the worker and kept for a day."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, case, delete, func, insert, null, select, union_all

from jobqueue.store.clock import after, once, this_minute
from jobqueue.store.database import Store
from jobqueue.store.schema import history, jobs
from jobqueue.store.sql.predicates import AVAILABLE

KEPT = 86_400.0  # seconds
WAITING_MAX = 100_000
"""Waiting jobs that are counted in each minute, in all queues together; this means that or more."""


class Figures(NamedTuple):
    """A worker's figures for one task in one queue, or for all with task "". Times are seconds."""

    task: str
    processed: int
    errored: int
    failed: int
    snoozed: int
    duration: float
    duration_p95: float | None
    wait: float
    wait_p95: float | None
    busy: float = 0.0
    slots: float = 0.0
    duration_p50: float | None = None
    wait_p50: float | None = None
    queue: str | None = None


class History:
    """The history table. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, worker: str, figures: Sequence[Figures]) -> None:
        """Append a worker's figures to the present minute.

        Its first worker also counts the jobs that wait: once for the fleet, without a leader. If
        two are first at once, both do.
        """
        wholes, tasks = (
            [{"worker": worker, **row._asdict()} for row in figures if (row.task == "") is whole]
            for whole in (True, False)
        )
        row = insert(history).values(minute=this_minute())
        with self._store.write() as connection:
            if tasks:
                connection.execute(row, tasks)
            if wholes:
                self._store.backend.prefer_indexes(connection)  # To count.
                connection.execute(row.values(waiting=_waiting()), wholes)

    def delete_old(self) -> None:
        """Delete rows older than a day."""
        with self._store.write() as connection:
            connection.execute(delete(history).where(history.c.minute < once(after(-KEPT))))


def _waiting() -> ColumnElement[int | None]:
    """How many jobs wait, up to WAITING_MAX; null if another row of the minute has it."""
    minute = history.c.minute == once(this_minute())
    is_known = select(history.c.id).where(minute, history.c.waiting.is_not(None)).exists()
    some = union_all(*(select(jobs.c.id).where(part) for part in AVAILABLE)).limit(WAITING_MAX)
    count = select(func.count()).select_from(some.subquery()).scalar_subquery()
    return case((is_known, null()), else_=count)
