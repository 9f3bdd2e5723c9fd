"""The columns, in order, of rows that statements take as one batch parameter."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Double, Integer, Text

from jobqueue.states import State
from jobqueue.store.clock import INSTANT
from jobqueue.store.dialects.base import Backend, Columns

Progress = tuple[int, int, float | None, str | None]
"""A job's progress: (id, fence, fraction, message)."""

NAMES: Columns = {"name": Text()}
NEW: Columns = {
    "task": Text(),
    "queue": Text(),
    "priority": Integer(),
    "args": Text(),
    "tags": Text(),
    "delay": Double(),
    "at": INSTANT,
    "max_attempts": Integer(),
    "timeout": Double(),
    "backoff": Text(),
    "unique_key": Text(),
    "unique_until": Text(),
    "deadline": Double(),
}
NEW_WITH_EXTRA: Columns = {
    **NEW,
    "headers": Text(),
    "scheduled_for": INSTANT,
    "lane": Text(),
    "lane_limit": Integer(),
    "lane_weight": Double(),
    "lane_strict": Integer(),
    "expires": Double(),
    "awaited_key": Text(),
}
IDS: Columns = {"id": BigInteger()}
SUCCESS: Columns = {"id": BigInteger(), "fence": BigInteger(), "result": Text()}
END: Columns = {
    "id": BigInteger(),
    "fence": BigInteger(),
    "state": Text(),
    "delay": Double(),
    "refund": Integer(),
    "snooze": Integer(),
    "reason": Text(),
    "crashes": Integer(),
    "child_crashes": Integer(),
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


PROGRESS: Columns = {
    "id": BigInteger(),
    "fence": BigInteger(),
    "progress": Double(),
    "message": Text(),
}
COUNTS: Columns = {
    "queue": Text(),
    "task": Text(),
    "succeeded": BigInteger(),
    "failed": BigInteger(),
    "cancelled": BigInteger(),
    "errored_attempts": BigInteger(),
    "runs": BigInteger(),
    "duration": Double(),
    "duration_max": Double(),
    "wait": Double(),
    "wait_max": Double(),
}
PAIRS: Columns = {"id": BigInteger(), "fence": BigInteger()}


def last_progress(backend: Backend, rows: Iterable[Progress]) -> dict[str, Any]:
    """Return the parameters of `save_progress` for completed claims: fence + 1, and no holder.

    Execute it in the transaction that completes the claims, which has locked the rows.
    """
    moved = sorted(((id_, fence + 1, *said) for id_, fence, *said in rows), key=itemgetter(0))
    return backend.batch_parameters(PROGRESS, moved) | {"in_worker": 0}
