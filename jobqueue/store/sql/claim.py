"""The statements that claim jobs, undo claims and start jobs."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    Text,
    bindparam,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from jobqueue.states import State
from jobqueue.store.clock import INSTANT, now, once
from jobqueue.store.dialects.base import PLACE, Backend, Columns, PartsOf, behind, in_range
from jobqueue.store.schema import jobs, pauses, queues, workers
from jobqueue.store.sql.claim_rows import claim_columns
from jobqueue.store.sql.predicates import (
    IS_PAUSED,
    OF_CLAIM,
    PLAIN,
    QUEUE_LIMITED,
    becomes,
    may,
    unpaused,
)
from jobqueue.store.sql.rows import IDS, NAMES, columns_of

_PLACE = ("queue", "priority", "run_at", "id")
"""The order of the index of claims."""
_AVAILABLE: ColumnElement[str] = literal_column(f"'{State.AVAILABLE.value}'")

_BEHIND_CURSOR = tuple_(*(jobs.c[name] for name in _PLACE[1:])) > tuple_(
    bindparam("in_priority", type_=Integer()),
    bindparam("in_cursor_run_at", type_=INSTANT),
    bindparam("in_cursor_id", type_=BigInteger()),
)

CURSORS = columns_of(jobs, *_PLACE)
"""Queues, each with a cursor."""

RANGES = CURSORS | {f"last_{name}": CURSORS[name] for name in PLACE}
"""Queues to claim from, each with its cursor and the place up to which to claim."""

_CLAIMED: dict[str, Any] = {
    "state": becomes("claim"),
    "attempt": jobs.c.attempt + 1,
    "fence": jobs.c.fence + 1,
    "worker_id": bindparam("in_worker"),
    "worker": bindparam("in_worker_name", type_=Text()),
    "started_at": once(now()),
}
_IN_QUEUE = bindparam("in_queue", type_=Text())
_IS_ANY_PAUSED = exists().where(pauses.c.name.is_not(None)).label("is_any_paused")


def next_queues() -> Executable:
    """Select the queues that have available jobs, from a given one on, each with its best priority.

    At most `in_limit`; one index lookup for each of them. All of a queue may be paused:
    `is_any_paused` says whether any task or tag is.
    """
    place = [jobs.c[name] for name in _PLACE]
    first = (
        select(jobs.c.queue, jobs.c.priority)
        .where(may("claim"), PLAIN, jobs.c.queue >= _IN_QUEUE)
        .order_by(*place)
        .limit(1)
        .subquery("first")
    )
    found = select(first).cte("found", recursive=True)
    other = jobs.alias("other")
    following = (
        select(other.c.id)
        .where(
            other.c.state == _AVAILABLE,
            other.c.lane.is_(None),
            other.c.queue > found.c.queue,
        )
        .order_by(*(other.c[name] for name in _PLACE))
        .limit(1)
        .scalar_subquery()
    )
    more = select(jobs.c.queue, jobs.c.priority).select_from(
        found.join(jobs, jobs.c.id == following)
    )
    found = found.union_all(more)
    return select(found, _IS_ANY_PAUSED).limit(bindparam("in_limit", type_=Integer()))


def heads(backend: Backend) -> Executable:
    """Select those of the given queues that have available jobs, as `next_queues` does."""
    given = backend.batch_table(NAMES)
    other = jobs.alias("other")
    first = (
        select(other.c.id)
        .where(other.c.state == _AVAILABLE, other.c.lane.is_(None), other.c.queue == given.c.name)
        .order_by(*(other.c[name] for name in _PLACE[1:]))
        .limit(1)
    )
    ids = backend.first_of_each(given, first)
    head = jobs.c.queue, jobs.c.priority, _IS_ANY_PAUSED
    return select(*head).where(backend.in_subquery(jobs.c.id, ids)).order_by(jobs.c.queue)


def claim(backend: Backend) -> Executable:
    """Claim the first jobs of one queue after the cursor.

    Jobs that others lock, or change at this instant, are skipped, and found by a later sweep.
    """
    return claiming(backend, claimable().with_only_columns(backend.row_key(jobs)))


def claim_first(backend: Backend) -> Executable:
    """Claim the first jobs of one queue."""
    return claiming(backend, _candidates().with_only_columns(backend.row_key(jobs)))


def claim_queues(backend: Backend) -> Executable:
    """Claim the first jobs of each of many queues behind its cursor.

    Up to `in_share` of each, and `in_limit` in all: those of the queues that are given first.
    """
    return claiming(backend, _of_queues(backend, CURSORS, behind))


def claim_ranges(backend: Backend) -> Executable:
    """Claim the same in ranges: PostgreSQL compares an end with each entry of a page it reads."""
    return claiming(backend, _of_queues(backend, RANGES, in_range))


def _of_queues(backend: Backend, columns: Columns, parts_of: PartsOf) -> Select[Any]:
    """Select the ids of the first jobs of each of many queues in its range, which has parts."""
    given = backend.batch_table(columns)
    queue = (
        select(given.c.place, *(given.c[name] for name in columns))
        .where(
            ~exists().where(queues.c.name == given.c.queue, or_(IS_PAUSED, QUEUE_LIMITED)),
            exists().where(workers.c.id == bindparam("in_worker")),
        )
        .order_by(given.c.place)
        .subquery("given_queue")
    )
    other = jobs.alias("other")
    share = bindparam("in_share", type_=Integer())
    place = [other.c[name] for name in PLACE]
    firsts = [
        select(*place)
        .where(
            other.c.state == _AVAILABLE,
            other.c.lane.is_(None),
            other.c.queue == queue.c.queue,
            *part,
            unpaused(other),
        )
        .order_by(*place)
        .limit(share)
        .correlate(queue)
        for part in parts_of(other, queue)
    ]
    if len(firsts) == 1:
        first = firsts[0].with_only_columns(backend.row_key(other))
        first = first.with_for_update(skip_locked=True, of=other)
    else:
        found = union_all(*(select(each.subquery()) for each in firsts)).subquery("found_in_parts")
        first = select(found.c.id).order_by(*(found.c[name] for name in PLACE)).limit(share)
    ids = backend.first_of_each(queue, first, in_order=True)
    return ids.limit(bindparam("in_limit", type_=Integer()))


def claimable() -> Select[Any]:
    """Select the ids of what `claim` would claim."""
    return _candidates(_BEHIND_CURSOR)


def claimable_of_queues(backend: Backend) -> Select[Any]:
    """Select the ids of what `claim_queues` would claim behind cursors, in order."""
    return _in_order_of(_of_queues(backend, CURSORS, behind))


def claimable_of_ranges(backend: Backend) -> Select[Any]:
    """Select the same in ranges, and read no jobs outside of them: they may be paused."""
    return _in_order_of(_of_queues(backend, RANGES, backend.parts_of_range))


def _in_order_of(ids: Select[Any]) -> Select[Any]:
    """Select jobs in the order in which a query finds their ids."""
    chosen = ids.subquery("chosen")
    return select(jobs.c.id).select_from(chosen.join(jobs, jobs.c.id == chosen.c.id))


def claim_found(backend: Backend) -> Executable:
    """Claim jobs that were found, and that nobody else can claim meanwhile."""
    ids = backend.batch_table(IDS)
    started_at = bindparam("in_started_at", type_=INSTANT)
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, select(ids.c.id)))
        .values(_CLAIMED | {"started_at": started_at})
    )


def _candidates(*where: ColumnElement[bool]) -> Select[tuple[int]]:
    """Select the ids of the first jobs of one queue, in the order of the index."""
    return (
        select(jobs.c.id)
        .where(
            may("claim"),
            PLAIN,
            jobs.c.queue == _IN_QUEUE,
            *where,
            unpaused(),
            ~exists().where(
                queues.c.name == _IN_QUEUE,
                or_(IS_PAUSED, QUEUE_LIMITED),
            ),
            # A worker whose lease was revoked claims nothing, even before it notices.
            exists().where(workers.c.id == bindparam("in_worker")),
        )
        .order_by(*(jobs.c[name] for name in _PLACE[1:]))
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=jobs)  # omitted on SQLite, which has one writer
    )


def claiming(backend: Backend, keys: Select[Any], *more: ColumnElement[Any]) -> Executable:
    """Claim the jobs that a query locks: it selects their `Backend.row_key`.

    `more`: what it returns beside the columns of a claim.
    """
    chosen = backend.in_subquery(backend.row_key(jobs), keys)
    return update(jobs).where(chosen).values(_CLAIMED).returning(*claim_columns(), *more)


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
    return update(jobs).where(*OF_CLAIM).values(key_released=1)
