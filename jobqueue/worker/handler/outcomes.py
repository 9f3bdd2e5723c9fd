"""How attempts end: from what a handler did to the outcome that is recorded."""

import time
from typing import Any

from jobqueue.errors import (
    AttemptTimeout,
    Cancel,
    JobCancelled,
    JobQueueError,
    Retry,
    Signal,
    Snooze,
)
from jobqueue.loggers import get_logger
from jobqueue.options import DEFAULT_BACKOFF, SECONDS_MAX, Backoff
from jobqueue.records import NOT_COMMITTED, AttemptError, Claim, Ended, Outcome, Succeeded, counted
from jobqueue.states import State
from jobqueue.tasks import Registry, Task
from jobqueue.worker.handler.context import Attempt, clean
from jobqueue.worker.handler.describe import Described, describe
from jobqueue.worker.isolate.child_handle import Answer, Death, Unfit
from jobqueue.worker.log_context import about

log = get_logger("jobqueue.worker")

UNKNOWN_TASK_REST = 10.0  # seconds
UNKNOWN_TASKS_MAX = 1000  # names for which it is remembered when they were logged last
_REASON_MAX = 1000  # characters


class Endings:
    """Turns what a handler did into outcomes. May be used from any thread."""

    def __init__(self, registry: Registry, max_snoozes: int, max_crashes: int = 1) -> None:
        self._registry = registry
        self._max_snoozes = max_snoozes
        self._max_crashes = max_crashes
        self._unknown: dict[str, float] = {}

    def raised(self, task: Task[..., Any], context: Attempt, error: BaseException) -> Ended:
        """After an exception, whatever it is: SystemExit too is only a failed attempt."""
        if isinstance(error, Signal):
            return self._steered(task, context, error)
        if isinstance(error, JobCancelled) and context.told is not None:
            # Its own, through check(); else it is that of a job it waited for.
            reason = "cancelled while it ran"
            return Ended(context.claim, "cancelled", State.CANCELLED, reason=reason)
        return self._errored(task, context, error)

    def outcome(
        self,
        task: Task[..., Any],
        context: Attempt,
        ended: Ended | None,
        text: str | None,
        reason: str | None,
    ) -> Outcome:
        """The whole outcome: how it ended, or its result, and for how long it ran and waited."""
        claim = context.claim
        duration = time.perf_counter() - context.began
        wait = (claim.started_at - claim.run_at).total_seconds()
        if wait < 0:
            wait = 0.0
        if context.finishing:
            ended = self._within(task, context, ended)
        if ended is not None:
            return ended._replace(duration=duration, wait=wait)
        return Succeeded(claim, text, reason, duration, wait)

    def timed_out(self, context: Attempt, stack: str) -> Outcome:
        """The outcome of a handler that ignores its deadline; `stack` is where it is."""
        claim = context.claim
        error = AttemptError(
            AttemptTimeout.__name__,
            f"still running {context.overdue():.1f} s after its time was up",
            clean(stack) or None,
        )
        task = self._registry.find(claim.task)
        assert task is not None, "its handler runs"
        ended = self._ran_out(task, context, "timed out", error)
        return self.outcome(task, context, ended, None, None)

    def apart(self, task: Task[..., Any], context: Attempt, answer: Answer) -> Outcome:
        """How a job in a child process ended: as the child says, or as its death tells."""
        if isinstance(answer, Succeeded | Ended):
            return answer
        if isinstance(answer, Unfit):
            why = "its child process could not import it"
            ended = self._ran_out(task, context, "errored", answer.error)
            return ended._replace(reason=ended.reason or why, duration=0.0)
        ended = self._died(task, context, answer)
        outcome = self.outcome(task, context, ended, None, None)
        assert isinstance(outcome, Ended), "it did not succeed"
        return outcome._replace(exit_signal=answer.signal, peak_memory=answer.peak_memory)

    def _died(self, task: Task[..., Any], context: Attempt, death: Death) -> Ended:
        claim = context.claim
        if context.told is not None and not death.late:
            reason = "cancelled while it ran"
            return Ended(claim, "cancelled", State.CANCELLED, reason=reason)
        if death.late:
            why = (
                f"ended by {death.signal or death} {context.overdue():.1f} s after its time was up"
            )
            if not death.begun:
                why = "its child process did not import it in time, and was killed"
            error = AttemptError(AttemptTimeout.__name__, why, None)
            return self._ran_out(task, context, "timed out", error)
        how = f"crashed: {death}"
        error = AttemptError("Crashed", how, None)
        ended = self._ran_out(task, context, "crashed", error)
        if claim.child_crashes + 1 >= self._max_crashes:
            ended = Ended(claim, "crashed", State.FAILED, error=error)
        return ended._replace(reason=how, crash=True)

    def unknown(self, claim: Claim) -> Ended:
        """A newer program may have enqueued it, and a newer worker may know it: wait, uncharged."""
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
        return Ended(
            claim,
            "unknown task",
            State.SCHEDULED,
            delay=UNKNOWN_TASK_REST,
            refund=True,
            reason=f"no worker that claimed it knows the task {claim.task!r}",
        )

    def _steered(self, task: Task[..., Any], context: Attempt, signal: Signal) -> Ended:
        try:
            return self._obeyed(task, context, signal)
        except Exception as error:  # noqa: BLE001 - a signal of the user's own may do anything.
            return self._errored(task, context, error)

    def _obeyed(self, task: Task[..., Any], context: Attempt, signal: Signal) -> Ended:
        claim = context.claim
        if isinstance(signal, Cancel):
            return Ended(claim, "cancelled", State.CANCELLED, reason=_reason(signal))
        if isinstance(signal, Retry):
            return self._errored(task, context, signal, delay=signal.delay)
        if not isinstance(signal, Snooze):
            raise TypeError(f"{type(signal).__name__} is no Snooze, Retry or Cancel")
        why = None
        if claim.once:
            why = "it asked to be snoozed, but max_attempts=1 allows one start only"
        elif claim.snoozes >= self._max_snoozes:
            why = f"it was snoozed {counted(claim.snoozes, 'time')}, the most that is allowed"
        elif _bounded(signal.delay) >= context.budget():
            why = "it asked to be snoozed beyond its deadline"
        if why is not None:
            error = AttemptError("Snooze", why, None)
            return Ended(claim, "errored", State.FAILED, reason=why, error=error)
        return Ended(
            claim,
            "snoozed",
            State.SCHEDULED,
            delay=_bounded(signal.delay),
            refund=True,
            snooze=True,
            reason=_reason(signal.reason) or "snoozed",
        )

    def _errored(
        self,
        task: Task[..., Any],
        context: Attempt,
        error: BaseException,
        *,
        delay: float | None = None,
    ) -> Ended:
        outcome = "timed out" if isinstance(error, AttemptTimeout) else "errored"
        described = describe(error)
        if isinstance(error, Described) and error.final:
            return Ended(context.claim, outcome, State.FAILED, error=described)
        return self._ran_out(task, context, outcome, described, delay=delay)

    def _ran_out(
        self,
        task: Task[..., Any],
        context: Attempt,
        outcome: str,
        error: AttemptError,
        *,
        delay: float | None = None,
    ) -> Ended:
        """An attempt that errored: another one after the backoff, or none if none is left."""
        claim = context.claim
        if claim.attempt >= claim.max_attempts:
            return Ended(claim, outcome, State.FAILED, error=error)
        delay = _bounded(_backoff(task, claim) if delay is None else delay)
        if delay >= context.budget():
            reason = "its deadline leaves no time for another attempt"
            return Ended(claim, outcome, State.FAILED, error=error, reason=reason)
        return Ended(claim, outcome, State.SCHEDULED, delay=delay, error=error)

    def _within(self, task: Task[..., Any], context: Attempt, ended: Ended | None) -> Ended:
        """After `finish_within`: what to record if its transaction was not committed after all."""
        if ended is None:
            why = "finish_within was called, but its transaction was not committed"
            error = AttemptError(NOT_COMMITTED, why, None)
            ended = self._ran_out(task, context, "errored", error)
            ended = ended._replace(reason=ended.reason or why)
        return ended._replace(within=True)


def encode(task: Task[..., Any], claim: Claim, result: object) -> tuple[str | None, str | None]:
    """The result as text; a result that cannot be stored never makes the work undone."""
    try:
        return task.codec.encode_result(result), None
    except (JobQueueError, TypeError, ValueError, RecursionError) as error:
        reason = _reason(f"the result was dropped: {error}")
        log.warning("job %d (%s): %s", claim.id, claim.task, reason, extra=about(claim))
        return None, reason


def refused(claim: Claim, error: Exception) -> Ended:
    """The task no longer takes what was stored for it."""
    described = describe(error)._replace(traceback=None)
    reason = "its arguments do not fit the task any more"
    return Ended(claim, "refused", State.FAILED, reason=reason, error=described)


def too_late(claim: Claim) -> Ended:
    """Its deadline came before an attempt could begin."""
    reason = "its deadline passed before this attempt could begin"
    error = AttemptError("DeadlinePassed", reason, None)
    return Ended(claim, "timed out", State.FAILED, refund=True, reason=reason, error=error)


def _backoff(task: Task[..., Any], claim: Claim) -> float:
    """The call's own backoff, else the task's as this worker knows it, else the default."""
    if claim.backoff:
        try:
            return Backoff.from_text(claim.backoff).delay(claim.attempt)
        except (TypeError, ValueError, ArithmeticError) as error:  # It was written with plain SQL.
            why = f"its backoff is of no use: {error}"
            log.warning("job %d (%s): %s", claim.id, claim.task, why, extra=about(claim))
    return (task.settings.backoff or DEFAULT_BACKOFF).delay(claim.attempt)


def _reason(given: object) -> str:
    return clean(str(given)[:_REASON_MAX])[:_REASON_MAX]


def _bounded(delay: float) -> float:
    return min(max(delay, 0.0), SECONDS_MAX) if delay == delay else 0.0  # noqa: PLR0124 - NaN.
