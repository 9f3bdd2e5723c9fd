"""The statements that claim jobs, undo claims and start jobs."""

from collections.abc import Callable, Iterable, Sequence
from json import loads
from typing import Any

from msgspec.structs import replace
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    Text,
    Update,
    bindparam,
    case,
    exists,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType

from jobqueue.records import Claim
from jobqueue.states import State
from jobqueue.store.clock import INSTANT, json_list, now, once, read_text
from jobqueue.store.dialects.base import Backend, Columns
from jobqueue.store.schema import jobs, pauses, queues, workers
from jobqueue.store.sql.predicates import (
    FREES_KEY,
    IS_PAUSED,
    MINE,
    ONCE,
    PLAIN,
    QUEUE_LIMITED,
    SOLO,
    USUAL,
    becomes,
    may,
    unpaused,
)
from jobqueue.store.sql.rows import IDS, NAMES

_CLAIMED = [
    *("id", "fence", "task", "queue", "args", "attempt", "max_attempts"),
    *("run_at", "started_at", "timeout", "headers", "priority"),
]
_PLACE = ("queue", "priority", "run_at", "id")
"""The order of the index of claims."""
_AVAILABLE: ColumnElement[str] = literal_column(f"'{State.AVAILABLE.value}'")

_BEHIND_CURSOR = tuple_(*(jobs.c[name] for name in _PLACE[1:])) > tuple_(
    bindparam("in_priority", type_=Integer()),
    bindparam("in_cursor_run_at", type_=INSTANT),
    bindparam("in_cursor_id", type_=BigInteger()),
)

CURSORS: Columns = {
    "queue": Text(),
    "priority": Integer(),
    "run_at": INSTANT,
    "id": BigInteger(),
}
"""Queues, each with a cursor."""

RANGES: Columns = {
    **CURSORS,
    "last_priority": Integer(),
    "last_run_at": INSTANT,
    "last_id": BigInteger(),
}
"""Queues to claim from, each with its cursor and the place up to which to claim."""

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

    Jobs that are locked by others are skipped, and found by a later sweep.
    """
    return _claim_in_order(backend, _BEHIND_CURSOR)


def claim_first(backend: Backend) -> Update:
    """Claim the first jobs of one queue."""
    return _claim_in_order(backend)


def claim_queues(backend: Backend) -> Update:
    """Claim the first jobs of each of many queues in its range.

    Up to `in_share` of each, and `in_limit` in all: those of the queues that are given first.
    """
    given = backend.batch_table(RANGES)
    queue = (
        select(given.c.place, *(given.c[name] for name in RANGES))
        .where(
            ~exists().where(queues.c.name == given.c.queue, or_(IS_PAUSED, QUEUE_LIMITED)),
            exists().where(workers.c.id == bindparam("in_worker")),
        )
        .order_by(given.c.place)
        .subquery("given_queue")
    )
    other = jobs.alias("other")
    place, cursor = (tuple_(*(of.c[name] for name in _PLACE[1:])) for of in (other, queue))
    last = tuple_(*(queue.c[f"last_{name}"] for name in _PLACE[1:]))
    first = (
        select(other.c.id)
        .where(
            other.c.state == _AVAILABLE,
            other.c.lane.is_(None),
            other.c.queue == queue.c.queue,
            place > cursor,
            place <= last,
            unpaused(other),
        )
        .order_by(*(other.c[name] for name in _PLACE[1:]))
        .limit(bindparam("in_share", type_=Integer()))
        .with_for_update(skip_locked=True, of=other)
    )
    ids = backend.first_of_each(queue, first, in_order=_PLACE[1:])
    ids = ids.limit(bindparam("in_limit", type_=Integer()))
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, ids))
        .values(claim_values())
        .returning(*claim_columns())
    )


def claimable() -> Executable:
    """Select what `claim` would return, where nobody else can change it until `claim_found`."""
    columns = {column.name: column for column in claim_columns()}
    columns |= {name: (jobs.c[name] + 1).label(name) for name in ("fence", "attempt")}
    columns["started_at"] = type_coerce(once(now()), NullType()).label("started_at")
    return _candidates(_BEHIND_CURSOR).with_only_columns(*columns.values())


def claim_found(backend: Backend) -> Executable:
    """Claim the jobs that `claimable` has returned."""
    ids = backend.batch_table(IDS)
    started_at = bindparam("in_started_at", type_=INSTANT)
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, select(ids.c.id)))
        .values(claim_values() | {"started_at": started_at})
    )


def _claim_in_order(backend: Backend, *where: ColumnElement[bool]) -> Update:
    """Claim the first jobs of one queue in the order of the index."""
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, _candidates(*where)))
        .values(claim_values())
        .returning(*claim_columns())
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
    """Return the columns that `read_claims` reads, as the driver has them.

    What few jobs have is one column, null for the others: a column costs 0.1 µs of a claim, and
    SQLAlchemy's conversion of one makes it look at each of a row.
    """
    rare = json_list(
        *(jobs.c.backoff, jobs.c.snoozes, jobs.c.crashes, jobs.c.child_crashes),
        *(SOLO, ONCE, FREES_KEY),
        *(jobs.c.deadline_at, jobs.c.scheduled_for, jobs.c.expires_at),
    )
    return [
        *(type_coerce(jobs.c[name], NullType()).label(name) for name in _CLAIMED),
        case((USUAL, null()), else_=rare).label("rare"),
    ]


def read_claims(
    rows: Iterable[Sequence[Any]], worker_id: int, instant: Callable[[Any], Any]
) -> list[Claim]:
    """Return the claims of a lease, of rows of `claim_columns`.

    `instant` reads the driver's form of an instant.
    """
    claims = []
    for id_, fence, task, queue, args, attempt, most, due, at, timeout, headers, rank, rare in rows:
        claim = Claim(
            id_,
            fence,
            task,
            queue,
            args,
            attempt,
            most,
            instant(due),
            instant(at),
            timeout,
            headers,
            rank,
            worker_id,
        )
        claims.append(claim if rare is None else _with_rare(claim, rare))
    return claims


def _with_rare(claim: Claim, text: str) -> Claim:
    """Return a claim with the values of `json_list` in `claim_columns`."""
    backoff, snoozes, crashes, child_crashes, *others = loads(text)
    immediate_only, at_most_once, frees_key, deadline, tick, expires = others
    return replace(
        claim,
        backoff=backoff,
        snoozes=snoozes,
        crashes=crashes,
        child_crashes=child_crashes,
        immediate_only=bool(immediate_only),
        at_most_once=bool(at_most_once),
        releases_key_on_start=bool(frees_key),
        deadline_at=read_text(deadline),
        scheduled_for=read_text(tick),
        expires_at=read_text(expires),
    )


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
