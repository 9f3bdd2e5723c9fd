"""The statements that claim jobs, undo claims and start jobs."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Text,
    Update,
    bindparam,
    case,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from jobqueue.states import State
from jobqueue.store.clock import INSTANT, now, once
from jobqueue.store.dialects.base import Backend, Columns
from jobqueue.store.schema import jobs, queues, workers
from jobqueue.store.sql.predicates import (
    FREES_KEY,
    IS_PAUSED,
    MINE,
    ONCE,
    PLAIN,
    QUEUE_LIMITED,
    SOLO,
    becomes,
    may,
    unpaused,
)

_CLAIMED = [
    "id",
    "fence",
    "task",
    "queue",
    "args",
    "attempt",
    "max_attempts",
    "run_at",
    "started_at",
    "timeout",
    "backoff",
    "snoozes",
    "crashes",
    "deadline_at",
    "worker_id",
]
_PLACE = ("queue", "priority", "run_at", "id")
"""The order of the index of claims."""
_WORST = literal_column(str(2**31 - 1), Integer())
_AVAILABLE: ColumnElement[str] = literal_column(f"'{State.AVAILABLE.value}'")


LEVELS: Columns = {
    "queue": Text(),
    "priority": Integer(),
    "run_at": INSTANT,
    "id": BigInteger(),
}
"""Levels to claim from, each with its cursor."""


def next_levels() -> Executable:
    """Select the first levels (queue, priority) after a given one that have available jobs.

    At most `in_limit`, of each queue the best `in_per_queue`; one index lookup for each of them.
    """
    after = tuple_(
        bindparam("in_queue", type_=Text()),
        bindparam("in_priority", type_=Integer()),
        bindparam("in_cursor_run_at", type_=INSTANT),
        bindparam("in_cursor_id", type_=BigInteger()),
    )
    first = (
        select(jobs.c.queue, jobs.c.priority, literal_column("1", Integer()).label("nth"))
        .where(may("claim"), PLAIN, tuple_(*(jobs.c[name] for name in _PLACE)) > after, unpaused())
        .order_by(*(jobs.c[name] for name in _PLACE))
        .limit(1)
        .subquery("first")
    )
    found = select(first).cte("found", recursive=True)
    other = jobs.alias("other")
    # The place is after every job of the level: SQLite searches (a, b) > (x, y) in a longer index
    # from (x, y) on, and would read every job of the level without the cursor. It searches for the
    # values of expressions only: for those of columns, it would compare in another way.
    behind = tuple_(*(other.c[name] for name in _PLACE)) > tuple_(
        found.c.queue.concat(""),
        case(
            (found.c.nth >= bindparam("in_per_queue", type_=Integer()), _WORST),
            else_=found.c.priority,
        ),
        bindparam("in_cursor_run_at", type_=INSTANT),
        bindparam("in_cursor_id", type_=BigInteger()),
    )
    following = (
        select(other.c.id)
        .where(other.c.state == _AVAILABLE, other.c.lane.is_(None), behind, unpaused(other))
        .order_by(*(other.c[name] for name in _PLACE))
        .limit(1)
        .scalar_subquery()
    )
    nth = case((jobs.c.queue == found.c.queue, found.c.nth + 1), else_=1)
    more = select(jobs.c.queue, jobs.c.priority, nth).select_from(
        found.join(jobs, jobs.c.id == following)
    )
    found = found.union_all(more)
    return select(found).limit(bindparam("in_limit", type_=Integer()))


def claim(backend: Backend) -> Executable:
    """Claim the first jobs of one (queue, priority) after the cursor.

    Jobs that are locked by others are skipped, and found by a later sweep.
    """
    cursor = tuple_(bindparam("in_cursor_run_at", type_=INSTANT), bindparam("in_cursor_id"))
    behind = (
        jobs.c.priority == bindparam("in_priority", type_=Integer()),
        tuple_(jobs.c.run_at, jobs.c.id) > cursor,
    )
    return _claim_in_order(backend, jobs.c.run_at, jobs.c.id, where=behind)


def claim_levels(backend: Backend) -> Update:
    """Claim the first jobs of each of many levels after its cursor, up to `in_limit` of each."""
    given = backend.batch_table(LEVELS)
    level = (
        select(*(given.c[name] for name in LEVELS))
        .where(
            ~exists().where(queues.c.name == given.c.queue, or_(IS_PAUSED, QUEUE_LIMITED)),
            exists().where(workers.c.id == bindparam("in_worker")),
        )
        .subquery("level")
    )
    other = jobs.alias("other")
    first = (
        select(other.c.id)
        .where(
            other.c.state == _AVAILABLE,
            other.c.lane.is_(None),
            other.c.queue == level.c.queue,
            other.c.priority == level.c.priority,
            tuple_(other.c.run_at, other.c.id) > tuple_(level.c.run_at, level.c.id),
            unpaused(other),
        )
        .order_by(other.c.run_at, other.c.id)
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=other)
    )
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, backend.first_of_each(level, first)))
        .values(claim_values())
        .returning(*claim_columns(), jobs.c.priority)
    )


def claim_first(backend: Backend) -> Update:
    """Claim the first jobs of one queue, of all priorities, in the index's order."""
    place = (jobs.c.priority, jobs.c.run_at, jobs.c.id)
    return _claim_in_order(backend, *place, and_tell=[jobs.c.priority])


def _claim_in_order(
    backend: Backend,
    *order: ColumnElement[Any],
    where: Sequence[ColumnElement[bool]] = (),
    and_tell: Sequence[ColumnElement[Any]] = (),
) -> Update:
    """Claim the first jobs of one queue in an order that the index has."""
    candidates = (
        select(jobs.c.id)
        .where(
            may("claim"),
            PLAIN,
            jobs.c.queue == bindparam("in_queue", type_=Text()),
            *where,
            unpaused(),
            ~exists().where(
                queues.c.name == bindparam("in_queue"),
                or_(IS_PAUSED, QUEUE_LIMITED),
            ),
            # A worker whose lease was revoked claims nothing, even before it notices.
            exists().where(workers.c.id == bindparam("in_worker")),
        )
        .order_by(*order)
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=jobs)  # omitted on SQLite, which has one writer
    )
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, candidates))
        .values(claim_values())
        .returning(*claim_columns(), *and_tell)
    )


def claim_values() -> dict[str, Any]:
    """Return what a claim writes into its job."""
    return {
        "state": becomes("claim"),
        "attempt": jobs.c.attempt + 1,
        "fence": jobs.c.fence + 1,
        "worker_id": bindparam("in_worker"),
        "worker": bindparam("in_worker_name", type_=Text()),
        "started_at": once(now()),
    }


def claim_columns() -> list[ColumnElement[Any]]:
    """Return the columns of a `Claim`, in its order."""
    return [
        *(jobs.c[name] for name in _CLAIMED),
        SOLO.label("immediate_only"),
        ONCE.label("at_most_once"),
        jobs.c.child_crashes,
        FREES_KEY.label("releases_key_on_start"),
        jobs.c.scheduled_for,
        jobs.c.headers,
        jobs.c.expires_at,
    ]


def undo_claim(pairs: FromClause) -> Executable:
    """Undo claims before their commit; no other connection has seen their fence."""
    return (
        update(jobs)
        .where(jobs.c.id == pairs.c.id, jobs.c.fence == pairs.c.fence)
        .values(
            state=_AVAILABLE,
            attempt=jobs.c.attempt - 1,
            fence=jobs.c.fence - 1,
            worker_id=None,
            worker=None,
            started_at=None,
        )
    )


def mark_started() -> Executable:
    """Free the unique key of a job that starts."""
    return (
        update(jobs)
        .where(
            jobs.c.id == bindparam("in_job", type_=BigInteger()),
            jobs.c.fence == bindparam("in_claimed", type_=BigInteger()),
            MINE,
        )
        .values(key_released=1)
    )
