"""Runs claims to their outcomes: which runner, and whether a claim may still start.

Between a claim and its start the worker may have been asked to stop, may have lost its lease, the
job may have been cancelled, or its deadline may have passed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from jobqueue.records import Claim, Unsuccessful
from jobqueue.states import OutcomeKind, State
from jobqueue.store.claims import Claims
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Registry, Task
from jobqueue.worker.handler.context import Attempt, time_left
from jobqueue.worker.handler.context_variables import ProgramContext
from jobqueue.worker.handler.describe import describe
from jobqueue.worker.handler.outcomes import (
    cancelled_unbegun,
    deadline_passed,
    refused,
    released,
    unknown_task,
)
from jobqueue.worker.handler.run import HandlerRunner
from jobqueue.worker.inflight import InFlight, Unbegun
from jobqueue.worker.isolate.pool import NO_PROCESS_DELAY, NoProcess, ProcessPool
from jobqueue.worker.isolate.remote_attempt import RemoteAttempt
from jobqueue.worker.log_context import about, log

UNKNOWN_TASKS_MAX = 1000  # names for which it is remembered when they were logged last
UNKNOWN_TASK_LOG_INTERVAL = 60.0  # seconds between two log lines about the same task


class Executor:
    """Runs the claims of one worker. May be used from any thread.

    Each runs in a copy of the context of the program that started the worker.
    """

    def __init__(
        self,
        inflight: InFlight,
        registry: Registry,
        handlers: HandlerRunner,
        *,
        claims: Claims,
        transactions: UserTransactions,
        finished: Callable[[], None],
        process_pool: ProcessPool | None = None,
    ) -> None:
        self.program_context = ProgramContext()
        self.handlers = handlers
        self._inflight = inflight
        self._registry = registry
        self._claims = claims
        self._transactions = transactions
        self._finished = finished
        self._process_pool = process_pool
        self._unknown_logged: dict[str, float] = {}

    def runs_in_child(self, task: Task[..., Any], claim: Claim) -> bool:
        """Return whether a child process runs the handler of a claim.

        If the task requires it, or if the job was in a crash and its task can be imported there.
        """
        return self._process_pool is not None and (
            task.settings.isolation == "process"
            or (bool(claim.crashes) and self._process_pool.can_import(claim))
        )

    def runs_on_loop(self, claim: Claim) -> bool:
        """Return whether the event loop runs the handler of a claim."""
        task = self._registry.find(claim.task)  # Asked each time: tasks may be added at any time.
        return task is not None and task.is_async and not self.runs_in_child(task, claim)

    def loop(self) -> None:
        """Run claims from the inbox until it yields None, or the claim of this thread was ended."""
        inbox = self._inflight.inbox
        try:
            while (claim := inbox.get()) is not None and self.take(claim):
                pass
        finally:
            if self._process_pool is not None:
                self._process_pool.end_child()

    def take(self, claim: Claim) -> bool:
        """Run a claim that was handed out, if it may start; False as in `_run`. Never raises."""
        inflight = self._inflight
        goes_on = True
        try:
            while (task := self.may_start(claim)) is None:
                inflight.lease.wait(0.5)
            goes_on = self.program_context.copy().run(self._run, task, claim)
        except BaseException as error:  # noqa: BLE001 - recorded with the outcome.
            self.not_run(claim, error)
        inflight.capacity.free_slot((claim.id, claim.fence))
        self._finished()
        return goes_on

    def not_run(self, claim: Claim, error: BaseException) -> None:
        """Record why a claim did not come to an outcome of its handler."""
        if isinstance(error, Unbegun):
            error.__traceback__ = None  # Frames in it refer to the error: a cycle.
            if error.outcome is not None:
                self._inflight.outbox.put(error.outcome)
            return
        # Such as a column that plain SQL has filled with something else.
        self._inflight.drop((claim.id, claim.fence))
        ended = Unsuccessful(claim, OutcomeKind.ERRORED, State.FAILED, error=describe(error))
        self._inflight.outbox.put(ended)

    def may_start(self, claim: Claim) -> Task[..., Any] | None:
        """Return the task of a claim that may start now; None: the lease is in doubt.

        Then the next heartbeat decides. Raises Unbegun.
        """
        refusal = self._inflight.refusal(claim)
        if refusal is not None:
            raise refusal
        if not self._inflight.lease.good():
            return None
        if claim.expires_at is not None and _is_late(claim, claim.expires_at):
            raise Unbegun(cancelled_unbegun(claim, "expired"))
        task = self._registry.find(claim.task)
        if task is None:
            raise Unbegun(self._unknown_task(claim))
        if claim.deadline_at is not None and time_left(claim) <= 0:
            raise Unbegun(deadline_passed(claim))
        return task

    def prepare(
        self, task: Task[..., Any], claim: Claim
    ) -> tuple[Attempt, Sequence[Any], dict[str, Any]]:
        """Return the attempt of a claim that may start, and the handler's arguments.

        Raises Unbegun.
        """
        try:
            args, kwargs = task.codec.decode(claim.args)
        except Exception as error:  # noqa: BLE001 - a user's type may raise anything when made.
            raise Unbegun(refused(claim, error)) from None
        if claim.releases_key_on_start and (refusal := self._free_key(claim)) is not None:
            raise refusal
        return Attempt(claim, self._transactions, task), args, kwargs

    def _run(self, task: Task[..., Any], claim: Claim) -> bool:
        """Run one claim and put its outcome into the outbox. Raises Unbegun.

        False: the claim was ended meanwhile, and another thread took the place of this one.
        """
        if self.runs_in_child(task, claim):
            return self._run_in_child(task, claim)
        context, args, kwargs = self.prepare(task, claim)
        self._inflight.begin(context)
        return self._inflight.end(context, self.handlers.run(context, args, kwargs))

    def _run_in_child(self, task: Task[..., Any], claim: Claim) -> bool:
        inflight, process_pool = self._inflight, self._process_pool
        assert process_pool is not None, "runs_in_child() knows it"
        context = RemoteAttempt(claim, self._transactions, task, inflight, self._free_key)
        inflight.start(context)
        try:
            outcome = process_pool.run(context)
        except NoProcess as error:
            inflight.withdraw(context, process_pool.release(claim, error))
            threading.Event().wait(NO_PROCESS_DELAY)  # The next claim would meet the same error.
            return True
        if context.begun and outcome is not None:
            return inflight.end(context, outcome)
        inflight.withdraw(context, outcome)
        return True

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
                extra=about(claim, OutcomeKind.UNKNOWN_TASK.value),
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
            refusal = Unbegun(released(claim))
        return refusal


def _is_late(claim: Claim, expires_at: datetime) -> bool:
    """Return whether a job that has not begun before was claimed after it expired.

    By the database's clock alone.
    """
    has_begun = claim.attempt > 1 or claim.snoozes or claim.crashes
    return claim.started_at >= expires_at and not has_begun
