"""Every statement of the data plane, in SQLAlchemy Core; `tests/store/sql` has the golden SQL.

Statements that may run on a user's connection start with INSERT, UPDATE or DELETE: the `sqlite3`
module begins a transaction only before those.
"""

from dataclasses import dataclass
from functools import cache

from sqlalchemy import Executable, Insert, Update, bindparam, delete, select
from sqlalchemy import insert as sql_insert

from jobqueue.store.clock import this_minute
from jobqueue.store.dialects.base import Backend
from jobqueue.store.schema import counters, jobs, workers
from jobqueue.store.sql import claim, complete, insert, leases
from jobqueue.store.sql.predicates import HELD, HOLDS_KEY
from jobqueue.store.sql.rows import END, PAIRS, PROGRESS, SUCCESS


@dataclass(frozen=True, slots=True)
class Statements:
    """The data plane's statements for one backend."""

    insert: Executable
    insert_one: Executable
    insert_plain: Insert
    unique_key_holders: Executable
    next_level: Executable
    claim: Executable
    claim_first: Update
    undo_claim: Executable
    held: Executable
    held_claims: Executable
    mark_started: Executable
    succeed: Executable
    succeed_batch: Executable
    complete: Executable
    already_completed: Executable
    append_counters: Executable
    record_attempts: Executable
    finish_within: Executable
    save_progress: Executable
    cancel_requests: Executable
    renew_lease: Executable
    step_lease: Executable
    register: Executable
    deregister: Executable
    neighbours: Executable
    first_neighbours: Executable
    mates: Executable
    first_mates: Executable
    orphans: Executable
    revoke_lease: Executable
    reap: Executable
    promote: Executable
    next_due: Executable


@cache
def statements(backend: Backend) -> Statements:
    """Build the statements, once per backend."""
    return Statements(
        insert=insert.insert(backend),
        insert_one=insert.insert_one(backend),
        insert_plain=insert.insert_plain(),
        unique_key_holders=select(jobs.c.id, jobs.c.unique_key, jobs.c.task, jobs.c.args).where(
            jobs.c.unique_key.in_(bindparam("in_keys", expanding=True)), HOLDS_KEY
        ),
        next_level=claim.next_level(),
        claim=claim.claim(backend),
        claim_first=claim.claim_first(backend),
        undo_claim=claim.undo_claim(backend.batch_table(PAIRS)),
        held=select(jobs.c.id, jobs.c.fence).where(HELD),
        held_claims=select(*claim.claim_columns()).where(
            HELD, jobs.c.id.in_(bindparam("in_ids", expanding=True))
        ),
        mark_started=claim.mark_started(),
        succeed=complete.succeed(backend.batch_table(SUCCESS)),
        succeed_batch=complete.succeed_batch(backend.batch_table(SUCCESS)),
        complete=complete.complete(backend.batch_table(END)),
        already_completed=complete.already_completed(backend.batch_table(PAIRS)),
        append_counters=sql_insert(counters).values(minute=this_minute()),
        record_attempts=complete.record_attempts(backend),
        finish_within=complete.finish_within(),
        save_progress=complete.save_progress(backend.batch_table(PROGRESS)),
        cancel_requests=select(jobs.c.id, jobs.c.fence).where(
            jobs.c.worker_id == bindparam("in_worker"), jobs.c.cancel_requested_at.is_not(None)
        ),
        renew_lease=leases.renew_lease(),
        step_lease=leases.step_lease(),
        register=sql_insert(workers).returning(workers.c.id),
        deregister=delete(workers).where(workers.c.id == bindparam("in_worker")),
        neighbours=leases.neighbours(after=True),
        first_neighbours=leases.neighbours(after=False),
        mates=leases.mates(after=True),
        first_mates=leases.mates(after=False),
        orphans=leases.orphans(),
        revoke_lease=delete(workers)
        .where(workers.c.id == bindparam("in_worker"), workers.c.heartbeats == bindparam("in_seen"))
        .returning(workers.c.id),
        reap=leases.reap(backend),
        promote=leases.promote(backend),
        next_due=leases.next_due(),
    )
