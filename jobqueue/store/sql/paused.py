"""The statements that search behind paused jobs. Each reads a bounded number of them."""

from collections.abc import Sequence
from enum import Enum
from functools import cache

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    type_coerce,
    union_all,
)

from jobqueue.store.clock import INSTANT, InstantAsWritten
from jobqueue.store.dialects.base import PLACE, Backend
from jobqueue.store.schema import audit, jobs, pauses, queues, workers
from jobqueue.store.sql.claim import CURSORS
from jobqueue.store.sql.lane_discovery import is_in_line
from jobqueue.store.sql.predicates import IS_PAUSED, PLAIN, QUEUE_LIMITED, may, unpaused
from jobqueue.store.sql.rows import NAMES

_MOST_BUT_ONE = bindparam("in_most_but_one", type_=Integer())
_IN_QUEUE = bindparam("in_searched", type_=Text())
_LIMIT = bindparam("in_limit", type_=Integer())
_LAST_INSTANT = bindparam("in_last_instant", type_=INSTANT)
_LAST_ID: ColumnElement[int] = literal_column(str(2**63 - 1), BigInteger())
_PLACE_COLUMNS = (
    jobs.c.priority,
    type_coerce(jobs.c.run_at, InstantAsWritten()).label("run_at"),
    jobs.c.id,
)


class Searched(Enum):
    """Which jobs are searched, and what they are named by. A level has one name and priority."""

    FREE = "queue"
    """Jobs without a key, of queues without a limit."""
    LIMITED = "limited queue"
    """Jobs without a key, of queues with a limit."""
    KEYS = "key"
    """Jobs of concurrency keys, in one queue."""


class PausedStatements:
    """The statements for one backend."""

    def __init__(self, backend: Backend) -> None:
        self.signs = _signs()
        free = _Search(backend, Searched.FREE)
        self.levels, self.look, self.ahead = free.levels(), free.look(), free.ahead()
        limited = _Search(backend, Searched.LIMITED)
        self.limited_levels, self.limited_look = limited.levels(), limited.look()
        keys = _Search(backend, Searched.KEYS)
        self.keys_levels, self.keys_look = keys.levels(), keys.look()


paused_statements = cache(PausedStatements)
"""The statements of a backend, built once."""


class _Search:
    """Builds the statements that search one kind of jobs."""

    def __init__(self, backend: Backend, searched: Searched) -> None:
        self._backend = backend
        self._searched = searched
        self._name = jobs.c.lane if searched is Searched.KEYS else jobs.c.queue

    def levels(self) -> Executable:
        """Select the levels of the given names that have available jobs.

        If free jobs are searched, without those of paused and of limited queues. Who searches a
        limited queue, or keys, has seen that the queue is not paused.
        """
        given = self._backend.batch_table(NAMES)
        best = self._next_priority(given, given.c.name)
        first = select(given.c.name.label("name"), best.label("priority"))
        if self._searched is Searched.FREE:
            closed = or_(IS_PAUSED, QUEUE_LIMITED)
            first = first.where(~exists().where(queues.c.name == given.c.name, closed))
        level = first.cte("level", recursive=True)
        following = self._next_priority(level, level.c.name, jobs.c.priority > level.c.priority)
        more = select(level.c.name, following).where(level.c.priority.is_not(None))
        found = level.union_all(more)
        return select(found.c.name, found.c.priority).where(found.c.priority.is_not(None))

    def _next_priority(
        self, beside: FromClause, name: ColumnElement[str], *where: ColumnElement[bool]
    ) -> ColumnElement[int]:
        return (
            select(jobs.c.priority)
            .where(*self._available(name), *where)
            .order_by(jobs.c.priority)
            .limit(1)
            .correlate(beside)
            .scalar_subquery()
        )

    def look(self) -> Executable:
        """Select the first `in_limit` jobs behind each cursor that may start, and the last one.

        Among the first jobs of its level behind it, at least `in_most` and less than twice as many.
        The last one of these is selected whether it may start or not, but not if there are fewer.
        """
        given = self._backend.batch_table(CURSORS)
        last = jobs.alias("last")
        end = func.coalesce(*(self._far(given, *part) for part in _behind(given)))
        rows = (
            select(
                *(given.c[name] for name in ("place", *CURSORS)),
                last.c.run_at.label("last_run_at"),
                last.c.id.label("last_id"),
            )
            .select_from(given.outerjoin(last, last.c.id == end))
            .subquery("given_level")
        )
        parts = [self._first_of(rows, *part) for part in _up_to_the_last(rows)]
        ends = select(rows.c.last_id.label("id")).correlate(rows)
        some = union_all(*(select(part.subquery()) for part in parts), ends).subquery("some")
        ids = self._backend.first_of_each(rows, select(some.c.id))
        return select(
            self._name.label("name"),
            *_PLACE_COLUMNS,
            *(jobs.c[name] for name in ("lane_limit", "lane_weight", "lane_strict")),
            (~unpaused()).label("is_paused"),
        ).where(self._backend.in_subquery(jobs.c.id, ids))

    def _first_of(
        self, rows: FromClause, *where: ColumnElement[bool]
    ) -> Select[tuple[object, ...]]:
        """Select the first jobs of a part of a level that are not passed over."""
        counts = is_in_line if self._searched is Searched.KEYS else unpaused
        return (
            select(jobs.c.id)
            .where(*self._of_level(rows), *where, counts())
            .order_by(jobs.c.run_at, jobs.c.id)
            .limit(_LIMIT)
            .correlate(rows)
        )

    def _far(self, given: FromClause, *where: ColumnElement[bool]) -> ColumnElement[int]:
        """Return the job that is `in_most` behind the first of a part of a level."""
        return (
            select(jobs.c.id)
            .where(*self._of_level(given), *where)
            .order_by(jobs.c.run_at, jobs.c.id)
            .limit(1)
            .offset(_MOST_BUT_ONE)
            .correlate(given)
            .scalar_subquery()
        )

    def ahead(self) -> Executable:
        """Select for each cursor a job behind it, in its level or a later one of its name.

        There are at least `in_most` up to it, or none is selected; and less than thrice as many.
        """
        given = self._backend.batch_table(CURSORS)
        later_levels = (
            select(jobs.c.id)
            .where(*self._available(given.c.queue), jobs.c.priority > given.c.priority)
            .order_by(*(jobs.c[name] for name in PLACE))
            .limit(1)
            .offset(_MOST_BUT_ONE)
            .correlate(given)
            .scalar_subquery()
        )
        in_level = (self._far(given, *part) for part in _behind(given))
        far = select(func.coalesce(*in_level, later_levels).label("id")).correlate(given)
        ids = self._backend.first_of_each(given, far)
        columns = (self._name.label("name"), *_PLACE_COLUMNS)
        return select(*columns).where(self._backend.in_subquery(jobs.c.id, ids))

    def _of_level(self, given: FromClause) -> Sequence[ColumnElement[bool]]:
        return *self._available(given.c.queue), jobs.c.priority == given.c.priority

    def _available(self, name: ColumnElement[str]) -> Sequence[ColumnElement[bool]]:
        if self._searched is Searched.KEYS:
            return may("claim"), jobs.c.lane == name, jobs.c.queue == _IN_QUEUE
        return may("claim"), PLAIN, jobs.c.queue == name


def _behind(given: FromClause) -> Sequence[Sequence[ColumnElement[bool]]]:
    """Return what is true for the jobs of a level behind its cursor: in two parts, in order.

    First those of the same instant, as one INSERT makes many: SQLite would read all of these to
    find (run_at, id) > (x, y).
    """
    return (
        (jobs.c.run_at == given.c.run_at, jobs.c.id > given.c.id),
        (jobs.c.run_at > given.c.run_at,),
    )


def _up_to_the_last(rows: FromClause) -> Sequence[Sequence[ColumnElement[bool]]]:
    """Return what is true for the jobs behind a cursor up to the last, if any: in three parts."""
    is_later = rows.c.last_run_at > rows.c.run_at
    most = func.coalesce(case((is_later, _LAST_ID), else_=rows.c.last_id), _LAST_ID)
    before = func.coalesce(rows.c.last_run_at, _LAST_INSTANT)
    return (
        (jobs.c.run_at == rows.c.run_at, jobs.c.id > rows.c.id, jobs.c.id <= most),
        (jobs.c.run_at > rows.c.run_at, jobs.c.run_at < before),
        # Not `is_later AND run_at = last_run_at`, of which SQLite would search run_at > run_at.
        (jobs.c.run_at == case((is_later, rows.c.last_run_at)), jobs.c.id <= rows.c.last_id),
    )


def _signs() -> Executable:
    """Select what is paused, and what changes when jobs may have become claimable again.

    An operator's action has a row in the audit; a worker that gives its jobs back at its end, or
    from which they are taken, loses its row. One that starts may have its id on SQLite.
    """
    last_action = select(func.max(audit.c.id)).scalar_subquery()
    fleet = (
        select(column).select_from(workers).scalar_subquery()
        for column in (func.count(), func.max(workers.c.started_at))
    )
    return select(pauses.c.kind, pauses.c.name, last_action, *fleet)
