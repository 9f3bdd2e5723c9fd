"""Reconciliation: gives back what the database says this worker holds, and it does not."""

import time

from jobqueue.records import counted
from jobqueue.store.claims import Claims
from jobqueue.store.database import Store
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import log

INTERVAL = 10.0  # seconds between two comparisons that nothing gave reason for


class Reconciler:
    """Compares the claims in the database with those in memory.

    They differ where a commit's answer was lost, where a server has lost commits that it had
    answered (`synchronous_commit=off` and a crash, the promotion of a standby that lagged behind),
    and where somebody has written rows by hand. A job that only the database knows of is run by
    nobody and watched by nobody, since the worker in whose name it is lives.

    Call it from the thread that claims, and from no other: then no claim is between its commit and
    its hand-out.
    """

    def __init__(self, store: Store, claims: Claims, inflight: InFlight) -> None:
        self._store = store
        self._claims = claims
        self._inflight = inflight
        self._compared_at = time.monotonic()
        self._reasons = self._count()

    def _count(self) -> tuple[int, int]:
        """Connections made and rounds failed so far: each more is a reason to compare."""
        return self._store.connects, self._inflight.failed_rounds

    def due(self) -> bool:
        """True after a round that failed, after a reconnection, and every `INTERVAL`."""
        return self._count() != self._reasons or time.monotonic() - self._compared_at >= INTERVAL

    def compare(self) -> None:
        """Compare, and put what is not known here into the outbox, to be given back."""
        worker, known = self._inflight.snapshot()
        if worker is None:
            return
        reasons = self._count()  # Before looking: what fails from here on is one more.
        with self._store.read() as connection:
            unknown = self._claims.unknown(connection, worker, known)
        if unknown and self._inflight.release_unknown(unknown, worker):
            log.warning(
                "given back: %s running in this worker's name that it did not run, because a "
                "commit, or its answer, was lost (the first: job %d)",
                counted(len(unknown), "job"),
                unknown[0].id,
            )
            return  # There may be more of them: the reason stands.
        self._compared_at = time.monotonic()
        self._reasons = reasons
