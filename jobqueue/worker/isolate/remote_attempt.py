"""An attempt whose handler runs in a child process, as the worker sees it."""

import math
import time
import traceback
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from jobqueue.errors import JobQueueError
from jobqueue.records import Claim
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Task
from jobqueue.worker.handler.context import Attempt, enter
from jobqueue.worker.handler.outcomes import deadline_passed
from jobqueue.worker.inflight import InFlight, Unbegun
from jobqueue.worker.isolate.log_forwarding import replay


class RemoteAttempt(Attempt):
    """An attempt whose handler runs in a child, which takes seconds to import the program.

    It begins when the child is ready; requests to stop go there, progress comes back. `refusal()`
    and `begin()` are for the thread that waits for the child.
    """

    killable = True
    begun = False
    _refused: Unbegun | None = None
    stop_requested_at = math.inf
    wake: Callable[[], None] | None = None
    """Called when a stop is requested; of the thread that waits for the child."""

    def __init__(
        self,
        claim: Claim,
        transactions: UserTransactions,
        task: Task[..., Any],
        inflight: InFlight,
        free_key: Callable[[Claim], Unbegun | None],
    ) -> None:
        super().__init__(claim, transactions, task)
        self._inflight = inflight
        self._free_key = free_key
        self._holds_key = claim.releases_key_on_start

    def refusal(self) -> Unbegun | None:
        """Why the job does not begin at all; None: it may begin, now or later."""
        if self.key not in self._inflight.starting:
            return Unbegun(None)  # The worker stops, or has lost its lease.
        if self._refused is None and self.budget() <= 0:
            self._refused = Unbegun(deadline_passed(self.claim))
        return self._refused or self._inflight.refusal(self.claim)

    def begin(self) -> bool:
        """Begin the job; False: it may not, or not yet, as the lease is in doubt."""
        if not self._inflight.lease.good() or self.refusal() is not None:
            return False
        if self._holds_key:
            self._refused = self._free_key(self.claim)  # Asks again when it is done.
            self._holds_key = False
        if self._refused is None and self._inflight.begin_started(self):
            self.restart()
            self.begun = True
        return self.begun

    def request_stop(self, error: type[JobQueueError]) -> None:
        """See `Attempt.request_stop`."""
        if self.stop_reason is None:
            super().request_stop(error)
            self.stop_requested_at = time.monotonic()
            wake = self.wake  # Read once: the other thread may reset it.
            if wake is not None:
                wake()

    def handle_message(self, message: dict[str, Any]) -> None:
        """Apply a message that the child sent while the handler runs."""
        if "progress" in message:
            id_, fence, fraction, text = message["progress"]
            if (id_, fence) == self.key:  # That of the job before may come late.
                self.report(fraction, text)
        elif "finishing" in message:
            self.finishing = True
        elif "begun" in message:
            self.restart()
        elif "log" in message:
            copy_context().run(self._log, message["log"])

    def _log(self, fields: dict[str, Any]) -> None:
        enter(self)  # The record is attributed to this job.
        try:
            replay(fields)
        except Exception:  # noqa: BLE001 - a filter may do anything.
            traceback.print_exc()  # Not through logging, which would run the filter again.
