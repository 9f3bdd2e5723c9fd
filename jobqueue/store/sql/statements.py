"""Every statement of the data plane, once, in SQLAlchemy Core; `tests/store/sql` shows their SQL.

Statements start with INSERT, UPDATE or DELETE where they may run on a user's own connection: the
`sqlite3` module opens a transaction only before those words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Insert,
    Integer,
    Text,
    Update,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    tuple_,
    update,
)

from jobqueue.states import FINAL, State
from jobqueue.store.clock import INSTANT, after, now, once, this_minute
from jobqueue.store.dialects.base import Backend
from jobqueue.store.schema import attempts, counters, jobs, queues, workers
from jobqueue.store.sql import insert as insert_statements
from jobqueue.store.sql import leases
from jobqueue.store.sql.predicates import (
    CANCEL_ASKED,
    FREES_KEY,
    HOLDS_KEY,
    ONCE,
    SOLO,
    becomes,
    may,
)
from jobqueue.store.sql.rows import END, PAIRS, PROGRESS, SUCCESS

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


_HELD = jobs.c.worker_id == bindparam("in_worker", type_=BigInteger())
"""Claimed under this lease."""

_MINE = func.coalesce(jobs.c.worker_id, 0) == bindparam("in_worker", type_=BigInteger())
"""The same as a guard: a server that lost commits may give one fence to two attempts.

Through coalesce no planner takes the index of held jobs, to read all of them for each lookup.
"""


def _of(rows: FromClause) -> tuple[ColumnElement[bool], ...]:
    """The guard of what a worker writes: the claims that the rows name, if they still hold."""
    return (jobs.c.id == rows.c.id, jobs.c.fence == rows.c.fence, _MINE)


@dataclass(frozen=True, slots=True)
class Statements:
    """The data plane's statements for one backend."""

    insert: Executable
    insert_one: Executable
    insert_plain: Insert
    holders: Executable
    next_pair: Executable
    claim: Executable
    claim_head: Update
    unclaim: Executable
    held: Executable
    held_claims: Executable
    begin: Executable
    succeed: Executable
    succeed_all: Executable
    end: Executable
    settled: Executable
    count: Executable
    record_attempts: Executable
    finish_within: Executable
    report: Executable
    cancels: Executable
    beat: Executable
    step_beat: Executable
    register: Executable
    deregister: Executable
    neighbours: Executable
    first_neighbours: Executable
    mates: Executable
    first_mates: Executable
    orphans: Executable
    expire: Executable
    reap: Executable
    promote: Executable
    next_due: Executable


@cache
def statements(backend: Backend) -> Statements:
    """Build the statements, once per backend."""
    return Statements(
        insert=insert_statements.insert(backend),
        insert_one=insert_statements.insert_one(backend),
        insert_plain=insert_statements.insert_plain(),
        holders=select(jobs.c.id, jobs.c.unique_key, jobs.c.task, jobs.c.args).where(
            jobs.c.unique_key.in_(bindparam("in_keys", expanding=True)), HOLDS_KEY
        ),
        next_pair=_next_pair(),
        claim=_claim(backend),
        claim_head=_claim_head(backend),
        unclaim=_unclaim(backend.rows(PAIRS)),
        held=select(jobs.c.id, jobs.c.fence).where(_HELD),
        held_claims=select(*_claim_columns()).where(
            _HELD, jobs.c.id.in_(bindparam("in_ids", expanding=True))
        ),
        begin=_begin(),
        succeed=_succeed(backend.rows(SUCCESS)),
        succeed_all=_succeed_all(backend.rows(SUCCESS)),
        end=_end(backend.rows(END)),
        settled=_settled(backend.rows(PAIRS)),
        count=insert(counters).values(minute=this_minute()),
        record_attempts=_record_attempts(backend),
        finish_within=_finish_within(),
        report=_report(backend.rows(PROGRESS)),
        cancels=select(jobs.c.id, jobs.c.fence).where(
            jobs.c.worker_id == bindparam("in_worker"), jobs.c.cancel_requested_at.is_not(None)
        ),
        beat=leases.beat(),
        step_beat=leases.step_beat(),
        register=insert(workers).returning(workers.c.id),
        deregister=delete(workers).where(workers.c.id == bindparam("in_worker")),
        neighbours=leases.neighbours(after=True),
        first_neighbours=leases.neighbours(after=False),
        mates=leases.mates(after=True),
        first_mates=leases.mates(after=False),
        orphans=leases.orphans(),
        expire=delete(workers)
        .where(workers.c.id == bindparam("in_worker"), workers.c.beat == bindparam("in_seen"))
        .returning(workers.c.id),
        reap=leases.reap(backend),
        promote=leases.promote(backend),
        next_due=leases.next_due(),
    )


def _next_pair() -> Executable:
    """The first (queue, priority) after a given one that has something to claim.

    The cursor is behind every job that the given one can have: SQLite looks for (a, b) > (x, y) in
    a longer index from (x, y) on, and without it reads every job of that pair.
    """
    after = tuple_(
        bindparam("in_queue", type_=Text()),
        bindparam("in_priority", type_=Integer()),
        bindparam("in_cursor_run_at", type_=INSTANT),
        bindparam("in_cursor_id", type_=BigInteger()),
    )
    return (
        select(jobs.c.queue, jobs.c.priority)
        .where(
            may("claim"),
            tuple_(jobs.c.queue, jobs.c.priority, jobs.c.run_at, jobs.c.id) > after,
        )
        .order_by(jobs.c.queue, jobs.c.priority)
        .limit(1)
    )


def _claim(backend: Backend) -> Executable:
    """Claim the first jobs of one (queue, priority) after the cursor.

    Those that are locked by others are passed over, and picked up by a later sweep.
    """
    cursor = tuple_(bindparam("in_cursor_run_at", type_=INSTANT), bindparam("in_cursor_id"))
    behind = (
        jobs.c.priority == bindparam("in_priority", type_=Integer()),
        tuple_(jobs.c.run_at, jobs.c.id) > cursor,
    )
    return _claim_first(backend, jobs.c.run_at, jobs.c.id, where=behind)


def _claim_head(backend: Backend) -> Update:
    """Claim the first jobs of one queue, of whatever priorities: the index has them in order."""
    place = (jobs.c.priority, jobs.c.run_at, jobs.c.id)
    return _claim_first(backend, *place, and_tell=[jobs.c.priority])


def _claim_first(
    backend: Backend,
    *order: ColumnElement[Any],
    where: Sequence[ColumnElement[bool]] = (),
    and_tell: Sequence[ColumnElement[Any]] = (),
) -> Update:
    """Claim the first jobs of one queue in an order that is the index's own."""
    candidates = (
        select(jobs.c.id)
        .where(
            may("claim"),
            jobs.c.queue == bindparam("in_queue", type_=Text()),
            *where,
            ~exists().where(
                queues.c.name == bindparam("in_queue"), queues.c.paused_at.is_not(None)
            ),
            # Whoever's lease was taken away claims nothing, whatever it believes.
            exists().where(workers.c.id == bindparam("in_worker")),
        )
        .order_by(*order)
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=jobs)  # SQLite has one writer and leaves it out.
    )
    return (
        update(jobs)
        .where(backend.among(jobs.c.id, candidates))
        .values(
            state=becomes("claim"),
            attempt=jobs.c.attempt + 1,
            fence=jobs.c.fence + 1,
            worker_id=bindparam("in_worker"),
            worker=bindparam("in_worker_name", type_=Text()),
            started_at=once(now()),
        )
        .returning(*_claim_columns(), *and_tell)
    )


def _claim_columns() -> list[ColumnElement[Any]]:
    """The columns of a `Claim`, in its order."""
    return [
        *(jobs.c[name] for name in _CLAIMED),
        SOLO.label("solo"),
        ONCE.label("once"),
        jobs.c.own_crashes,
        FREES_KEY.label("frees_key"),
    ]


def _unclaim(pairs: FromClause) -> Executable:
    """Undo claims before their commit: nobody has seen the fence that they would have had."""
    return (
        update(jobs)
        .where(jobs.c.id == pairs.c.id, jobs.c.fence == pairs.c.fence)
        .values(
            state=literal_column(f"'{State.AVAILABLE.value}'"),
            attempt=jobs.c.attempt - 1,
            fence=jobs.c.fence - 1,
            worker_id=None,
            worker=None,
            started_at=None,
        )
    )


def _begin() -> Executable:
    """Free the unique key of a job that begins."""
    return (
        update(jobs)
        .where(
            jobs.c.id == bindparam("in_job", type_=BigInteger()),
            jobs.c.fence == bindparam("in_claimed", type_=BigInteger()),
            _MINE,
        )
        .values(begun=1)
    )


def _succeed(outcomes: FromClause) -> Executable:
    """`_of` is the whole guard: every move out of `running` adds one to the fence."""
    return (
        update(jobs)
        .where(*_of(outcomes))
        .values(
            state=case((CANCEL_ASKED, becomes("cancel")), else_=becomes("succeed")),
            fence=jobs.c.fence + 1,
            worker_id=None,
            finished_at=once(now()),
            result=case((CANCEL_ASKED, null()), else_=outcomes.c.result),
            reason=None,
            crashes=0,
            own_crashes=0,
        )
        .returning(jobs.c.id, jobs.c.state)
    )


def _succeed_all(outcomes: FromClause) -> Executable:
    """`succeed` for claims that hold and that nobody wants cancelled; its count tells if all."""
    return (
        update(jobs)
        .where(*_of(outcomes), ~CANCEL_ASKED)
        .values(
            state=becomes("succeed"),
            fence=jobs.c.fence + 1,
            worker_id=None,
            finished_at=once(now()),
            result=outcomes.c.result,
            reason=None,
            crashes=0,
            own_crashes=0,
        )
    )


def _end(outcomes: FromClause) -> Executable:
    """End claims in any other way. A wish to cancel turns every outcome into `cancelled`."""
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
            own_crashes=func.coalesce(outcomes.c.own_crashes, jobs.c.own_crashes),
        )
        .returning(jobs.c.id, jobs.c.state)
    )


def _settled(pairs: FromClause) -> Executable:
    """How jobs stand whose outcome was offered before, by an attempt whose answer was lost.

    A final state keeps the name of the worker that led to it: another one may have had this fence.
    """
    return select(jobs.c.id, jobs.c.state, jobs.c.fence).where(
        jobs.c.id == pairs.c.id,
        jobs.c.fence == pairs.c.fence + 1,
        jobs.c.worker == bindparam("in_worker_name", type_=Text()),
    )


def _record_attempts(backend: Backend) -> Executable:
    return backend.insert(attempts).values(finished_at=now())


def _finish_within() -> Executable:
    """Success as part of a user's transaction; refused once the job was asked to be cancelled."""
    return (
        update(jobs)
        .where(
            jobs.c.id == bindparam("in_job", type_=BigInteger()),
            jobs.c.fence == bindparam("in_claimed", type_=BigInteger()),
            _MINE,
            jobs.c.cancel_requested_at.is_(None),
        )
        .values(
            state=becomes("succeed"),
            fence=jobs.c.fence + 1,
            worker_id=None,
            finished_at=now(),
            result=bindparam("in_result", type_=Text()),
            reason=bindparam("in_why", type_=Text()),
            crashes=0,
            own_crashes=0,
        )
        .returning(jobs.c.id)
    )


def _report(rows: FromClause) -> Executable:
    return (
        update(jobs)
        .where(*_of(rows))
        .values(progress=rows.c.progress, progress_message=rows.c.message)
    )
