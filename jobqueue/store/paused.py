"""Paused jobs in front of others: where the first is that may be claimed, in bounded steps."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Executable

from jobqueue.store.claims import START, Cursor
from jobqueue.store.database import Store
from jobqueue.store.sql.claim import CURSORS
from jobqueue.store.sql.paused import paused_statements
from jobqueue.store.sql.rows import NAMES

Level = tuple[str, int]
"""A queue and a priority: the jobs that have both."""
Signs = frozenset[tuple[object, ...]]
"""What is paused, and what tells that jobs may have come back in front of others."""

_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)
_LAST_ID = 2**63 - 1


def before(level: Level) -> Cursor:
    """Return the cursor before every job of a level."""
    return level[1], START[1], START[2]


def behind(level: Level) -> Cursor:
    """Return the cursor behind every job of a level."""
    return level[1], _LAST_INSTANT, _LAST_ID


class PausedJobs:
    """Looks behind the paused jobs of one database. Each method runs in a transaction."""

    def __init__(self, store: Store) -> None:
        self._backend = store.backend
        self._statements = paused_statements(store.backend)

    def signs(self, connection: Connection) -> Signs:
        """Return what is paused, the last action of an operator and the workers, to compare."""
        return frozenset(map(tuple, connection.execute(self._statements.signs)))

    def levels(self, connection: Connection, queues: Sequence[str]) -> list[Level]:
        """Return the levels of queues that have available jobs, without those of closed queues.

        Call it first: the transaction reads by indexes from here on.
        """
        self._backend.prefer_indexes(connection)
        given = self._backend.batch_parameters(NAMES, [(name,) for name in queues])
        rows = connection.execute(self._statements.levels, given)
        return sorted((queue, priority) for queue, priority in rows)

    def first_unpaused(
        self, connection: Connection, cursors: Mapping[Level, Cursor], rows: int
    ) -> dict[Level, tuple[Cursor, bool]]:
        """Look at up to `rows` jobs of each level behind its cursor.

        Return the place of the first that is not paused, and True; or that of the last one, and
        False, if all of them are paused. A level with fewer, all of them paused, is missing.
        """
        found = self._look(connection, self._statements.first_unpaused, cursors, rows)
        return {level: (place, is_unpaused) for level, place, is_unpaused in found}

    def ahead(
        self, connection: Connection, cursors: Mapping[Level, Cursor], rows: int
    ) -> dict[Level, Cursor]:
        """Return for each level the place that is `rows` jobs behind its cursor, or its end."""
        found = self._look(connection, self._statements.ahead, cursors, rows)
        return {level: behind(level) for level in cursors} | {
            level: place for level, place, _ in found
        }

    def _look(
        self,
        connection: Connection,
        statement: Executable,
        cursors: Mapping[Level, Cursor],
        rows: int,
    ) -> list[tuple[Level, Cursor, bool]]:
        if not cursors:
            return []
        given = [(queue, *cursor) for (queue, _), cursor in cursors.items()]
        parameters = self._backend.batch_parameters(CURSORS, given)
        parameters |= {"in_most": rows, "in_most_but_one": rows - 1}
        return [
            ((queue, priority), (priority, run_at, id_), bool(is_unpaused))
            for queue, priority, run_at, id_, is_unpaused in connection.execute(
                statement, parameters
            )
        ]
