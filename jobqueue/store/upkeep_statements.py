"""The statements of upkeep: heartbeats, lost workers, due jobs."""

from sqlalchemy import (
    Executable,
    Integer,
    Text,
    bindparam,
    case,
    exists,
    literal_column,
    null,
    or_,
    select,
    update,
)

from jobqueue.clock import now
from jobqueue.schema import jobs, workers
from jobqueue.store.backend import Backend
from jobqueue.store.predicates import CANCEL_ASKED, becomes, may


def beat() -> Executable:
    """Renew a lease and say how the worker does."""
    return (
        update(workers)
        .where(workers.c.id == bindparam("in_worker"))
        .values(
            beat=workers.c.beat + 1,
            heartbeat_at=now(),
            running=bindparam("in_running"),
            processed=bindparam("in_processed"),
            errored=bindparam("in_errored"),
            concurrency=bindparam("in_concurrency"),
        )
        .returning(workers.c.beat)
    )


def reap(backend: Backend) -> Executable:
    """Take the jobs of workers whose row is gone: the attempt stays charged, the crash counts."""
    orphans = (
        select(jobs.c.id)
        .where(
            jobs.c.worker_id.is_not(None),
            ~exists().where(workers.c.id == jobs.c.worker_id),
        )
        .order_by(jobs.c.worker_id)  # By id, SQLite would read the whole table in that order.
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=jobs)
    )
    spent = jobs.c.attempt >= jobs.c.max_attempts
    final = or_(CANCEL_ASKED, spent)
    return (
        update(jobs)
        .where(backend.among(jobs.c.id, orphans))
        .values(
            state=case(
                (CANCEL_ASKED, becomes("cancel")), (spent, becomes("fail")), else_=becomes("lose")
            ),
            fence=jobs.c.fence + 1,
            crashes=jobs.c.crashes + 1,
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
            jobs.c.attempt,
            jobs.c.worker,
            jobs.c.started_at,
        )
    )


def promote(backend: Backend) -> Executable:
    """Make due jobs available; `run_at` stays, so they keep their place."""
    due = (
        select(jobs.c.id)
        .where(may("promote"), jobs.c.run_at <= now())
        .order_by(jobs.c.run_at)
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True)
    )
    return (
        update(jobs)
        .where(backend.among(jobs.c.id, due))
        .values(state=becomes("promote"))
        .returning(jobs.c.queue)
    )
