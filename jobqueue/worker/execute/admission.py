"""Admission: what is asked when a child process is ready for a job, before the job begins.

A child takes seconds to import the program. Meanwhile the worker may have been asked to stop, may
have lost its lease, or the job may have been cancelled.
"""

from collections.abc import Callable

from jobqueue.records import Claim
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.handler.outcomes import deadline_passed
from jobqueue.worker.inflight import InFlight, Unbegun


class Admission:
    """Admits one job. Used by its slot's thread."""

    def __init__(
        self,
        inflight: InFlight,
        context: Attempt,
        free_key: Callable[[Claim], Unbegun | None],
    ) -> None:
        self._inflight = inflight
        self._context = context
        self._free_key = free_key
        self._holds_key = context.claim.frees_key
        self._refused: Unbegun | None = None
        self.begun = False

    def refusal(self) -> Unbegun | None:
        """Why the job does not begin at all; None: it may begin, now or later."""
        context, inflight = self._context, self._inflight
        if context.key not in inflight.running.starting:
            return Unbegun(None)  # The worker stops, or has lost its lease.
        if self._refused is None and context.budget() <= 0:
            self._refused = Unbegun(deadline_passed(context.claim))
        return self._refused or inflight.refusal(context.claim)

    def begin(self) -> bool:
        """Begin the job; False: it may not, or not yet, as the lease is in doubt."""
        if not self._inflight.lease.good() or self.refusal() is not None:
            return False
        if self._holds_key:
            self._refused = self._free_key(self._context.claim)  # Asks again when it is done.
            self._holds_key = False
        if self._refused is None and self._inflight.begin_started(self._context):
            self._context.restart()
            self.begun = True
        return self.begun
