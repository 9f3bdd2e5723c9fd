"""The statements that tell why a job is where it is, built from the predicates of the claim."""

from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Executable,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.types import NullType

from jobqueue.store.clock import INSTANT, after, now, once
from jobqueue.store.dialects.base import PLACE
from jobqueue.store.indexes import BEGUN, EXPIRES
from jobqueue.store.schema import (
    CounterKind,
    audit,
    counters,
    jobs,
    lanes,
    pauses,
    queues,
    workers,
)
from jobqueue.store.sql.conflicts import holder_of_awaited_key
from jobqueue.store.sql.lane_discovery import OF_KEY, is_in_line
from jobqueue.store.sql.predicates import (
    IS_ALIVE,
    PLAIN,
    QUEUE_LIMITED,
    may,
    pause_applies,
    unpaused,
)

COUNTED_MAX = 10_000
"""Most jobs, or keys, that are counted in front of a job."""
LOOKED_AT_MAX = 20_000
"""Most jobs in front of a job that are read to count those that are not held back."""
IDS_MAX = 100
"""Most ids of jobs that hold a lane or a queue."""
PACE_SPAN = 3600.0
"""Seconds of the past that tell the pace of a queue."""
_COUNTERS_MAX = 20_000
"""Most rows of counters to read, the newest ones: with many queues there are more in an hour."""
_ACTIONS_MAX = 1000
"""Number of newest actions that are read to find who paused a queue."""

_IN_JOB = bindparam("in_job", type_=BigInteger())
_IN_QUEUE = bindparam("in_queue", type_=Text())
_IN_LANE = bindparam("in_lane", type_=Text())


class WhyStatements:
    """The statements. Each reads an index, and a bounded number of rows."""

    def __init__(self) -> None:
        self.verdicts = _verdicts()
        self.live_workers = select(
            workers.c.name,
            workers.c.queues,
            workers.c.tasks,
            workers.c.concurrency,
            workers.c.running,
            workers.c.stopping_at,
        ).where(IS_ALIVE)
        self.holder = select(workers.c.heartbeat_at, IS_ALIVE.label("is_alive")).where(
            workers.c.id == bindparam("in_worker", type_=BigInteger())
        )
        self.pauses = _pauses()
        of_key = jobs.c.lane == _IN_LANE
        self.paused_ahead = _paused_ahead(of_key)
        self.plain_before = _before(PLAIN, unpaused)
        self.of_key_before = _before(of_key, _goes_first)
        self.key = select(lanes.c.queue, lanes.c.priority, lanes.c.due_at, lanes.c.turn).where(
            OF_KEY, lanes.c.name == _IN_LANE
        )
        self.keys_before = _keys_before(
            tuple_(lanes.c.priority, lanes.c.due_at)
            < tuple_(
                bindparam("in_priority", type_=Integer()), bindparam("in_due_at", type_=INSTANT)
            ),
            lanes.c.priority,
            lanes.c.due_at,
        )
        self.first_keys = _keys(lanes.c.priority, lanes.c.due_at).limit(
            bindparam("in_limit", type_=Integer())
        )
        self.keys_before_by_turn = _keys_before(
            lanes.c.turn < bindparam("in_turn", type_=Double()), lanes.c.turn
        )
        self.begun_of_key = (  # In any order: by id, PostgreSQL would read the whole table.
            select(jobs.c.id, jobs.c.state).where(BEGUN, jobs.c.lane == _IN_LANE).limit(IDS_MAX)
        )
        self.key_holder = holder_of_awaited_key()
        self.running_in_queue = (
            select(jobs.c.id)
            .where(jobs.c.worker_id.is_not(None), jobs.c.queue == _IN_QUEUE)
            .order_by(jobs.c.worker_id)  # Ordered by id, SQLite would scan the whole table.
            .limit(IDS_MAX)
        )
        self.pace = _pace()
        self.paused_by = _paused_by()


why_statements = cache(WhyStatements)
"""The statements, built once."""


def _verdicts() -> Executable:
    """Select what each predicate of the claim says of one job, and the present instant."""
    return select(
        jobs.c.state,
        jobs.c.fence,
        jobs.c.priority,
        type_coerce(jobs.c.run_at, NullType()).label("run_at"),
        may("claim").label("may_claim"),
        and_(EXPIRES, jobs.c.expires_at <= now()).label("has_expired"),
        PLAIN.label("is_plain"),
        exists().where(queues.c.name == jobs.c.queue, QUEUE_LIMITED).label("queue_limited"),
        jobs.c.worker_id,
        jobs.c.lane_limit,
        (func.coalesce(jobs.c.lane_strict, 0) == 1).label("is_strict"),
        jobs.c.progress_at,
        jobs.c.expires_at,
        now().label("present"),
    ).where(jobs.c.id == _IN_JOB)


def _goes_first(job: FromClause) -> ColumnElement[bool]:
    """True for a job that goes before those behind it in its lane, as in the heads of lanes.

    A strict job that is held back holds them back too, and overtakes none of these.
    """
    has_room = or_(
        bindparam("in_strict", type_=Integer()) == 1,
        job.c.lane_strict == 1,
        job.c.lane_limit.is_(None),
        job.c.lane_limit > bindparam("in_places", type_=Integer()),
    )
    return and_(is_in_line(job), has_room)


def _pauses() -> Executable:
    """Select what is paused of a job's task and tags, the task first."""
    return (
        select(pauses.c.kind, pauses.c.name, pauses.c.paused_at, pauses.c.paused_by)
        .where(jobs.c.id == _IN_JOB, pause_applies())
        .order_by(pauses.c.kind.desc(), pauses.c.paused_at, pauses.c.name)
    )


def _before(
    line: ColumnElement[bool], counts: Callable[[FromClause], ColumnElement[bool]]
) -> Executable:
    """Count the jobs that the claim takes before one job, among those of its queue in `line`.

    `beyond` is a job if not all were looked at, and few of those counted: there may be more.
    """
    ahead = _ahead(line)
    first = ahead.limit(LOOKED_AT_MAX).subquery("first")
    some = select(first.c.id).where(counts(first)).limit(COUNTED_MAX + 1).subquery("some")
    far = ahead.with_only_columns(jobs.c.id).limit(1).offset(LOOKED_AT_MAX).scalar_subquery()
    before = func.count()
    beyond = case((before <= COUNTED_MAX, far))
    return select(before.label("before"), beyond.label("beyond")).select_from(some)


def _paused_ahead(line: ColumnElement[bool]) -> Executable:
    """Select the first strict job ahead of one that is paused, of those that are looked at.

    The order is that of the jobs within: ordered once more, SQLite would sort them.
    """
    first = _ahead(line).limit(LOOKED_AT_MAX).subquery("first")
    return select(first.c.id).where(first.c.lane_strict == 1, ~unpaused(first)).limit(1)


def _ahead(line: ColumnElement[bool]) -> Select[Any]:
    """Select the available jobs ahead of one job, among those of its queue in `line`, in order.

    The instant is as the database has it, since plain SQL may have written it in another form. The
    place is of parameters: by subqueries SQLite would read all of the queue for the first job.
    """
    place = tuple_(
        bindparam("in_own_priority", type_=Integer()),
        bindparam("in_own_run_at", type_=NullType()),
        _IN_JOB,
    )
    order = [jobs.c[name] for name in PLACE]
    return (
        select(jobs.c.id, jobs.c.task, jobs.c.tags, jobs.c.lane_limit, jobs.c.lane_strict)
        .where(may("claim"), line, jobs.c.queue == _IN_QUEUE, tuple_(*order) < place)
        .order_by(*order)  # Otherwise PostgreSQL may read the table for the first 10,000.
    )


def _keys_before(is_before: ColumnElement[bool], *order: ColumnElement[Any]) -> Executable:
    """Select the first keys of a queue at which workers look before one, in order.

    With turns, and with `total`, how many there are: fetching each would take most of the time.
    """
    before = _keys(*order).where(is_before)
    some = before.with_only_columns(lanes.c.name).limit(COUNTED_MAX + 1).subquery("some")
    count = select(func.count()).select_from(some).scalar_subquery()
    return before.add_columns(count.label("total")).limit(bindparam("in_limit", type_=Integer()))


def _keys(*order: ColumnElement[Any]) -> Select[Any]:
    """Select the keys of a queue at which workers look, in order, with turns."""
    return (
        select(lanes.c.name, lanes.c.turn)
        .where(OF_KEY, lanes.c.queue == _IN_QUEUE, lanes.c.parked == literal_column("0"))
        .order_by(*order)
    )


def _pace() -> Executable:
    """Select how many jobs of a queue have ended in the last hour, and the first such minute."""
    ended = counters.c.succeeded + counters.c.failed + counters.c.cancelled
    parts = [
        select(counters.c.minute, counters.c.queue, ended.label("ended"))
        .where(
            counters.c.kind == literal_column(str(kind.value)),
            counters.c.minute > once(after(-PACE_SPAN)),
        )
        .order_by(counters.c.minute.desc())
        .limit(_COUNTERS_MAX)
        .subquery(f"part_{kind.name.lower()}")
        for kind in (CounterKind.WRITTEN, CounterKind.PERIOD)
    ]
    recent = union_all(*(select(part) for part in parts)).subquery("recent")
    return select(
        func.coalesce(func.sum(recent.c.ended), 0).label("ended"),
        func.min(recent.c.minute).label("since"),
    ).where(recent.c.queue == _IN_QUEUE)


def _paused_by() -> Executable:
    """Select the operator who paused a queue."""
    return (
        select(audit.c.actor)
        .where(
            audit.c.id > select(func.max(audit.c.id)).scalar_subquery() - _ACTIONS_MAX,
            audit.c.verb == literal_column("'pause'"),
            audit.c.target == bindparam("in_target", type_=Text()),
            audit.c.at >= bindparam("in_paused_at", type_=INSTANT),
        )
        .order_by(audit.c.id.desc())
        .limit(1)
    )
