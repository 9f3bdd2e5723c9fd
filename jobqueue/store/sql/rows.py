"""The rows that statements take as one parameter: their columns, in order."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, Double, Integer, Text

from jobqueue.store.clock import INSTANT
from jobqueue.store.dialects.base import Backend, Columns

Progress = tuple[int, int, float | None, str | None]
"""What a handler reports: (id, fence, fraction, message)."""

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
PROGRESS: Columns = {
    "id": BigInteger(),
    "fence": BigInteger(),
    "progress": Double(),
    "message": Text(),
}
PAIRS: Columns = {"id": BigInteger(), "fence": BigInteger()}


def last_progress(backend: Backend, rows: Iterable[Progress]) -> dict[str, Any]:
    """Parameters of `report` for claims whose end is written: one fence on, and held by nobody.

    In the transaction of that end, which locks the rows.
    """
    moved = sorted(((id_, fence + 1, *said) for id_, fence, *said in rows), key=itemgetter(0))
    return backend.batch_parameters(PROGRESS, moved) | {"in_worker": 0}
