"""Leases: register, renew, watch and revoke them; reap the jobs of workers without a lease."""

import json
import secrets
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, Executable

from jobqueue.records import AttemptError, Due, Lease, PollResult, ReapedJob, Registration
from jobqueue.states import FINAL, OutcomeKind, State
from jobqueue.store.completion import AttemptRow
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import Store

WORKER_ID_MAX = 2**53 - 1  # the greatest integer that every JSON parser reads exactly
BATCH = 500
PEERS = 16
"""Leases that a worker watches for missing heartbeats. Their order is random: even if all workers
of a host died together, one of a worker's 16 watchers almost certainly lives."""
HOST_PEERS = 4
"""Leases on its own host that a worker watches too: there it sees at once that a process is gone.
After revoking one it sees the next, so that any number of dead peers is found at once."""


class Leases:
    """The leases of workers. Every method is one short transaction that workers may run at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements = store.statements

    def register(self, who: Registration) -> int:
        """Insert a lease; return the worker's id, which is never used again.

        The id is random: a server that has lost commits may give one number of a sequence to two
        workers, and each would take the other's lease and claims for its own.
        """
        values = asdict(who) | {
            "id": 1 + secrets.randbelow(WORKER_ID_MAX),
            "queues": None if who.queues is None else json.dumps(who.queues),
            "tasks": json.dumps(who.tasks),
        }
        with self._store.write() as connection:
            return int(connection.execute(self._statements.register, values).scalar_one())

    def renew(
        self, worker: int, *, running: int, processed: int, errored: int, concurrency: int
    ) -> bool:
        """Renew a lease; return False if its row is gone, and with it every claim."""
        values = {
            "in_worker": worker,
            "in_running": running,
            "in_processed": processed,
            "in_errored": errored,
            "in_concurrency": concurrency,
        }
        with self._store.write() as connection:
            renewed = connection.execute(self._statements.renew_lease, values)
            return renewed.one_or_none() is not None

    def cancel_requests(self, worker: int) -> list[tuple[int, int]]:
        """Return (id, fence) of this worker's jobs whose cancellation was requested."""
        with self._store.read() as connection:
            # A lock on the table must not delay the heartbeat.
            self._store.backend.limit_lock_wait(connection)
            rows = connection.execute(self._statements.cancel_requests, {"in_worker": worker})
            return [(row.id, row.fence) for row in rows]

    def note_stop(self, worker: int) -> None:
        """Show in the lease that this worker stops, and only ends what it runs."""
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(connection)  # The worker's shutdown waits for this.
            connection.execute(self._statements.stop_lease, {"in_worker": worker})

    def deregister(self, worker: int) -> None:
        """Delete a worker's own lease."""
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(connection)  # The worker's shutdown waits for this.
            connection.execute(self._statements.deregister, {"in_worker": worker})

    def poll(
        self, connection: Connection, worker: int | None, boot: str | None, namespace: str | None
    ) -> PollResult:
        """Return what upkeep polls each second: watched leases, orphaned jobs, what is due next.

        `boot`, `namespace`: the boot id and pid namespace in which the worker can see processes.
        """
        statements = self._statements
        # Claims and outcomes may need the connection.
        self._store.backend.limit_lock_wait(connection)
        orphans = bool(connection.execute(statements.orphans).scalar_one())
        leases = self._watched(connection, worker, boot, namespace)
        tick, present = connection.execute(statements.next_tick).one()
        return PollResult(leases, orphans, self._due(connection), _seconds(present, tick))

    def poll_due(self, connection: Connection) -> Due:
        """Return in how many seconds a job is due or expires."""
        self._store.backend.limit_lock_wait(connection)
        return self._due(connection)

    def _due(self, connection: Connection) -> Due:
        due, expiry, freed, present = connection.execute(self._statements.next_due).one()
        return Due(_seconds(present, due), _seconds(present, expiry), 0.0 if freed else None)

    def _watched(
        self, connection: Connection, worker: int | None, boot: str | None, namespace: str | None
    ) -> list[Lease]:
        """Return the next leases in the ring; if there are more, also the next on its own host."""
        statements = self._statements
        values = {"in_worker": worker, "in_boot": boot, "in_namespace": namespace}

        def part(after: Executable, first: Executable, size: int) -> list[Lease]:
            found: list[Lease] = []
            for statement in (after, first):
                if len(found) < size:
                    rows = connection.execute(statement, values | {"in_limit": size - len(found)})
                    found += [Lease._make(row) for row in rows]
            return found

        found = part(statements.peers, statements.first_peers, PEERS)
        if len(found) == PEERS and boot is not None and namespace is not None:
            found += part(statements.host_peers, statements.first_host_peers, HOST_PEERS)
        return list(dict.fromkeys(found))

    def could_beat(self, worker: int) -> bool:
        """Update and restore a worker's row, to test a heartbeat; return False if it is gone.

        Raises if a heartbeat would fail: on a full disk, or under a lock on the table.
        """
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(connection)
            for step in (1, -1):  # SQLite does not write if an update changes nothing.
                values = {"in_worker": worker, "in_step": step}
                if connection.execute(self._statements.step_lease, values).one_or_none() is None:
                    return False
        return True

    def revoke(self, worker: int, beat: int) -> bool:
        """Revoke a lease, unless it was renewed since heartbeat number `beat`."""
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(connection)  # It would block heartbeats, too.
            row = connection.execute(
                self._statements.revoke_lease, {"in_worker": worker, "in_seen": beat}
            )
            return row.one_or_none() is not None

    def reap(self, limit: int = BATCH) -> list[ReapedJob]:
        """Reap the jobs of workers whose lease is gone, and record their attempts as lost."""

        def work(connection: Connection) -> list[ReapedJob]:
            rows = connection.execute(self._statements.reap, {"in_limit": limit}).all()
            lost = [ReapedJob(*row)._replace(state=State(row.state)) for row in rows]
            counts = TransactionCounts()
            for job in lost:
                if job.state is State.FAILED:
                    # Attempts of other jobs are refunded.
                    counts.of(job.queue, job.task).errored_attempts += 1
                if job.state in FINAL:
                    counts.ended(job.queue, job.task, job.state)
                if job.state is not State.CANCELLED:  # It was to end anyway, or came too late.
                    counts.error(job.task, _lost_worker(job), job.state)
            counts.write(connection, self._store)
            if lost:
                attempts = [_attempt_of_lost_worker(job)._asdict() for job in lost]
                connection.execute(self._statements.record_attempts, attempts)
            return lost

        return self._store.transact_at_once(work)


def _seconds(present: datetime, until: datetime | None) -> float | None:
    return None if until is None else (until - present).total_seconds()


def _lost_worker(job: ReapedJob) -> AttemptError:
    message = f"worker {job.worker} was lost while it held this job"
    return AttemptError("WorkerLost", message, None)


def _attempt_of_lost_worker(job: ReapedJob) -> AttemptRow:
    error = _lost_worker(job)
    key = (job.id, job.fence - 1, job.attempt, job.worker, job.started_at)
    row = AttemptRow(*key, OutcomeKind.LOST, error.type, error.message)
    return row._replace(error_signature=error.signature(job.task))
