"""The executor: one thread that takes claims from the inbox and runs them to their outcome."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jobqueue.loggers import get_logger
from jobqueue.records import Claim, Ended
from jobqueue.states import State
from jobqueue.store.claims import Claims
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Registry, Task
from jobqueue.worker.execute.admission import Admission
from jobqueue.worker.handler import outcomes
from jobqueue.worker.handler.context import Attempt, time_left
from jobqueue.worker.handler.context_variables import Surroundings
from jobqueue.worker.handler.describe import describe
from jobqueue.worker.handler.run import HandlerRunner
from jobqueue.worker.inflight import UNBEGUN, InFlight, Unbegun, released
from jobqueue.worker.isolate.child_handle import RemoteAttempt
from jobqueue.worker.isolate.pool import NO_CHILD_REST, Isolation, NoChild
from jobqueue.worker.log_context import about

log = get_logger("jobqueue.worker")

UNKNOWN_TASKS_MAX = 1000  # names for which it is remembered when they were logged last


class Executor:
    """Runs claims one after another until it is handed None.

    Each in a copy of the context in which this was made: that of the program that starts a worker.
    """

    def __init__(
        self,
        inflight: InFlight,
        registry: Registry,
        claims: Claims,
        transactions: UserTransactions,
        *,
        handlers: HandlerRunner,
        finished: Callable[[], None],
        isolation: Isolation | None = None,
    ) -> None:
        self.surroundings = Surroundings()
        self._isolation = isolation
        self._inflight = inflight
        self._registry = registry
        self._claims = claims
        self._transactions = transactions
        self.handlers = handlers
        self._unknown: dict[str, float] = {}
        """When it was logged that this task is not known."""
        self._finished = finished

    def loop(self) -> None:
        """The thread's life, until it is handed None or its claim was given up."""
        try:
            self._loop()
        finally:
            if self._isolation is not None:
                self._isolation.leave()

    def _loop(self) -> None:
        inbox = self._inflight.inbox
        while (claim := inbox.get()) is not None and self.take(claim):
            pass

    def take(self, claim: Claim) -> bool:
        """Run a claim that was handed out, if it may begin; False as in `work`."""
        inflight = self._inflight
        while (refusal := inflight.refusal(claim)) is None and not inflight.lease.good():
            inflight.lease.wait(0.5)  # The first heartbeat that lands decides.
        goes_on = True
        if refusal is not None:
            self._put(refusal)
        else:
            try:
                goes_on = self.surroundings.copy().run(self.work, claim)
            except BaseException as error:  # noqa: BLE001 - told with the outcome.
                # Such as a column that plain SQL has filled with something else.
                inflight.running.drop((claim.id, claim.fence))
                why = Ended(claim, "errored", State.FAILED, error=describe(error))
                inflight.outbox.put(why)
        inflight.capacity.free_slot(claim)
        self._finished()
        return goes_on

    def work(self, claim: Claim) -> bool:
        """Run one claim and put its outcome into the outbox; never raises.

        False: the claim was given up meanwhile, and another slot opened in place of this one.
        """
        task = self.known(claim)
        if task is None:
            return True
        if claim.crashes or task.settings.isolation == "process":
            isolation = self._isolation
            if isolation is not None and isolation.takes(claim):
                return self._work_apart(task, claim, isolation)
        arguments = self._arguments(task, claim)
        if arguments is None:
            return True
        args, kwargs = arguments
        context = self.context_of(task, claim)
        self._inflight.begin(context)
        outcome = self.handlers.run(context, args, kwargs)
        return self._inflight.end(context, outcome)

    def ready(self, claim: Claim) -> tuple[Task[..., Any], Sequence[Any], dict[str, Any]] | None:
        """The task and its arguments, or None: it may not begin, and its outcome is written."""
        task = self.known(claim)
        arguments = None if task is None else self._arguments(task, claim)
        return None if task is None or arguments is None else (task, *arguments)

    def _arguments(
        self, task: Task[..., Any], claim: Claim
    ) -> tuple[Sequence[Any], dict[str, Any]] | None:
        try:
            arguments = task.codec.decode(claim.args)
        except Exception as error:  # noqa: BLE001 - a user's type may raise anything when made.
            self._inflight.outbox.put(outcomes.refused(claim, error))
            return None
        refusal = self._free_key(claim) if claim.frees_key else None
        if refusal is None:
            return arguments
        self._put(refusal)
        return None

    def known(self, claim: Claim) -> Task[..., Any] | None:
        """The task, or None: it may not begin, and its outcome is written."""
        task = self._registry.find(claim.task)
        if task is None:
            self._inflight.outbox.put(self._unknown_task(claim))
            return None
        if claim.deadline_at is not None and time_left(claim) <= 0:
            self._inflight.outbox.put(outcomes.deadline_passed(claim))
            return None
        return task

    def _work_apart(self, task: Task[..., Any], claim: Claim, isolation: Isolation) -> bool:
        """Run one claim in a child process."""
        inflight = self._inflight
        context = RemoteAttempt(claim, self._transactions, task)
        admission = Admission(inflight, context, self._free_key)
        inflight.start(context)
        try:
            outcome = isolation.run(context, admission)
        except NoChild as error:
            inflight.withdraw(context, isolation.put_off(claim, error))
            threading.Event().wait(NO_CHILD_REST)  # The next one would fare no better.
            return True
        if admission.begun and outcome is not None:
            return inflight.end(context, outcome)
        inflight.withdraw(context, outcome)
        return True

    def context_of(self, task: Task[..., Any], claim: Claim) -> Attempt:
        """The attempt of a handler that is about to be entered; its time runs from here."""
        return Attempt(claim, self._transactions, task)

    def _unknown_task(self, claim: Claim) -> Ended:
        present = time.monotonic()
        if len(self._unknown) > UNKNOWN_TASKS_MAX:
            self._unknown.clear()
        if present - self._unknown.get(claim.task, float("-inf")) >= 60:  # noqa: PLR2004
            self._unknown[claim.task] = present
            log.warning(
                "no task is named %r in this worker: job %d and its like wait",
                claim.task,
                claim.id,
                extra=about(claim, "unknown task"),
            )
        return outcomes.unknown_task(claim)

    def _free_key(self, claim: Claim) -> Unbegun | None:
        """Free the unique key of a job that is about to begin; how it ends if it may not begin."""
        try:
            if self._claims.begin(claim):
                return self._refusal_now(claim)
            why = "its claim was lost before it began"
        except Exception as error:  # noqa: BLE001 - it is claimed again, when there is a database.
            why = f"given back before it began: its key could not be freed ({type(error).__name__})"
            log.warning("job %d (%s) is %s", claim.id, claim.task, why, extra=about(claim))
        return Unbegun(released(claim, why))

    def _refusal_now(self, claim: Claim) -> Unbegun | None:
        """The database took its time: what was asked before it is asked again."""
        refusal = self._inflight.refusal(claim)
        if refusal is None and not self._inflight.lease.good():
            refusal = Unbegun(released(claim, UNBEGUN))
        return refusal

    def _put(self, refusal: Unbegun) -> None:
        if refusal.outcome is not None:
            self._inflight.outbox.put(refusal.outcome)
