"""The statements of upkeep: heartbeats, lost workers, due jobs."""

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

from jobqueue.records import Lease
from jobqueue.states import State
from jobqueue.store.clock import now, once
from jobqueue.store.dialects.base import Backend
from jobqueue.store.schema import jobs, workers
from jobqueue.store.sql.predicates import CANCEL_ASKED, ONCE, becomes, in_state, may

REFUNDS_MAX = 5
"""Losses in a row, without an orderly end in between, whose attempts are given back."""


_LEASE = [workers.c[name] for name in Lease._fields]


def neighbours(*, after: bool) -> Executable:
    """The leases that come next after a worker's own in the ring of all, or the first of the ring.

    The order is by id, which is random.
    None where its own row is gone.
    """
    own: FromClause = workers.alias("own")
    here = select(own.c.id).where(own.c.id == bindparam("in_worker")).scalar_subquery()
    return (
        select(*_LEASE)
        .where(workers.c.id > here if after else workers.c.id < here)
        .order_by(workers.c.id)
        .limit(bindparam("in_limit", type_=Integer()))
    )


def mates(*, after: bool) -> Executable:
    """The same in the ring of those whose processes it can see."""
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
    """Renew a lease and say how the worker does."""
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


def step_lease() -> Executable:
    """Move a worker's beat by so much."""
    return (
        update(workers)
        .where(workers.c.id == bindparam("in_worker"))
        .values(heartbeats=workers.c.heartbeats + bindparam("in_step", type_=Integer()))
        .returning(workers.c.id)
    )


_ORPHANED = and_(jobs.c.worker_id.is_not(None), ~exists().where(workers.c.id == jobs.c.worker_id))


def orphans() -> Executable:
    """Whether there is a job whose worker's row is gone."""
    return select(exists().where(_ORPHANED))


def next_due() -> Executable:
    """When the next scheduled job is due, and what time it is."""
    return select(func.min(jobs.c.run_at).label("due"), now().label("present")).where(
        in_state(State.SCHEDULED)
    )


def reap(backend: Backend) -> Executable:
    """Take the jobs of workers whose row is gone: the crash counts, the attempt is given back.

    Whose crash it was, nobody can tell yet. One that may begin only once has begun, and fails; one
    that was lost `REFUNDS_MAX` times in a row is charged from then on, so that there is an end.
    """
    orphans = (
        select(jobs.c.id)
        .where(_ORPHANED)
        .order_by(jobs.c.worker_id)  # By id, SQLite would read the whole table in that order.
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=jobs)
    )
    charged = jobs.c.crashes >= REFUNDS_MAX
    spent = or_(ONCE, and_(charged, jobs.c.attempt >= jobs.c.max_attempts))
    final = or_(CANCEL_ASKED, spent)
    given_back = and_(jobs.c.state == becomes("lose"), jobs.c.crashes <= REFUNDS_MAX)
    return (
        update(jobs)
        .where(backend.in_subquery(jobs.c.id, orphans))
        .values(
            state=case(
                (CANCEL_ASKED, becomes("cancel")), (spent, becomes("fail")), else_=becomes("lose")
            ),
            fence=jobs.c.fence + 1,
            crashes=jobs.c.crashes + 1,
            attempt=case((or_(final, charged), jobs.c.attempt), else_=jobs.c.attempt - 1),
            worker_id=None,
            finished_at=case((final, now()), else_=null()),
            reason=literal_column("'worker lost'", Text()),
        )
        .returning(
            jobs.c.id,
            jobs.c.fence,
            jobs.c.task,
            jobs.c.queue,
            jobs.c.state,
            # As it was: these are the columns after the change.
            case((given_back, jobs.c.attempt + 1), else_=jobs.c.attempt).label("attempt"),
            jobs.c.worker,
            jobs.c.started_at,
        )
    )


def promote(backend: Backend) -> Executable:
    """Make due jobs available; `run_at` stays, so they keep their place."""
    due = (
        select(jobs.c.id)
        .where(may("promote"), jobs.c.run_at <= once(now()))
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
