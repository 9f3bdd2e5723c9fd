"""History: the figures of each worker per minute, written by the worker and kept for a day."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, insert

from jobqueue.store.clock import after, once, this_minute
from jobqueue.store.database import Store
from jobqueue.store.schema import history

KEPT = 86_400.0  # seconds


class Figures(NamedTuple):
    """A worker's figures for one task, or for all with task "". Times are seconds."""

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


class History:
    """The history table. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, worker: str, figures: Sequence[Figures]) -> None:
        """Append a worker's figures to the present minute."""
        rows = [{"worker": worker, **row._asdict()} for row in figures]
        with self._store.write() as connection:
            connection.execute(insert(history).values(minute=this_minute()), rows)

    def delete_old(self) -> None:
        """Delete rows older than a day."""
        with self._store.write() as connection:
            connection.execute(delete(history).where(history.c.minute < once(after(-KEPT))))
