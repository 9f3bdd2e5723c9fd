"""Every statement of the data plane, in SQLAlchemy Core; `tests/store/sql` has the golden SQL.

What one of the databases does in another way is not built for it.

Statements that may run on a user's connection start with INSERT, UPDATE or DELETE: the `sqlite3`
module begins a transaction only before those.
"""

from functools import cache

from sqlalchemy import bindparam, delete, select
from sqlalchemy import insert as sql_insert

from jobqueue.store.clock import this_minute
from jobqueue.store.dialects.base import Backend
from jobqueue.store.schema import counters, jobs, workers
from jobqueue.store.sql import claim, complete, conflicts, insert, leases
from jobqueue.store.sql.claim_rows import claim_columns, claimable_rows, claimable_text
from jobqueue.store.sql.predicates import HELD, HOLDS_KEY
from jobqueue.store.sql.rows import COUNTS, END, NEW_WITH_EXTRA, PAIRS, PROGRESS, SUCCESS


class KeyStatements:
    """The statements about unique keys that are held."""

    def __init__(self) -> None:
        self.unique_key_holders = select(
            jobs.c.id, jobs.c.unique_key, jobs.c.task, jobs.c.args, jobs.c.queue, jobs.c.state
        ).where(jobs.c.unique_key.in_(bindparam("in_keys", expanding=True)), HOLDS_KEY)
        self.reschedule = conflicts.reschedule()
        self.replace = conflicts.replace()
        self.reschedule_successor = conflicts.reschedule(successor=True)
        self.replace_successor = conflicts.replace(successor=True)
        self.successor = conflicts.successor()
        self.waiters_of_free_keys = conflicts.waiters_of_free_keys()
        self.take_key = conflicts.take_key()


class ClaimStatements(KeyStatements):
    """And those that claim jobs, undo claims and start jobs."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.next_queues = claim.next_queues()
        self.heads = claim.heads(backend)
        if backend.single_writer:
            found, of_queues = claim.claimable(), claim.claimable_of_queues(backend)
            self.claimable_text, self.claimable_rows = claimable_text(found), claimable_rows(found)
            self.claimable_text_of_queues = claimable_text(of_queues)
            self.claimable_rows_of_queues = claimable_rows(of_queues)
            of_ranges = claim.claimable_of_ranges(backend)
            self.claimable_text_of_ranges = claimable_text(of_ranges)
            self.claimable_rows_of_ranges = claimable_rows(of_ranges)
            self.claim_found = claim.claim_found(backend)
        else:
            self.claim = claim.claim(backend)
            self.claim_queues = claim.claim_queues(backend)
            self.claim_ranges = claim.claim_ranges(backend)
        self.claim_first = claim.claim_first(backend)
        self.undo_claim = claim.undo_claim(backend.batch_table(PAIRS))
        self.held = select(jobs.c.id, jobs.c.fence).where(HELD)
        self.held_claims = select(*claim_columns()).where(
            HELD, jobs.c.id.in_(bindparam("in_ids", expanding=True))
        )
        self.mark_started = claim.mark_started()


class Statements(ClaimStatements):
    """The data plane's statements for one backend."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.insert = insert.insert(backend)
        self.insert_with_extra = insert.insert(backend, NEW_WITH_EXTRA)
        self.insert_one = insert.insert_one(backend)
        self.insert_plain = insert.insert_plain()
        self.succeed = complete.succeed(backend.batch_table(SUCCESS))
        if backend.single_writer:
            self.succeed_batch = complete.succeed_batch()
        if backend.counting is None:
            self.append_counters = sql_insert(counters).values(minute=this_minute())
            self.append_many_counters = complete.append_counters(backend.batch_table(COUNTS))
        if not backend.single_writer:
            self.succeed_and_count = complete.succeed_and_count(
                backend.batch_table(SUCCESS), backend.batch_table(COUNTS)
            )
        self.complete = complete.complete(backend.batch_table(END))
        self.already_completed = complete.already_completed(backend.batch_table(PAIRS))
        self.append_error_counts = complete.append_error_counts()
        self.record_attempts = complete.record_attempts(backend)
        self.finish_within = complete.finish_within()
        self.save_progress = complete.save_progress(backend.batch_table(PROGRESS))
        self.cancel_requests = select(jobs.c.id, jobs.c.fence).where(
            jobs.c.worker_id == bindparam("in_worker"), jobs.c.cancel_requested_at.is_not(None)
        )
        self.renew_lease = leases.renew_lease()
        self.stop_lease = leases.stop_lease()
        self.step_lease = leases.step_lease()
        self.register = sql_insert(workers).returning(workers.c.id)
        self.deregister = delete(workers).where(workers.c.id == bindparam("in_worker"))
        self.peers = leases.peers(after=True)
        self.first_peers = leases.peers(after=False)
        self.host_peers = leases.host_peers(after=True)
        self.first_host_peers = leases.host_peers(after=False)
        self.orphans = leases.orphans()
        self.revoke_lease = (
            delete(workers)
            .where(workers.c.id == bindparam("in_worker"))
            .where(workers.c.heartbeats == bindparam("in_seen"))
            .returning(workers.c.id)
        )
        self.reap = leases.reap(backend)
        self.promote = leases.promote(backend)
        self.expire = leases.expire(backend)
        self.next_due = leases.next_due()
        self.next_tick = leases.next_tick()


statements = cache(Statements)
"""The statements of a backend, built once."""
