"""The statements that record outcomes of claims, and the progress of running jobs."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Insert,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal_column,
    null,
    select,
    type_coerce,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from jobqueue.states import FINAL
from jobqueue.store.clock import after, now, once, this_hour, this_minute
from jobqueue.store.dialects.base import Backend
from jobqueue.store.schema import attempts, counters, error_counts, jobs
from jobqueue.store.sql.predicates import CANCEL_ASKED, MINE, OF_CLAIM, becomes

_SUCCEEDED: dict[str, Any] = {
    "state": becomes("succeed"),
    "fence": jobs.c.fence + 1,
    "worker_id": None,
    "finished_at": once(now()),
    "reason": None,
    "crashes": 0,
    "child_crashes": 0,
}


def _of(rows: FromClause) -> tuple[ColumnElement[bool], ...]:
    """Return the guard of a worker's writes: the rows' claims that are still held."""
    return (jobs.c.id == rows.c.id, jobs.c.fence == rows.c.fence, MINE)


def succeed(outcomes: FromClause) -> ReturningUpdate[Any]:
    """Record successes. `_of` is the whole guard: leaving `running` adds one to the fence."""
    return (
        update(jobs)
        .where(*_of(outcomes))
        .values(
            _SUCCEEDED
            | {
                "state": case((CANCEL_ASKED, becomes("cancel")), else_=becomes("succeed")),
                "result": case((CANCEL_ASKED, null()), else_=outcomes.c.result),
            }
        )
        .returning(jobs.c.id, jobs.c.state)
    )


def succeed_batch() -> Executable:
    """Record successes of claims with one fence: `in_results` is a JSON object, results by id.

    Without RETURNING: the row count shows whether all claims were held. Claims whose cancellation
    was requested do not count as held. An object's members are read in half of the time of arrays,
    which SQLite parses one by one.
    """
    given = func.json_each(bindparam("in_results")).table_valued("key", "value")
    outcomes = select(
        cast(given.c.key, BigInteger()).label("id"),
        type_coerce(given.c.value, Text()).label("result"),
    ).subquery("input")
    claimed = jobs.c.fence == bindparam("in_claimed", type_=BigInteger())
    return (
        update(jobs)
        .where(jobs.c.id == outcomes.c.id, claimed, MINE, ~CANCEL_ASKED)
        .values(_SUCCEEDED | {"result": outcomes.c.result})
    )


def succeed_and_count(outcomes: FromClause, counts: FromClause) -> Executable:
    """Record successes, and insert rows of counts if all `in_expected` claims succeed by that.

    Return null in that case, else the states of the claims that were held, by id, as a JSON object.
    """
    done = succeed(outcomes).cte("done")
    succeeded = func.count().filter(done.c.state == becomes("succeed"))
    is_all = succeeded == bindparam("in_expected", type_=BigInteger())
    added = append_counters(counts, select(is_all).select_from(done).scalar_subquery())
    states = func.coalesce(cast(func.json_object_agg(done.c.id, done.c.state), Text()), "{}")
    return (
        select(case((is_all, null()), else_=states)).select_from(done).add_cte(added.cte("added"))
    )


def complete(outcomes: FromClause) -> Executable:
    """Record all other outcomes. A cancellation request turns every outcome into `cancelled`."""
    state = case((CANCEL_ASKED, becomes("cancel")), else_=outcomes.c.state)
    final = state.in_([literal_column(f"'{state.value}'") for state in FINAL])
    return (
        update(jobs)
        .where(*_of(outcomes))
        .values(
            state=state,
            fence=jobs.c.fence + 1,
            worker_id=None,
            worker=case((final, jobs.c.worker), else_=null()),
            attempt=jobs.c.attempt - outcomes.c.refund,
            snoozes=jobs.c.snoozes + outcomes.c.snooze,
            run_at=case((outcomes.c.delay.is_(None), jobs.c.run_at), else_=after(outcomes.c.delay)),
            started_at=case((final, jobs.c.started_at), else_=null()),
            finished_at=case((final, now()), else_=null()),
            reason=outcomes.c.reason,
            crashes=func.coalesce(outcomes.c.crashes, jobs.c.crashes),
            child_crashes=func.coalesce(outcomes.c.child_crashes, jobs.c.child_crashes),
        )
        .returning(jobs.c.id, jobs.c.state)
    )


def already_completed(pairs: FromClause) -> Executable:
    """Select the state of jobs whose outcome an earlier commit, with a lost answer, may have set.

    A final job keeps its worker's name, which is compared: another worker may have had this fence.
    """
    return select(jobs.c.id, jobs.c.state, jobs.c.fence).where(
        jobs.c.id == pairs.c.id,
        jobs.c.fence == pairs.c.fence + 1,
        jobs.c.worker == bindparam("in_worker_name", type_=Text()),
    )


def record_attempts(backend: Backend) -> Executable:
    """Insert rows of attempts that end now."""
    return backend.insert(attempts).values(finished_at=now())


def append_counters(counts: FromClause, *where: ColumnElement[bool]) -> Insert:
    """Insert many rows of counts, of this minute."""
    names = [column.name for column in counts.c if column.name != "place"]
    source = select(this_minute(), *(counts.c[name] for name in names)).where(*where)
    return insert(counters).inline().from_select(["minute", *names], source)


def append_error_counts() -> Executable:
    """Insert counts of errors, of this hour."""
    return insert(error_counts).values(hour=this_hour(), first_at=now(), last_at=now())


def finish_within() -> Executable:
    """Record a success in a user's transaction, unless cancellation was requested."""
    return (
        update(jobs)
        .where(
            *OF_CLAIM,
            jobs.c.cancel_requested_at.is_(None),
        )
        .values(_SUCCEEDED | {"finished_at": now(), "result": bindparam("in_result", type_=Text())})
        .returning(jobs.c.id)
    )


def save_progress(rows: FromClause) -> Executable:
    """Write the progress of running jobs."""
    return (
        update(jobs)
        .where(*_of(rows))
        .values(progress=rows.c.progress, progress_message=rows.c.message, progress_at=once(now()))
    )
