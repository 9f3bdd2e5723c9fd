"""The statements of upkeep: heartbeats, dead workers, due jobs."""

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Executable,
    FromClause,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)

from jobqueue.records import ExpiredJob, Lease
from jobqueue.states import State
from jobqueue.store.clock import now, once
from jobqueue.store.dialects.base import Backend
from jobqueue.store.indexes import EXPIRES
from jobqueue.store.schema import jobs, schedules, workers
from jobqueue.store.sql.conflicts import KEY_WAS_FREED
from jobqueue.store.sql.predicates import (
    CANCEL_ASKED,
    HELD_BY_ANY,
    ONCE,
    becomes,
    in_state,
    may,
)

REFUNDS_MAX = 5
"""Crashes in a row, with no completed attempt in between, whose attempts are refunded."""


_LEASE = [workers.c[name] for name in Lease._fields]


def peers(*, after: bool) -> Executable:
    """Select the leases after a worker's own in the ring of all, or the first ones of the ring.

    The ring is ordered by id, which is random. No rows if the worker's own row is gone.
    """
    own: FromClause = workers.alias("own")
    here = select(own.c.id).where(own.c.id == bindparam("in_worker")).scalar_subquery()
    return (
        select(*_LEASE)
        .where(workers.c.id > here if after else workers.c.id < here)
        .order_by(workers.c.id)
        .limit(bindparam("in_limit", type_=Integer()))
    )


def host_peers(*, after: bool) -> Executable:
    """Select the same in the ring of workers whose processes the worker can see."""
    me: BindParameter[int] = bindparam("in_worker", type_=BigInteger())
    return (
        select(*_LEASE)
        .where(
            workers.c.boot_id == bindparam("in_boot", type_=Text()),
            workers.c.pid_namespace == bindparam("in_namespace", type_=Text()),
            workers.c.id > me if after else workers.c.id < me,
        )
        .order_by(workers.c.id)
        .limit(bindparam("in_limit", type_=Integer()))
    )


def renew_lease() -> Executable:
    """Renew a lease and update the worker's figures."""
    return (
        update(workers)
        .where(workers.c.id == bindparam("in_worker"))
        .values(
            heartbeats=workers.c.heartbeats + 1,
            heartbeat_at=now(),
            running=bindparam("in_running"),
            processed=bindparam("in_processed"),
            errored=bindparam("in_errored"),
            concurrency=bindparam("in_concurrency"),
        )
        .returning(workers.c.heartbeats)
    )


def stop_lease() -> Executable:
    """Note in a worker's lease since when it stops."""
    return (
        update(workers)
        .where(workers.c.id == bindparam("in_worker"))
        .values(stopping_at=func.coalesce(workers.c.stopping_at, now()))
    )


def step_lease() -> Executable:
    """Add `in_step` to a worker's heartbeats."""
    return (
        update(workers)
        .where(workers.c.id == bindparam("in_worker"))
        .values(heartbeats=workers.c.heartbeats + bindparam("in_step", type_=Integer()))
        .returning(workers.c.id)
    )


_CLAIMED_TOO_LATE = and_(
    jobs.c.started_at >= jobs.c.expires_at,
    jobs.c.attempt == 1,
    jobs.c.snoozes == 0,
    jobs.c.crashes == 0,
)
"""True for a held job that does not begin: it had expired when it was first claimed."""

_EXPIRED, _WORKER_LOST = (literal_column(f"'{why}'", Text()) for why in ("expired", "worker lost"))

_ORPHANED = and_(HELD_BY_ANY, ~exists().where(workers.c.id == jobs.c.worker_id))


def orphans() -> Executable:
    """Select whether there is a job whose worker's lease is gone."""
    return select(exists().where(_ORPHANED))


def next_due() -> Executable:
    """Select when jobs are due or expire, whether a job may take a key, and the present."""
    waits = (in_state(State.SCHEDULED), jobs.c.awaited_key.is_(None))
    due = select(func.min(jobs.c.run_at)).where(*waits).scalar_subquery()
    freed = select(jobs.c.id).where(KEY_WAS_FREED).exists()
    expiry = select(func.min(jobs.c.expires_at)).where(EXPIRES).scalar_subquery()
    return select(
        due.label("due"), expiry.label("expiry"), freed.label("freed"), now().label("present")
    )


def next_tick() -> Executable:
    """Select when the next tick of a schedule is due, and the present time."""
    return select(func.min(schedules.c.next_at).label("due"), now().label("present")).where(
        schedules.c.paused_at.is_(None)
    )


def reap(backend: Backend) -> Executable:
    """Reap the jobs of workers whose lease is gone: add a crash, and refund the attempt.

    The job may not have caused the crash. A job that may start only once has started, and fails. A
    job that was lost `REFUNDS_MAX` times in a row is charged from then on, so that it ends. One
    that was claimed too late has not begun, and never will.
    """
    orphans = (
        select(jobs.c.id)
        .where(_ORPHANED)
        .order_by(jobs.c.worker_id)  # Ordered by id, SQLite would scan the whole table.
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=jobs)
    )
    charged = jobs.c.crashes >= REFUNDS_MAX
    spent = or_(ONCE, and_(charged, jobs.c.attempt >= jobs.c.max_attempts))
    cancelled = or_(CANCEL_ASKED, _CLAIMED_TOO_LATE)
    final = or_(cancelled, spent)
    given_back = and_(jobs.c.state == becomes("reap"), jobs.c.crashes <= REFUNDS_MAX)
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, orphans))
        .values(
            state=case(
                (cancelled, becomes("cancel")), (spent, becomes("fail")), else_=becomes("reap")
            ),
            fence=jobs.c.fence + 1,
            crashes=jobs.c.crashes + 1,
            attempt=case((or_(final, charged), jobs.c.attempt), else_=jobs.c.attempt - 1),
            worker_id=None,
            finished_at=case((final, now()), else_=null()),
            reason=case((_CLAIMED_TOO_LATE, _EXPIRED), else_=_WORKER_LOST),
        )
        .returning(
            jobs.c.id,
            jobs.c.fence,
            jobs.c.task,
            jobs.c.queue,
            jobs.c.state,
            # The attempt before the update: RETURNING gives the columns after it.
            case((given_back, jobs.c.attempt + 1), else_=jobs.c.attempt).label("attempt"),
            jobs.c.worker,
            jobs.c.started_at,
            jobs.c.lane,
        )
    )


def expire(backend: Backend) -> Executable:
    """Cancel waiting jobs that have not begun in time."""
    late = (
        select(jobs.c.id)
        .where(EXPIRES, jobs.c.expires_at <= once(now()))
        .order_by(jobs.c.expires_at)
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True)
    )
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, late))
        .values(
            state=becomes("cancel"),
            finished_at=now(),
            reason=_EXPIRED,
        )
        .returning(*(jobs.c[name] for name in ExpiredJob._fields))
    )


def promote(backend: Backend) -> Executable:
    """Make due jobs available; `run_at` stays, and with it their order."""
    due = (
        select(jobs.c.id)
        .where(may("promote"), jobs.c.run_at <= once(now()), jobs.c.awaited_key.is_(None))
        .order_by(jobs.c.run_at)
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True)
    )
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, due))
        .values(state=becomes("promote"))
        .returning(jobs.c.queue)
    )
