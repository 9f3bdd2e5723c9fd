"""Paused jobs in front of others: where the first is that may be claimed, in bounded steps."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable

from jobqueue.store.claims import END, START, Cursor
from jobqueue.store.database import Store
from jobqueue.store.lane_admission import Head, place_of
from jobqueue.store.sql.claim import CURSORS
from jobqueue.store.sql.paused import Searched, paused_statements
from jobqueue.store.sql.rows import NAMES

Level = tuple[str, int]
"""A name and a priority: the jobs that have both. The name is of a queue or a concurrency key."""
Signs = frozenset[tuple[object, ...]]
"""What is paused, and what tells that jobs may have come back in front of others."""

_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)


def before(level: Level) -> Cursor:
    """Return the cursor before every job of a level."""
    return level[1], START[1], START[2]


class Look(NamedTuple):
    """What was found behind the cursor of a level."""

    heads: Sequence[Head] = ()
    """The first jobs that may start, in order."""
    last: Cursor | None = None
    """The place of the last job that was looked at, if there may be more behind it."""


class PausedJobs:
    """Looks behind the paused jobs of one database. Each method runs in a transaction.

    `queue`: in which the jobs of concurrency keys are searched.
    """

    def __init__(self, store: Store, searched: Searched = Searched.FREE, queue: str = "") -> None:
        self._backend = store.backend
        self._statements = made = paused_statements(store.backend)
        self._queue = queue
        self._of_keys = searched is Searched.KEYS
        self._levels, self._look = {
            Searched.FREE: (made.levels, made.look),
            Searched.LIMITED: (made.limited_levels, made.limited_look),
            Searched.KEYS: (made.keys_levels, made.keys_look),
        }[searched]

    def signs(self, connection: Connection) -> Signs:
        """Return what is paused, the last action of an operator and the workers, to compare."""
        return frozenset(map(tuple, connection.execute(self._statements.signs)))

    def levels(self, connection: Connection, names: Sequence[str]) -> list[Level]:
        """Return the levels of names that have available jobs.

        If free jobs are searched, without those of paused and of limited queues. Call it first: the
        transaction reads by indexes from here on.
        """
        self._backend.prefer_indexes(connection)
        given = self._backend.batch_parameters(NAMES, [(name,) for name in names])
        rows = connection.execute(self._levels, given | {"in_searched": self._queue})
        return sorted((name, priority) for name, priority in rows)

    def look(
        self, connection: Connection, cursors: Mapping[Level, Cursor], rows: int, limit: int = 1
    ) -> dict[Level, Look]:
        """Look for the first `limit` jobs of each level behind its cursor that may start.

        Looks at `rows` jobs of each level at least, and at less than twice as many.
        """
        found: dict[Level, list[Head]] = {level: [] for level in cursors}
        more = {"in_limit": limit, "in_searched": self._queue, "in_last_instant": _LAST_INSTANT}
        for name, priority, run_at, id_, *rest in self._read(
            connection, self._look, cursors, rows, more
        ):
            lane = name if self._of_keys else None
            found[name, priority].append(Head(id_, lane, priority, run_at, *rest))
        return {level: _look_of(heads, limit) for level, heads in found.items()}

    def ahead(
        self, connection: Connection, cursors: Mapping[Level, Cursor], rows: int
    ) -> dict[str, Cursor]:
        """Return for each queue a place behind its cursor, in this level or a later one.

        At least `rows` jobs are up to it, and less than thrice as many; or it is behind all jobs.
        """
        found = self._read(connection, self._statements.ahead, cursors, rows)
        ends = {queue: (priority, run_at, id_) for queue, priority, run_at, id_ in found}
        return {queue: END for queue, _ in cursors} | ends

    def _read(
        self,
        connection: Connection,
        statement: Executable,
        cursors: Mapping[Level, Cursor],
        rows: int,
        more: Mapping[str, object] | None = None,
    ) -> Sequence[Sequence[Any]]:
        if not cursors:
            return []
        given = [(name, *cursor) for (name, _), cursor in cursors.items()]
        parameters = self._backend.batch_parameters(CURSORS, given)
        parameters |= {"in_most_but_one": rows - 1, **(more or {})}
        return connection.execute(statement, parameters).all()


def _look_of(found: Sequence[Head], limit: int) -> Look:
    """Return the first `limit` that may start of what was found in a level, and its last place."""
    found = sorted(found, key=place_of)
    heads = [head for head in found if head.is_in_line]
    is_more = len(found) > min(limit, len(heads))
    return Look(heads[:limit], place_of(found[-1]) if is_more else None)
