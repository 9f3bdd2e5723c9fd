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
        """In whose name this worker claims, once a heartbeat is confirmed; None without a lease."""
        self.was_lost = False
        """A lease was lost: outcomes of claims under it may still be on their way."""
        self.confirmed_at = -math.inf
        """When the last heartbeat that has landed was sent (boot time)."""
        self._verdict = threading.Condition()

    def lose(self) -> None:
        """Note that the lease was taken away."""
        self.worker = None
        self.was_lost = True

    def confirm(self, sent_at: float) -> None:
        """Note that a heartbeat sent at `sent_at` (boot time) has landed."""
        with self._verdict:
            self.confirmed_at = sent_at
            self._verdict.notify_all()

    def good(self) -> bool:
        """True while a lease has not passed since the last confirmed heartbeat was sent."""
        return boottime() - self.confirmed_at < self.length

    def wait(self, timeout: float) -> bool:
        """Wait for a heartbeat to land; True when the lease is good."""
        with self._verdict:
            return self._verdict.wait_for(self.good, timeout)
