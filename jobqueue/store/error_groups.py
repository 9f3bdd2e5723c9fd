"""Errors by cause: counted from what failures append, never from the rows of jobs."""

import re
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, cast, func, select

from jobqueue import options
from jobqueue.error_groups import ID_LENGTH, SIGNATURE_MAX, ErrorGroup, signature_of
from jobqueue.errors import InvalidOption
from jobqueue.literal_types import ErrorWindow
from jobqueue.store.clock import present_of
from jobqueue.store.database import Store
from jobqueue.store.schema import CounterKind, error_counts

WINDOWS: dict[ErrorWindow, timedelta] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
GROUPS_MAX = 1000
"""Most groups in one answer."""

_ID = re.compile(rf"[0-9a-f]{{4,{ID_LENGTH}}}", re.ASCII)
_of = error_counts.c
_counted = (
    select(
        _of.error_id,
        func.min(_of.first_at).label("first_seen"),
        func.max(_of.last_at).label("last_seen"),
        func.max(_of.id).label("newest"),  # Compaction inserts its rows again.
    )
    .where(_of.kind.in_((CounterKind.WRITTEN, CounterKind.TOTAL)))
    .group_by(_of.error_id)
    .subquery("known")
)
_known = (
    select(_of.task, _of.error_type, _of.place, _of.message, *_counted.c)
    .join_from(_counted, error_counts, _of.id == _counted.c.newest)
    .order_by(_counted.c.last_seen.desc(), _of.error_id)
)


class ErrorGroups:
    """The errors of a database by task, type and place. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(
        self,
        since: ErrorWindow | str,
        task: str | None = None,
        limit: int = GROUPS_MAX,
        *,
        within: ErrorWindow = "7d",
    ) -> list[ErrorGroup]:
        """Return what has errored in that time, the most frequent first.

        Times are whole hours: `1h` is this hour and the one before. Nothing is counted that is not
        `within` the last hours, which takes less time. Raises InvalidOption.
        """
        since = options.one_of(since, "since", tuple(WINDOWS))
        with self._store.read() as connection:
            hour = present_of(connection).replace(minute=0, second=0, microsecond=0)
            counts = {
                name: _sum(_of.attempts, _of.hour >= hour - span) for name, span in WINDOWS.items()
            }
            groups = (
                select(
                    _of.error_id,
                    counts["1h"].label("hour"),
                    counts["24h"].label("day"),
                    counts["7d"].label("week"),
                    cast(func.sum(_of.failed), BigInteger).label("failed"),
                )
                .where(
                    _of.kind.in_((CounterKind.WRITTEN, CounterKind.PERIOD)),
                    _of.hour >= hour - WINDOWS[within],
                )
                .group_by(_of.error_id)
                .having(counts[since] > 0)
                .order_by(counts[since].desc(), _of.error_id)
                .limit(limit)
            )
            if task is not None:
                groups = groups.where(_of.task == task)
            numbers = {row.error_id: row for row in connection.execute(groups)}
            known = connection.execute(_known.where(_of.error_id.in_(numbers))).all()
        found = {row.error_id: _group(row, numbers[row.error_id]) for row in known}
        return [found[id_] for id_ in numbers]

    def known(self, limit: int = GROUPS_MAX) -> list[tuple[str, str]]:
        """Return (id, signature) of the last errors, of 90 days, newest first."""
        with self._store.read() as connection:
            rows = connection.execute(_known.limit(limit)).all()
        return [(row.error_id, _signature(row)) for row in rows]

    def resolve(self, text: str) -> str:
        """Return the signature that an id, its beginning or a signature means.

        Raises InvalidOption.
        """
        if " " in text and len(text) <= SIGNATURE_MAX:
            return text
        if not _ID.fullmatch(text):
            said = f"{text[:40]!r} is not the id of an error, such as 3f2a9c01b7de"
            raise InvalidOption(f"{said}; see: jobqueue errors", field="error", value=text)
        begins = func.substr(_of.error_id, 1, len(text)) == text
        with self._store.read() as connection:
            rows = connection.execute(_known.where(begins).limit(3)).all()
        if len(rows) == 1:
            return _signature(rows[0])
        said = f"no error is known with the id {text}; see: jobqueue errors"
        if rows:
            several = " and ".join(f"{row.error_id} ({_signature(row)})" for row in rows[:2])
            said = f"{text} is the beginning of {several}; give more of it"
        raise InvalidOption(said, field="error", value=text)


def _sum(count: Any, where: Any) -> Any:
    return cast(func.coalesce(func.sum(count).filter(where), 0), BigInteger)


def _signature(row: Any) -> str:
    return signature_of(row.task, row.error_type, row.place)


def _group(row: Any, counts: Any) -> ErrorGroup:
    return ErrorGroup(
        row.error_id,
        row.task,
        row.error_type,
        row.place,
        row.message,
        counts.hour,
        counts.day,
        counts.week,
        counts.failed,
        row.first_seen,
        row.last_seen,
    )
