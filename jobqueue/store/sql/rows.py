"""The columns, in order, of rows that statements take as one batch parameter."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Double, Integer, Table, Text
from sqlalchemy.types import TypeEngine

from jobqueue.states import State
from jobqueue.store.clock import INSTANT
from jobqueue.store.dialects.base import COUNTED, Backend, Columns
from jobqueue.store.schema import counters, jobs

Progress = tuple[int, int, float | None, str | None]
"""A job's progress: (id, fence, fraction, message)."""


def columns_of(table: Table, *names: str) -> dict[str, TypeEngine[Any]]:
    """Return columns of a table with their types."""
    return {name: table.c[name].type for name in names}


NAMES: Columns = {"name": Text()}
NEW: Columns = {
    **columns_of(jobs, "task", "queue", "priority", "args", "tags"),
    "delay": Double(),
    "at": INSTANT,
    **columns_of(jobs, "max_attempts", "timeout", "backoff", "unique_key", "unique_until"),
    "deadline": Double(),
}
NEW_WITH_EXTRA: Columns = {
    **NEW,
    **columns_of(jobs, "headers", "scheduled_for", "lane", "lane_limit", "lane_weight"),
    "lane_strict": Integer(),
    "expires": Double(),
    "awaited_key": Text(),
}
IDS = columns_of(jobs, "id")
PAIRS = columns_of(jobs, "id", "fence")
SUCCESS = columns_of(jobs, "id", "fence", "result")
END: Columns = {
    **columns_of(jobs, "id", "fence", "state"),
    "delay": Double(),
    **dict.fromkeys(("refund", "snooze"), Integer()),
    **columns_of(jobs, "reason", "crashes", "child_crashes"),
}


class CompletionRow(NamedTuple):
    """A row of END. None for `crashes` or `child_crashes` leaves the column unchanged."""

    id: int
    fence: int
    state: State
    delay: float | None = None  # seconds
    refund: int = 0  # 1: the attempt is not charged
    snooze: int = 0  # 1: it counts as a snooze
    reason: str | None = None
    crashes: int | None = 0
    child_crashes: int | None = 0


PROGRESS: Columns = {**columns_of(jobs, "id", "fence", "progress"), "message": Text()}
COUNTS = columns_of(counters, *COUNTED)


def last_progress(backend: Backend, rows: Iterable[Progress]) -> dict[str, Any]:
    """Return the parameters of `save_progress` for completed claims: fence + 1, and no holder.

    Execute it in the transaction that completes the claims, which has locked the rows.
    """
    moved = sorted(((id_, fence + 1, *said) for id_, fence, *said in rows), key=itemgetter(0))
    return backend.batch_parameters(PROGRESS, moved) | {"in_worker": 0}
