"""Decides whether a claim that was handed out may start.

Between the claim and the start the worker may have been asked to stop, may have lost its lease, the
job may have been cancelled, or its deadline may have passed.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from jobqueue.loggers import get_logger
from jobqueue.records import Claim, Unsuccessful
from jobqueue.store.claims import Claims
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Registry
from jobqueue.worker.handler.context import Attempt, time_left
from jobqueue.worker.handler.outcomes import deadline_passed, refused, unknown_task
from jobqueue.worker.inflight import UNBEGUN, InFlight, Unbegun, released
from jobqueue.worker.isolate.child_handle import RemoteAttempt
from jobqueue.worker.log_context import about

log = get_logger("jobqueue.worker")

UNKNOWN_TASKS_MAX = 1000  # names for which it is remembered when they were logged last
UNKNOWN_TASK_LOG_INTERVAL = 60.0  # seconds between two log lines about the same task


class NotStarted(Exception):
    """A claim may not start; `outcome` is what to write, None if there is nothing to write."""

    def __init__(self, refusal: Unbegun) -> None:
        self.outcome = refusal.outcome


class Admission:
    """Admits the claims of one worker. May be used from any thread."""

    def __init__(
        self,
        inflight: InFlight,
        registry: Registry,
        claims: Claims,
        transactions: UserTransactions,
    ) -> None:
        self._inflight = inflight
        self._registry = registry
        self._claims = claims
        self._transactions = transactions
        self._unknown_logged: dict[str, float] = {}

    def may_start(self, claim: Claim) -> bool:
        """True: now. False: not yet, since the lease is in doubt; the next heartbeat decides.

        Raises NotStarted.
        """
        refusal = self._inflight.refusal(claim)
        if refusal is not None:
            raise NotStarted(refusal)
        if not self._inflight.lease.good():
            return False
        if self._registry.find(claim.task) is None:
            raise NotStarted(Unbegun(self._unknown_task(claim)))
        if claim.deadline_at is not None and time_left(claim) <= 0:
            raise NotStarted(Unbegun(deadline_passed(claim)))
        return True

    def prepare(self, claim: Claim) -> tuple[Attempt, Sequence[Any], dict[str, Any]]:
        """Return the attempt of a claim that may start, and the handler's arguments.

        Raises NotStarted.
        """
        task = self._registry.find(claim.task)
        assert task is not None, "see may_start()"
        try:
            args, kwargs = task.codec.decode(claim.args)
        except Exception as error:  # noqa: BLE001 - a user's type may raise anything when made.
            raise NotStarted(Unbegun(refused(claim, error))) from None
        if claim.frees_key and (refusal := self._free_key(claim)) is not None:
            raise NotStarted(refusal)
        return Attempt(claim, self._transactions, task), args, kwargs

    def for_child(self, claim: Claim) -> "ChildAdmission":
        """The admission of a claim whose handler runs in a child process."""
        context = RemoteAttempt(claim, self._transactions, self._registry[claim.task])
        return ChildAdmission(self._inflight, context, self._free_key)

    def _unknown_task(self, claim: Claim) -> Unsuccessful:
        present = time.monotonic()
        if len(self._unknown_logged) > UNKNOWN_TASKS_MAX:
            self._unknown_logged.clear()
        logged_at = self._unknown_logged.get(claim.task, float("-inf"))
        if present - logged_at >= UNKNOWN_TASK_LOG_INTERVAL:
            self._unknown_logged[claim.task] = present
            log.warning(
                "no task is named %r in this worker: job %d and its like wait",
                claim.task,
                claim.id,
                extra=about(claim, "unknown task"),
            )
        return unknown_task(claim)

    def _free_key(self, claim: Claim) -> Unbegun | None:
        """Free the unique key of a job that is about to begin; how it ends if it may not begin."""
        try:
            if self._claims.mark_started(claim):
                return self._refusal_now(claim)
            why = "its claim was lost before it began"
        except Exception as error:  # noqa: BLE001 - it is claimed again, when there is a database.
            why = f"given back before it began: its key could not be freed ({type(error).__name__})"
            log.warning("job %d (%s) is %s", claim.id, claim.task, why, extra=about(claim))
        return Unbegun(released(claim, why))

    def _refusal_now(self, claim: Claim) -> Unbegun | None:
        """Why a claim may not start after all: the database may have taken long to answer."""
        refusal = self._inflight.refusal(claim)
        if refusal is None and not self._inflight.lease.good():
            refusal = Unbegun(released(claim, UNBEGUN))
        return refusal


class ChildAdmission:
    """Admits one job to a child process, which takes seconds to import the program.

    Used by the thread that waits for the child.
    """

    def __init__(
        self,
        inflight: InFlight,
        context: RemoteAttempt,
        free_key: Callable[[Claim], Unbegun | None],
    ) -> None:
        self._inflight = inflight
        self.context = context
        self._free_key = free_key
        self._holds_key = context.claim.frees_key
        self._refused: Unbegun | None = None
        self.begun = False

    def refusal(self) -> Unbegun | None:
        """Why the job does not begin at all; None: it may begin, now or later."""
        context, inflight = self.context, self._inflight
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
            self._refused = self._free_key(self.context.claim)  # Asks again when it is done.
            self._holds_key = False
        if self._refused is None and self._inflight.begin_started(self.context):
            self.context.restart()
            self.begun = True
        return self.begun
