"""The statements of lanes: the jobs of one concurrency key, and queues with a limit of their own.

A lane is a row of `jobqueue_lanes`. Its lock serializes the claims of its jobs, so that the running
ones can be counted. Nothing that is counted is kept: nothing can leak or drift.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
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
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)

from jobqueue.states import State
from jobqueue.store.clock import epoch
from jobqueue.store.dialects.base import PLACE, Backend
from jobqueue.store.indexes import BEGUN
from jobqueue.store.schema import LaneKind, Parked, jobs, lanes, queues, workers
from jobqueue.store.sql import predicates
from jobqueue.store.sql.claim import claiming
from jobqueue.store.sql.lane_discovery import (
    IS_ANY_PAUSED,
    OF_KEY,
    PASSED_OVER_MAX,
    available,
    first_jobs,
    new_jobs,
    queues_with_room,
    unfilled_queues,
)
from jobqueue.store.sql.predicates import PLAIN, QUEUE_LIMITED, QUEUE_PAUSED, may, unpaused
from jobqueue.store.sql.rows import IDS, NAMES, columns_of

WAIT_MAX = 60.0
"""Seconds for which a lane may be parked, and a sweep reserved."""

LANE_IDS = columns_of(lanes, "kind", "name")
FOUND = columns_of(lanes, "kind", "name", "queue", "priority", "due_at")
SERVED = columns_of(lanes, "kind", "name", "turn", "priority", "due_at", "parked") | {
    "wait": Double()
}

_IN_QUEUE = bindparam("in_queue", type_=Text())
_IN_LIMIT = bindparam("in_limit", type_=Integer())
_OF_QUEUE = and_(
    lanes.c.kind == literal_column(str(LaneKind.QUEUE.value)), lanes.c.name == _IN_QUEUE
)
_MAY_BE_CLAIMED = and_(OF_KEY, lanes.c.queue == _IN_QUEUE, lanes.c.parked == 0)
_IS_SWEEP = lanes.c.kind == literal_column(str(LaneKind.SWEEP.value))
# A clock that was turned back must stop neither the sweeps nor a lane.
_IS_DUE = or_(lanes.c.parked_until <= epoch(), lanes.c.parked_until > epoch() + WAIT_MAX)


class LaneStatements:
    """The statements of lanes for one backend."""

    def __init__(self, backend: Backend) -> None:
        names = backend.batch_table(NAMES)
        waiting = exists().where(may("claim"), jobs.c.lane.is_not(None))
        self.exist = select(or_(waiting, exists().where(QUEUE_LIMITED)))
        self.first_jobs = first_jobs()
        self.newest = select(func.coalesce(func.max(jobs.c.id), 0))
        self.new_jobs = new_jobs()
        self.unfilled_queues = unfilled_queues()
        self.queues_with_room = queues_with_room()
        self.known = select(*(lanes.c[name] for name in FOUND))
        self.add = _add(backend)
        self.move = _move(backend)
        is_full = lanes.c.parked == Parked.FULL
        ids = [lanes.c[name] for name in LANE_IDS]
        is_given = _is_one_of(backend.batch_table(LANE_IDS))
        self.overdue = select(*ids).where(is_full, _IS_DUE)
        self.unpark_full = _unpark(is_full)
        self.full = select(*ids).where(is_full)
        self.unpark = _unpark(is_given)
        self.unpark_waiting = _unpark(is_given, skip_locked=False)
        self.among = select(*ids).where(is_given)
        behind = lanes.c.queue > bindparam("in_after", type_=Text())
        with_work = select(lanes.c.queue).where(lanes.c.parked == 0, ~_IS_SWEEP, behind).distinct()
        self.with_work = with_work.order_by(lanes.c.queue).limit(_IN_LIMIT)
        self.served_with_work = self.with_work.where(
            lanes.c.queue.in_(bindparam("in_queues", expanding=True))
        )
        self.begin_sweep = _begin_sweep(backend)
        self.switches = _switches()
        self.queue_lane = select(lanes.c.turn, lanes.c.plain_turn, lanes.c.next_start).where(
            _OF_QUEUE
        )
        self.lock_queue = self.queue_lane.with_for_update(skip_locked=True)
        self.lock_by_due_time = _lock(lanes.c.priority, lanes.c.due_at)
        self.switches_and_lock = _switches(
            _count_unparked(), _lock_with(self.lock_by_due_time, _lock_given(backend, names))
        )
        self.lock_by_turn = _lock(lanes.c.turn)
        self.places = _places(backend, names)
        self.heads_and_places = _heads_and_places(backend, names)
        self.heads_behind = _heads(backend, names, behind=True)
        self.plain_heads = _plain_heads()
        self.running_in_queue = _running_in_queue()
        self.claim = _claim(backend)
        self.update_lanes = _update_lanes(backend.batch_table(SERVED))
        self.update_queue = _update_queue()
        self.remove = _remove(backend, names)


lane_statements = cache(LaneStatements)
"""The statements of a backend, built once."""


def _begin_sweep(backend: Backend) -> Executable:
    """Reserve the next sweep for this worker, if it is time and nobody else sweeps."""
    every: BindParameter[float] = bindparam("in_every", type_=Double())
    free = select(lanes.c.name).where(_IS_SWEEP, _IS_DUE).with_for_update(skip_locked=True)
    return (
        update(lanes)
        .where(_IS_SWEEP, backend.in_subquery(lanes.c.name, free))
        .values(parked_until=epoch() + every)
    )


def _add(backend: Backend) -> Executable:
    """Insert the lanes that are missing; one that another worker inserts meanwhile is skipped.

    Without the condition, PostgreSQL would wait for each transaction that has updated such a row.
    """
    given = backend.batch_table(FOUND)
    is_there = exists().where(_is_one_of(given))
    rows = select(*(given.c[name] for name in FOUND)).where(given.c.place >= 0, ~is_there)
    return backend.insert(lanes).from_select(list(FOUND), rows)


def _move(backend: Backend) -> Executable:
    """Point lanes to the queues in which workers look for their jobs next, if nobody claims now."""
    given = backend.batch_table(FOUND)
    free = (
        select(lanes.c.name)
        .where(OF_KEY, backend.in_subquery(lanes.c.name, select(given.c.name)))
        .with_for_update(skip_locked=True)
    )
    return (
        update(lanes)
        .where(_is_one_of(given), backend.in_subquery(lanes.c.name, free))
        .values(queue=given.c.queue, priority=given.c.priority, due_at=given.c.due_at)
    )


def _is_one_of(given: FromClause) -> ColumnElement[bool]:
    """Return whether a lane is in a batch with its kind and name.

    By a kind that is the same for all, SQLite would read every lane of that kind, and the whole
    batch for each of them.
    """
    return and_(lanes.c.kind == given.c.kind, lanes.c.name == given.c.name)


def _unpark(which: ColumnElement[bool], *, skip_locked: bool = True) -> Executable:
    """Let lanes be claimed from again; return their ids and queues. Skip those that others lock.

    Which of them are parked decides only the caller: where a job has just ended, a worker that
    counts the lane's running jobs at this moment may not see that, and parks the lane after it.
    """
    free = select(lanes.c.kind, lanes.c.name).where(which)
    locked = free.with_for_update(skip_locked=skip_locked, of=lanes).subquery("locked")
    return (
        update(lanes)
        .where(_is_one_of(locked))
        .values(parked=Parked.NO.value)
        .returning(lanes.c.kind, lanes.c.name, lanes.c.queue)
    )


def _switches(
    count: ColumnElement[int] | None = None, locked: FromClause | None = None
) -> Executable:
    """Select a queue's switches, the present second, and whether any task or tag is paused.

    With a `count` of lanes; a row for each that is locked, or one.
    """
    one = select(literal_column("1").label("one")).subquery("one")
    rows: FromClause = one.outerjoin(queues, queues.c.name == _IN_QUEUE)
    more: Sequence[ColumnElement[Any]] = ()
    if count is not None and locked is not None:
        rows, more = rows.outerjoin(locked, true()), [count, *locked.c]
    return select(
        queues.c.paused_at,
        queues.c.max_running,
        queues.c.rate_count,
        queues.c.rate_period,
        queues.c.rate_burst,
        queues.c.fair,
        epoch().label("present"),
        IS_ANY_PAUSED,
        *more,
    ).select_from(rows)


def _count_unparked() -> ColumnElement[int]:
    """Count the lanes that `_lock` may lock, and those that others lock, up to `in_limit` + 1."""
    some = select(lanes.c.name).where(_MAY_BE_CLAIMED).limit(_IN_LIMIT + 1).subquery("some")
    return select(func.count()).select_from(some).scalar_subquery().label("unparked")


def _lock(*order: ColumnElement[Any]) -> Select[Any]:
    """Lock the first lanes of a queue that are not parked; those that others lock are skipped."""
    return (
        select(lanes.c.name, lanes.c.turn)
        .where(_MAY_BE_CLAIMED)
        .order_by(*order)
        .limit(_IN_LIMIT)
        .with_for_update(skip_locked=True)
    )


def _lock_given(backend: Backend, names: FromClause) -> Select[Any]:
    """Lock these lanes of a queue, parked or not; those that others lock are skipped."""
    return (
        select(lanes.c.name, lanes.c.turn)
        .where(
            OF_KEY,
            lanes.c.queue == _IN_QUEUE,
            backend.in_subquery(lanes.c.name, select(names.c.name)),
        )
        .with_for_update(skip_locked=True)
    )


def _lock_with(first: Select[Any], given: Select[Any]) -> FromClause:
    """Lock lanes by two statements at once; `is_first` of 1: by the first."""
    both = [
        select(*lock.subquery(name).c, literal_column(is_first).label("is_first"))
        for lock, name, is_first in ((first, "first", "1"), (given, "given", "0"))
    ]
    return union_all(*both).subquery("locked")


def _places(backend: Backend, names: FromClause, *, may_pause: bool = True) -> Select[Any]:
    """Count the running jobs of lanes, and those that hold a place: strict ones keep it.

    `next_id` is a strict job of the queue that waits for its next attempt and is due: no other goes
    before it. One in another queue holds its place; a worker of that queue claims it. `may_pause`:
    not one that is paused.
    """
    is_next = and_(may("claim"), jobs.c.queue == _IN_QUEUE)
    if may_pause:
        is_next = and_(is_next, unpaused())
    is_running = jobs.c.state == literal_column(f"'{State.RUNNING.value}'")
    counts = (
        select(
            jobs.c.lane,
            func.sum(case((is_running, 1), else_=0)).label("running"),
            func.count().label("places"),
            func.min(case((is_next, jobs.c.id))).label("next_id"),
        )
        .where(BEGUN, backend.in_subquery(jobs.c.lane, select(names.c.name)))
        .group_by(jobs.c.lane)
        .subquery("counts")
    )
    its_limit = select(jobs.c.lane_limit).where(jobs.c.id == counts.c.next_id).scalar_subquery()
    return select(*counts.c, its_limit.label("next_limit"))


def _heads_and_places(backend: Backend, names: FromClause) -> Executable:
    """Select what `_heads` does, and after that what `_places` does, in rows without an `id`.

    One statement, without the conditions of pauses, for claims while nothing is paused: other
    workers wait, as it is run under the lock of the lanes.
    """
    heads, places = _heads(backend, names), _places(backend, names, may_pause=False)
    lane, *counts = places.selected_columns
    missing = [null().label(column.name) for column in counts]
    of_places = [
        lane if column.name == lane.name else null().label(column.name)
        for column in heads.selected_columns
    ]
    return union_all(heads.add_columns(*missing), places.with_only_columns(*of_places, *counts))


def _heads(backend: Backend, names: FromClause, *, behind: bool = False) -> Select[Any]:
    """Select the first available jobs of each lane in a queue, up to `in_limit` of each.

    Paused ones too. `behind`: without those that a limit of 0 holds back, among the first
    `PASSED_OVER_MAX`.
    """
    other = jobs.alias("other")
    first = (
        select(other.c.id)
        .where(available(other), other.c.lane == names.c.name, other.c.queue == _IN_QUEUE)
        .order_by(*(other.c[name] for name in PLACE))
    )
    if behind:
        more = (other.c[name] for name in ("priority", "run_at", "lane_limit", "lane_strict"))
        some = first.add_columns(*more).limit(PASSED_OVER_MAX).correlate(names).subquery("some")
        place = [some.c[name] for name in PLACE]
        counts = or_(
            func.coalesce(predicates.as_integer(some.c.lane_limit), 1) > 0, some.c.lane_strict == 1
        )
        first = select(some.c.id).where(counts).order_by(*place)
    ids = backend.first_of_each(names, first.limit(_IN_LIMIT))
    return select(*_HEAD).where(backend.in_subquery(jobs.c.id, ids))


_HEAD = [
    jobs.c[name]
    for name in ("id", "lane", "priority", "run_at", "lane_limit", "lane_weight", "lane_strict")
]


def _plain_heads() -> Executable:
    """Select the first available jobs of a queue that have no concurrency key."""
    return (
        select(*_HEAD)
        .where(may("claim"), PLAIN, jobs.c.queue == _IN_QUEUE, unpaused())
        .order_by(*(jobs.c[name] for name in PLACE))
        .limit(_IN_LIMIT)
    )


def _running_in_queue() -> Executable:
    """Count the running jobs of a queue: those that live workers hold, and lost ones."""
    return select(func.count()).where(predicates.HELD_BY_ANY, jobs.c.queue == _IN_QUEUE)


def _claim(backend: Backend) -> Executable:
    """Claim jobs by their ids; those that are gone, or locked by others, are skipped."""
    ids = backend.batch_table(IDS)
    free = (
        select(backend.row_key(jobs))
        .where(
            may("claim"),
            backend.in_subquery(jobs.c.id, select(ids.c.id)),
            ~QUEUE_PAUSED,
            unpaused(),
            exists().where(workers.c.id == bindparam("in_worker")),
        )
        .order_by(jobs.c.id)
        .with_for_update(skip_locked=True, of=jobs)
    )
    return claiming(backend, free, jobs.c.lane)


def _update_lanes(given: FromClause) -> Executable:
    return (
        update(lanes)
        .where(_is_one_of(given))
        .values(
            {name: given.c[name] for name in SERVED if name not in ("kind", "name", "wait")}
            | {"parked_until": epoch() + given.c.wait}
        )
    )


def _update_queue() -> Executable:
    names = ("turn", "plain_turn", "next_start", "parked")
    values = {name: bindparam(f"in_{name}", type_=lanes.c[name].type) for name in names}
    wait: BindParameter[float] = bindparam("in_wait", type_=Double())
    return update(lanes).where(_OF_QUEUE).values(**values, parked_until=epoch() + wait)


def _remove(backend: Backend, names: FromClause) -> Executable:
    """Delete lanes that have no more jobs waiting, under their lock."""
    return delete(lanes).where(OF_KEY, backend.in_subquery(lanes.c.name, select(names.c.name)))
