"""The statements that search behind paused jobs. Each reads a bounded number of them."""

from functools import cache

from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from jobqueue.states import State
from jobqueue.store.dialects.base import Backend
from jobqueue.store.schema import LaneKind, Parked, audit, jobs, lanes, pauses, queues, workers
from jobqueue.store.sql.claim import CURSORS
from jobqueue.store.sql.predicates import IS_PAUSED, QUEUE_LIMITED, unpaused
from jobqueue.store.sql.rows import NAMES

_MOST = bindparam("in_most", type_=Integer())
_PLACE = ("queue", "priority", "run_at", "id")


class PausedStatements:
    """The statements for one backend. A level is the jobs of one priority of a queue."""

    def __init__(self, backend: Backend) -> None:
        self.signs = _signs()
        self.levels = _levels(backend)
        self.first_unpaused = _first_unpaused(backend)
        self.ahead = _ahead(backend)


@cache
def paused_statements(backend: Backend) -> PausedStatements:
    """Build the statements, once per backend."""
    return PausedStatements(backend)


def _signs() -> Executable:
    """Select what is paused, and what changes when jobs may have become claimable again.

    An operator's action has a row in the audit; a worker that gives its jobs back at its end, or
    from which they are taken, loses its row.
    """
    last_action = select(func.max(audit.c.id)).scalar_subquery()
    fleet = (
        select(column).select_from(workers).scalar_subquery()
        for column in (func.count(), func.max(workers.c.id))
    )
    return select(pauses.c.kind, pauses.c.name, pauses.c.paused_at, last_action, *fleet)


def _levels(backend: Backend) -> Executable:
    """Select the levels of the given queues, unless a queue is paused or limited."""
    given = backend.batch_table(NAMES)
    closed = exists().where(queues.c.name == given.c.name, or_(IS_PAUSED, QUEUE_LIMITED))
    best = _next_priority(given, given.c.name)
    level = (
        select(given.c.name.label("queue"), best.label("priority"))
        .where(~closed)
        .cte("level", recursive=True)
    )
    following = _next_priority(level, level.c.queue, jobs.c.priority > level.c.priority)
    more = select(level.c.queue, following).where(level.c.priority.is_not(None))
    found = level.union_all(more)
    return select(found.c.queue, found.c.priority).where(found.c.priority.is_not(None))


def _next_priority(
    beside: FromClause, queue: ColumnElement[str], *where: ColumnElement[bool]
) -> ColumnElement[int]:
    return (
        select(jobs.c.priority)
        .where(*_available(jobs), jobs.c.queue == queue, *where)
        .order_by(jobs.c.priority)
        .limit(1)
        .correlate(beside)
        .scalar_subquery()
    )


def _first_unpaused(backend: Backend) -> Executable:
    """Select the first job behind each cursor that is not paused, among `in_most` of its level.

    If all of these are paused, the last of them, with `is_unpaused` false; no job of a level that
    has fewer.
    """
    given = backend.batch_table(CURSORS)
    some = _behind(given)
    first = select(some.c.id).where(unpaused(some)).limit(1).scalar_subquery()
    return _of_each(backend, given, func.coalesce(first, _last_of(_behind(given))))


def _ahead(backend: Backend) -> Executable:
    """Select the job that is `in_most` behind each cursor, unless its level has fewer."""
    given = backend.batch_table(CURSORS)
    return _of_each(backend, given, _last_of(_behind(given)))


def _behind(given: FromClause) -> FromClause:
    """Select the first `in_most` available jobs of a cursor's level behind it, in order.

    First those of the same instant, as one INSERT makes many: SQLite would read all of these to
    find (run_at, id) > (x, y).
    """
    same, later = jobs.alias("same"), jobs.alias("later")
    at_once = _of_level(same, given, same.c.run_at == given.c.run_at, same.c.id > given.c.id)
    then = _of_level(later, given, later.c.run_at > given.c.run_at)
    both = (select(part.subquery()) for part in (at_once, then))
    return union_all(*both).limit(_MOST).subquery("some")


def _of_level(
    table: FromClause, given: FromClause, *where: ColumnElement[bool]
) -> Select[tuple[object, ...]]:
    return (
        select(*(table.c[name] for name in ("id", "task", "tags")))
        .where(
            *_available(table),
            table.c.queue == given.c.queue,
            table.c.priority == given.c.priority,
            *where,
        )
        .order_by(table.c.run_at, table.c.id)
        .limit(_MOST)
        .correlate(given)
    )


def _last_of(some: FromClause) -> ColumnElement[int]:
    last = bindparam("in_most_but_one", type_=Integer())
    return select(some.c.id).offset(last).limit(1).scalar_subquery()


def _of_each(
    backend: Backend, given: FromClause, id_: ColumnElement[int]
) -> Select[tuple[object, ...]]:
    ids = backend.first_of_each(given, select(id_.label("id")).correlate(given))
    columns = (jobs.c[name] for name in _PLACE)
    is_unpaused = unpaused().label("is_unpaused")
    return select(*columns, is_unpaused).where(backend.in_subquery(jobs.c.id, ids))


def _available(table: FromClause) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    available: ColumnElement[str] = literal_column(f"'{State.AVAILABLE.value}'")
    return table.c.state == available, table.c.lane.is_(None)


def filled_queues() -> Executable:
    """Select the limited queues with available jobs without a key, unless workers look there.

    Looks at the first `in_most` jobs of each, for one that is not paused.
    """
    some = (
        select(jobs.c.task, jobs.c.tags)
        .where(*_available(jobs), jobs.c.queue == queues.c.name)
        .order_by(*(jobs.c[name] for name in _PLACE[1:]))
        .limit(_MOST)
        .correlate(queues)
        .subquery("some")
    )
    available = select(some.c.task).where(unpaused(some)).exists()
    is_known = exists().where(
        lanes.c.kind == literal_column(str(LaneKind.QUEUE.value)),
        lanes.c.name == queues.c.name,
        lanes.c.parked != Parked.EMPTY.value,
    )
    return select(queues.c.name).where(QUEUE_LIMITED, ~is_known, available)
