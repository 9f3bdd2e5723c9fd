"""Every statement of the data plane, once, in SQLAlchemy Core; `tests/store/sql` shows their SQL.

Statements start with INSERT, UPDATE or DELETE where they may run on a user's own connection: the
`sqlite3` module opens a transaction only before those words.
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
    holders: Executable
    next_level: Executable
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
        insert=insert.insert(backend),
        insert_one=insert.insert_one(backend),
        insert_plain=insert.insert_plain(),
        holders=select(jobs.c.id, jobs.c.unique_key, jobs.c.task, jobs.c.args).where(
            jobs.c.unique_key.in_(bindparam("in_keys", expanding=True)), HOLDS_KEY
        ),
        next_level=claim.next_level(),
        claim=claim.claim(backend),
        claim_head=claim.claim_head(backend),
        unclaim=claim.unclaim(backend.batch_table(PAIRS)),
        held=select(jobs.c.id, jobs.c.fence).where(HELD),
        held_claims=select(*claim.claim_columns()).where(
            HELD, jobs.c.id.in_(bindparam("in_ids", expanding=True))
        ),
        begin=claim.begin(),
        succeed=complete.succeed(backend.batch_table(SUCCESS)),
        succeed_all=complete.succeed_all(backend.batch_table(SUCCESS)),
        end=complete.end(backend.batch_table(END)),
        settled=complete.settled(backend.batch_table(PAIRS)),
        count=sql_insert(counters).values(minute=this_minute()),
        record_attempts=complete.record_attempts(backend),
        finish_within=complete.finish_within(),
        report=complete.report(backend.batch_table(PROGRESS)),
        cancels=select(jobs.c.id, jobs.c.fence).where(
            jobs.c.worker_id == bindparam("in_worker"), jobs.c.cancel_requested_at.is_not(None)
        ),
        beat=leases.beat(),
        step_beat=leases.step_beat(),
        register=sql_insert(workers).returning(workers.c.id),
        deregister=delete(workers).where(workers.c.id == bindparam("in_worker")),
        neighbours=leases.neighbours(after=True),
        first_neighbours=leases.neighbours(after=False),
        mates=leases.mates(after=True),
        first_mates=leases.mates(after=False),
        orphans=leases.orphans(),
        expire=delete(workers)
        .where(workers.c.id == bindparam("in_worker"), workers.c.heartbeats == bindparam("in_seen"))
        .returning(workers.c.id),
        reap=leases.reap(backend),
        promote=leases.promote(backend),
        next_due=leases.next_due(),
    )
