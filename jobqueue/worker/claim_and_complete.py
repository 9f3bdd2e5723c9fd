"""Claim and complete in one transaction, where the database has one writer."""

import time

from jobqueue.store.database import Store
from jobqueue.worker.claim.planner import ClaimPlanner
from jobqueue.worker.complete.outcome_writer import OutcomeWriter
from jobqueue.worker.service_thread import Service

YIELD_MIN = 0.0006  # seconds, at least, in which the database is left to other writers
YIELD_SHARE = 0.15  # of the time that the transaction took
YIELD_SHARE_CONTENDED = 1.0  # so that others find it free half of the time
YIELD_MAX = 0.1  # seconds; who finds the file locked looks again at least this often
FOREIGN_WRITER_REMEMBERED = 2.0  # seconds after a wait for a writer without our write lock


class SingleWriterLoop(Service):
    """Writes outcomes and claims the next jobs in one transaction, where one writer is possible."""

    def __init__(self, store: Store, planner: ClaimPlanner, writer: OutcomeWriter) -> None:
        super().__init__("single writer")
        self._store = store
        self._planner = planner
        self._writer = writer
        self._gap = YIELD_MIN
        """Seconds for which the database is left to other writers after a transaction."""
        self._free_until = 0.0
        self._contended_until = 0.0

    def tick(self) -> float | None:
        """Write one batch and claim the next, under the write lock that our processes share."""
        planner = self._planner
        planner.began = time.monotonic()
        with self._store.write_lock() as waited:
            if waited:  # The handlers have ended meanwhile: the gap is time to prepare.
                free_until = time.monotonic() + self._gap  # Another process has written.
                prepared = self._prepare()
                self._yield_to_other_writers(free_until)
            else:
                self._yield_to_other_writers(self._free_until)
                prepared = self._prepare()
            written, claimed = self._write(*prepared)
        if written:
            self._writer.acknowledge()
        if claimed:
            planner.dispatch()
        return planner.delay()

    def _prepare(self) -> tuple[int, int]:
        """Return how many jobs to claim, and how many outcomes there are to write."""
        self._planner.reconcile()
        self._planner.release_stale_prefetch()
        return self._planner.wanted(), self._writer.gather()

    def _yield_to_other_writers(self, until: float) -> None:
        """Let writers in that do not take our write lock, above all the user's sessions.

        Before a transaction, not after it: then the handlers of this process have work, and to wake
        up among them takes longer than the gap.
        """
        gap = until - time.monotonic()
        if gap > 0:
            self._stopping.wait(gap)

    def _write(self, wanted: int, outcomes: int) -> tuple[bool, bool]:
        """Write the gathered outcomes and claim up to `wanted` jobs in one transaction.

        Return whether outcomes wait for `acknowledge()`, and claims for `dispatch()`.
        """
        planner, writer = self._planner, self._writer
        if wanted and not outcomes and planner.claim_announced(wanted):
            self._free_until = time.monotonic() + YIELD_MIN
            return False, False
        if wanted and not planner.refresh():
            wanted = 0
        if not outcomes and not wanted:
            planner.unpark_lanes()
            return False, False
        try:
            with self._store.write() as connection:
                began = time.monotonic()
                met_writer = self._store.backend.met_writer(connection)
                if outcomes:
                    writer.write(connection)
                if wanted:
                    planner.claim(connection, wanted)
        except Exception as error:
            if outcomes and writer.is_data_error(error):
                writer.one_by_one()
                return False, False
            planner.inflight.round_failed()
            raise
        self._leave_a_gap(began, met_writer=met_writer)
        return outcomes > 0, wanted > 0

    def _leave_a_gap(self, began: float, *, met_writer: bool) -> None:
        """Leave the database to others after a transaction; see `Backend.met_writer`."""
        ended = time.monotonic()
        if met_writer:
            self._contended_until = ended + FOREIGN_WRITER_REMEMBERED
        contended = ended < self._contended_until
        self._planner.inflight.contention.foreign_writer_seen = contended
        share = YIELD_SHARE_CONTENDED if contended else YIELD_SHARE
        self._gap = min(max(YIELD_MIN, share * (ended - began)), YIELD_MAX)
        self._free_until = ended + self._gap
