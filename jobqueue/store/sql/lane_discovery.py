"""The statements that find lanes with work: of concurrency keys, and of queues with a limit."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from jobqueue.states import State
from jobqueue.store.clock import INSTANT, epoch
from jobqueue.store.dialects.base import PLACE
from jobqueue.store.indexes import BEGUN
from jobqueue.store.schema import LaneKind, Parked, jobs, lanes, pauses, queues
from jobqueue.store.sql.predicates import (
    HELD_BY_ANY,
    IS_PAUSED,
    PLAIN,
    QUEUE_LIMITED,
    as_integer,
    may,
    unpaused,
)

PASSED_OVER_MAX = 10_000
"""Jobs of a key that are read to find the first that a pause, or a limit of 0, does not hold."""

FEW = 10
"""Jobs of a key that are read to find its place in the order of all."""

OF_KEY = lanes.c.kind == literal_column(str(LaneKind.KEY.value))
IS_ANY_PAUSED = exists().where(pauses.c.name.is_not(None)).label("is_any_paused")
"""True if any task or tag is paused."""


def available(table: FromClause) -> ColumnElement[bool]:
    """Return whether a row of jobs, by another name, is available."""
    condition: ColumnElement[bool] = table.c.state == literal_column(f"'{State.AVAILABLE.value}'")
    return condition


def is_in_line(job: FromClause = jobs) -> ColumnElement[bool]:
    """Return whether a job of a key may start at its turn, or holds up those behind it.

    One that is paused, or has a limit of 0, holds up others only if it is strict.
    """
    return or_(_is_open(job), job.c.lane_strict == literal_column("1"))


def _is_open(job: FromClause) -> ColumnElement[bool]:
    return and_(unpaused(job), func.coalesce(as_integer(job.c.lane_limit), 1) > 0)


def first_jobs() -> Executable:
    """Select the first available job of each (queue, lane): one index lookup for each of them.

    Where it is paused, or has a limit of 0, the first that is not, if it is among few. While
    something is paused: without those of which all is so, among `PASSED_OVER_MAX` jobs.
    """
    columns = jobs.c.id, jobs.c.lane, jobs.c.queue, jobs.c.task, jobs.c.tags, jobs.c.lane_limit
    very_first = (
        select(*columns)
        .where(may("claim"), jobs.c.lane.is_not(None))
        .order_by(jobs.c.queue, jobs.c.lane, *(jobs.c[name] for name in PLACE))
        .limit(1)
        .subquery("very_first")
    )
    found = select(very_first).cte("found", recursive=True)
    other = jobs.alias("other")
    # SQLite searches (a, b) > (x, y) in a longer index from (x, y) on, and would read every job of
    # the pair without the rest of its place. It searches for the values of expressions only: for
    # those of two columns, it would compare in another way than the index does.
    behind = tuple_(other.c.queue, other.c.lane, other.c.priority, other.c.run_at) > tuple_(
        found.c.queue.concat(""),
        found.c.lane.concat(""),
        literal_column(str(2**31 - 1), Integer()),
        bindparam("in_last_instant", type_=INSTANT),
    )
    following = (
        select(other.c.id)
        .where(available(other), other.c.lane.is_not(None), behind)
        .order_by(other.c.queue, other.c.lane, *(other.c[name] for name in PLACE))
        .limit(1)
        .scalar_subquery()
    )
    more = select(*columns).select_from(found.join(jobs, jobs.c.id == following))
    found = found.union_all(more)
    of_lane = (
        select(jobs.c.id, jobs.c.task, jobs.c.tags, jobs.c.lane_limit)
        .where(may("claim"), jobs.c.queue == found.c.queue, jobs.c.lane == found.c.lane)
        .order_by(*(jobs.c[name] for name in PLACE))
        .correlate(found)
    )
    place = func.coalesce(_first_open(found, of_lane), found.c.id)
    return (
        select(
            jobs.c.lane,
            jobs.c.queue,
            jobs.c.priority,
            jobs.c.run_at,
            _is_open(jobs).label("is_open"),
        )
        .select_from(found.join(jobs, jobs.c.id == place))
        .where(or_(~exists().where(pauses.c.name.is_not(None)), *_may_start(of_lane)))
    )


def _first_open(found: FromClause, of_lane: Select[Any]) -> ColumnElement[int]:
    """Return the first job of a lane that nothing passes over, of few; NULL if there is none.

    The order is that of the jobs within: ordered once more, SQLite would sort them.
    """
    few = of_lane.limit(FEW).subquery("few")
    first = select(few.c.id).where(_is_open(few)).limit(1).scalar_subquery()
    return case((_is_open(found), found.c.id), else_=first)


def _may_start(of_lane: Select[Any]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return whether one of the first jobs of a lane may start, and whether there are more."""
    first = of_lane.limit(PASSED_OVER_MAX).subquery("first")
    far = of_lane.with_only_columns(jobs.c.id).limit(1).offset(PASSED_OVER_MAX).scalar_subquery()
    return select(first.c.id).where(_is_open(first)).exists(), far.is_not(None)


def new_jobs() -> Executable:
    """Select the newest available jobs whose lanes have no row, or are full for lower limits."""
    begun = jobs.alias("begun")
    places = select(func.count()).select_from(begun).where(BEGUN, begun.c.lane == jobs.c.lane)
    fits = or_(jobs.c.lane_limit.is_(None), jobs.c.lane_limit > places.scalar_subquery())
    lane = exists().where(OF_KEY, lanes.c.name == jobs.c.lane)
    return (
        select(jobs.c.lane, jobs.c.queue, jobs.c.priority, jobs.c.run_at)
        .where(
            may("claim"),
            jobs.c.lane.is_not(None),
            # First: SQLite searches the index by the first of two such conditions.
            jobs.c.id > bindparam("in_after", type_=BigInteger()),
            jobs.c.id > literal_column("0"),  # As the index says.
            unpaused(),
            or_(~lane, and_(lane.where(lanes.c.parked == Parked.FULL.value), fits)),
        )
        .order_by(jobs.c.id)
        .limit(bindparam("in_limit", type_=Integer()))
    )


def unfilled_queues() -> Executable:
    """Select the limited queues with available jobs without a key, unless workers look there.

    All of the jobs may be paused: `is_any_paused` says whether any task or tag is.
    """
    is_there = exists().where(may("claim"), PLAIN, jobs.c.queue == queues.c.name)
    is_known = exists().where(
        lanes.c.kind == literal_column(str(LaneKind.QUEUE.value)),
        lanes.c.name == queues.c.name,
        lanes.c.parked != Parked.EMPTY.value,
    )
    is_open = and_(QUEUE_LIMITED, ~IS_PAUSED)
    return select(queues.c.name, IS_ANY_PAUSED).where(is_open, ~is_known, is_there)


def queues_with_room() -> Executable:
    """Select the queues that are passed over as full though they have room.

    What was claimed before a queue had a limit brings no lane back when it ends: its worker knows
    of none.
    """
    held = select(jobs.c.queue, func.count().label("running")).where(HELD_BY_ANY)
    count = held.group_by(jobs.c.queue).subquery("held")
    is_full = and_(
        lanes.c.kind == literal_column(str(LaneKind.QUEUE.value)),
        lanes.c.parked == Parked.FULL.value,
        lanes.c.next_start <= epoch(),  # No rate holds it back.
    )
    return (
        select(lanes.c.name)
        .join(queues, queues.c.name == lanes.c.name)
        .outerjoin(count, count.c.queue == lanes.c.name)
        .where(is_full, as_integer(queues.c.max_running) > func.coalesce(count.c.running, 0))
    )
