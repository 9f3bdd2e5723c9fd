"""Leases: taken, renewed, watched and ended; and the jobs of workers whose lease is gone."""

import json
import secrets

from sqlalchemy import Connection, Executable

from jobqueue.records import Lease, Outlook, ReapedJob, Registration
from jobqueue.states import FINAL, State
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import Store

WORKER_ID_MAX = 2**53 - 1  # what JSON can say exactly
BATCH = 500
NEIGHBOURS = 16
"""How many others a worker watches for their silence. Their order is random: whatever the dead have
in common, such as their host, it is next to certain that one of 16 watchers lives."""
MATES = 4
"""How many on its own host, where it sees at once that a process is gone. Who ends one sees the
next, so that a row of dead ones of any length has ended at once."""


class Leases:
    """The leases of workers; every method is short and safe beside its like."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements = store.statements

    def register(self, who: Registration) -> int:
        """Take a lease; returns the worker's id, which is never used again.

        It is drawn at random: a server that has lost commits may give a number of its sequence to
        two workers, and each would take the other's lease and claims for its own.
        """
        values = {
            "id": 1 + secrets.randbelow(WORKER_ID_MAX),
            "name": who.name,
            "host": who.host,
            "pid": who.pid,
            "boot_id": who.boot_id,
            "pid_namespace": who.pid_namespace,
            "process_started": who.process_started,
            "wakeup_address": who.wakeup_address,
            "queues": None if who.queues is None else json.dumps(who.queues),
            "tasks": json.dumps(who.tasks),
            "concurrency": who.concurrency,
            "lease": who.lease,
        }
        with self._store.write() as connection:
            return int(connection.execute(self._statements.register, values).scalar_one())

    def renew(
        self, worker: int, *, running: int, processed: int, errored: int, concurrency: int
    ) -> bool:
        """Renew a lease; False when its row is gone, and every claim with it."""
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
            # No lock on the table may hold up the heartbeat.
            self._store.backend.limit_lock_wait(connection)
            rows = connection.execute(self._statements.cancel_requests, {"in_worker": worker})
            return [(row.id, row.fence) for row in rows]

    def deregister(self, worker: int) -> None:
        """Give a lease back."""
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(connection)  # A stop waits for it.
            connection.execute(self._statements.deregister, {"in_worker": worker})

    def look(
        self, connection: Connection, worker: int | None, boot: str | None, namespace: str | None
    ) -> Outlook:
        """What a worker has to know every second; `boot`, `namespace`: whose processes it sees."""
        statements = self._statements
        self._store.backend.limit_lock_wait(
            connection
        )  # Claims and outcomes may need its connection.
        orphans = bool(connection.execute(statements.orphans).scalar_one())
        leases = self._watched(connection, worker, boot, namespace)
        return Outlook(leases, orphans, self._next_due(connection))

    def look_for_due(self, connection: Connection) -> float | None:
        """Seconds until the next scheduled job is due, by the database's clock, or None."""
        self._store.backend.limit_lock_wait(connection)
        return self._next_due(connection)

    def _next_due(self, connection: Connection) -> float | None:
        due, present = connection.execute(self._statements.next_due).one()
        return None if due is None else (due - present).total_seconds()

    def _watched(
        self, connection: Connection, worker: int | None, boot: str | None, namespace: str | None
    ) -> list[Lease]:
        """Its next neighbours in the ring of all, and unless those are all, of its own host too."""
        values = {"in_worker": worker, "in_boot": boot, "in_namespace": namespace}

        def part(after: Executable, first: Executable, size: int) -> list[Lease]:
            found: list[Lease] = []
            for statement in (after, first):
                if len(found) < size:
                    rows = connection.execute(statement, values | {"in_limit": size - len(found)})
                    found += [Lease._make(row) for row in rows]
            return found

        found = part(self._statements.neighbours, self._statements.first_neighbours, NEIGHBOURS)
        if len(found) == NEIGHBOURS and boot is not None and namespace is not None:
            found += part(self._statements.mates, self._statements.first_mates, MATES)
        return list(dict.fromkeys(found))

    def could_beat(self, worker: int) -> bool:
        """Write a worker's row as its heartbeat does, and leave it as it was; False: it is gone.

        Raises where a heartbeat could not land: on a full disk, under a lock on the table.
        """
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(connection)
            for step in (1, -1):  # SQLite writes nothing for an update that changes nothing.
                values = {"in_worker": worker, "in_step": step}
                if connection.execute(self._statements.step_lease, values).one_or_none() is None:
                    return False
        return True

    def revoke(self, worker: int, beat: int) -> bool:
        """End a lease, unless it has been renewed since `beat` was seen."""
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(
                connection
            )  # Whoever waits here, beats wait there too.
            row = connection.execute(
                self._statements.revoke_lease, {"in_worker": worker, "in_seen": beat}
            )
            return row.one_or_none() is not None

    def reap(self, limit: int = BATCH) -> list[ReapedJob]:
        """Take the jobs of workers whose lease is gone; the attempt is recorded as lost."""

        def work(connection: Connection) -> list[ReapedJob]:
            rows = connection.execute(self._statements.reap, {"in_limit": limit}).all()
            lost = [ReapedJob(*row)._replace(state=State(row.state)) for row in rows]
            counts = TransactionCounts()
            for job in lost:
                if job.state is State.FAILED:
                    counts.errored(job.queue, job.task)  # The others' attempts were given back.
                if job.state in FINAL:
                    counts.ended(job.queue, job.task, job.state)
            counts.write(connection, self._statements)
            if lost:
                connection.execute(
                    self._statements.record_attempts, [_attempt_of_lost_worker(job) for job in lost]
                )
            return lost

        return self._store.transact_at_once(work)


def _attempt_of_lost_worker(job: ReapedJob) -> dict[str, object]:
    return {
        "job_id": job.id,
        "fence": job.fence - 1,
        "attempt": job.attempt,
        "worker": job.worker,
        "started_at": job.started_at,
        "outcome": "lost",
        "error_type": "WorkerLost",
        "error_message": f"worker {job.worker} was lost while it held this job",
        "traceback": None,
    }
