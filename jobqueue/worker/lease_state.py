"""The lease of a worker as the worker sees it: in whose name it claims, and whether that holds."""

import math
import threading

from jobqueue.store.claims import WorkerRef
from jobqueue.worker.process_identity import boottime


class LeaseState:
    """Whether this worker may still believe in its claims, by a clock that no one steps."""

    def __init__(self, length: float) -> None:
        self.length = length
        """Seconds for which one confirmed heartbeat holds."""
        self.worker: WorkerRef | None = None
        """In whose name this worker claims; None without a lease."""
        self.was_lost = False
        """A lease was lost: outcomes of claims under it may still be on their way."""
        self._confirmed = -math.inf
        self._verdict = threading.Condition()

    def take(self, worker: WorkerRef) -> None:
        """Claim in this name from now on; the lease is good once a heartbeat is confirmed."""
        self.worker = worker

    def leave(self) -> None:
        """Note that the lease was given back."""
        self.worker = None

    def lose(self) -> None:
        """Note that the lease was taken away."""
        self.worker = None
        self.was_lost = True

    def confirm(self, sent_at: float) -> None:
        """Note that a heartbeat sent at `sent_at` (boot time) has landed."""
        with self._verdict:
            self._confirmed = sent_at
            self._verdict.notify_all()

    @property
    def confirmed_at(self) -> float:
        """When the last heartbeat that has landed was sent (boot time)."""
        return self._confirmed

    def good(self) -> bool:
        """True while a lease has not passed since the last confirmed heartbeat was sent."""
        return boottime() - self._confirmed < self.length

    def wait(self, timeout: float) -> bool:
        """Wait for a heartbeat to land; True when the lease is good."""
        with self._verdict:
            return self._verdict.wait_for(self.good, timeout)
