"""How attempts end: from what a handler did to the outcome that is recorded."""

import time

from msgspec.structs import replace

from jobqueue.errors import AttemptTimeout, Cancel, JobCancelled, Retry, Signal, Snooze
from jobqueue.records import INTERRUPTED, NOT_COMMITTED, AttemptError, Claim, Unsuccessful, counted
from jobqueue.states import OutcomeKind, State
from jobqueue.worker.handler.context import Attempt, clean
from jobqueue.worker.handler.describe import RecordedError, describe, type_name
from jobqueue.worker.handler.retries import bounded_delay, retry_or_fail

UNBEGUN = "given back before it began"
"""Why a claim was released."""
UNKNOWN_TASK_DELAY = 10.0  # seconds
_REASON_MAX = 1000  # characters


def from_exception(context: Attempt, error: BaseException, max_snoozes: int) -> Unsuccessful:
    """The end of an attempt whose handler raised this; SystemExit too is only a failed attempt."""
    if isinstance(error, Signal):
        try:
            return from_signal(context, error, max_snoozes)
        except Exception as worse:  # noqa: BLE001 - a signal of the user's own may do anything.
            return _errored(context, worse)
    if isinstance(error, JobCancelled) and context.stop_reason is not None:
        # Raised by check(); otherwise it is about a job that the handler waited for.
        return cancelled(context.claim)
    return _errored(context, error)


def from_signal(context: Attempt, signal: Signal, max_snoozes: int) -> Unsuccessful:
    """The end of an attempt that asked to be snoozed, retried or cancelled."""
    claim = context.claim
    if isinstance(signal, Cancel):
        return cancelled(claim, bounded_reason(signal))
    if isinstance(signal, Retry):
        return _errored(context, signal, delay=signal.delay)
    if not isinstance(signal, Snooze):
        raise TypeError(f"{type(signal).__name__} is not a Snooze, Retry or Cancel")
    why = None
    if claim.at_most_once:
        why = "it asked to be snoozed, but max_attempts=1 allows one start only"
    elif claim.snoozes >= max_snoozes:
        why = f"it was snoozed {counted(claim.snoozes, 'time')}, the most that is allowed"
    elif bounded_delay(signal.delay) >= context.budget():
        why = "it asked to be snoozed beyond its deadline"
    if why is not None:
        error = AttemptError(type_name(Snooze), why, None)
        return Unsuccessful(claim, OutcomeKind.ERRORED, State.FAILED, reason=why, error=error)
    return Unsuccessful(
        claim,
        OutcomeKind.SNOOZED,
        State.SCHEDULED,
        delay=bounded_delay(signal.delay),
        refund=True,
        snooze=True,
        reason=bounded_reason(signal.reason) or "snoozed",
    )


def completed(context: Attempt, ended: Unsuccessful | None) -> Unsuccessful:
    """The whole outcome, with its durations; `ended` is None only after `finish_within`."""
    claim = context.claim
    if context.finishing:
        ended = _within(context, ended)
    assert ended is not None, "a handler that returned has succeeded, unless by finish_within"
    wait = max(0.0, (claim.started_at - claim.run_at).total_seconds())
    return replace(ended, duration=time.perf_counter() - context.began, wait=wait)


def timed_out(context: Attempt, stack: str) -> Unsuccessful:
    """The outcome of a handler that ignores its deadline; `stack` is where it is."""
    error = AttemptError(
        type_name(AttemptTimeout),
        f"still running {context.overdue():.1f} s after its time was up",
        clean(stack) or None,
    )
    return completed(context, retry_or_fail(context, OutcomeKind.TIMED_OUT, error))


def cancelled(claim: Claim, reason: str | None = "cancelled while it ran") -> Unsuccessful:
    """The end of an attempt that was cancelled while it ran."""
    return Unsuccessful(claim, OutcomeKind.CANCELLED, State.CANCELLED, reason=reason)


def released(claim: Claim, reason: str | None = UNBEGUN) -> Unsuccessful:
    """The end of a claim that is given back, uncharged."""
    return Unsuccessful(claim, OutcomeKind.RELEASED, State.AVAILABLE, refund=True, reason=reason)


def interrupted(claim: Claim) -> Unsuccessful:
    """The end of a claim whose handler is detached: given back, or failed if it may start once."""
    if claim.at_most_once:
        kind = OutcomeKind.INTERRUPTED
        return Unsuccessful(claim, kind, State.FAILED, reason=INTERRUPTED, duration=0.0)
    return released(claim, INTERRUPTED)


def unknown_task(claim: Claim) -> Unsuccessful:
    """The end of a claim whose task this worker does not know: it waits, uncharged.

    A newer program may have enqueued it, and a newer worker may know it.
    """
    return Unsuccessful(
        claim,
        OutcomeKind.UNKNOWN_TASK,
        State.SCHEDULED,
        delay=UNKNOWN_TASK_DELAY,
        refund=True,
        reason=f"no worker that claimed it knows the task {claim.task!r}",
    )


def refused(claim: Claim, error: Exception) -> Unsuccessful:
    """The end of a claim whose stored arguments the task does not take any more."""
    described = describe(error)._replace(traceback=None)
    reason = "its arguments do not fit the task any more"
    return Unsuccessful(claim, OutcomeKind.REFUSED, State.FAILED, reason=reason, error=described)


def deadline_passed(claim: Claim) -> Unsuccessful:
    """The end of a claim whose deadline came before the attempt could begin."""
    reason = "its deadline passed before this attempt could begin"
    error = AttemptError("DeadlinePassed", reason, None)
    return Unsuccessful(
        claim, OutcomeKind.TIMED_OUT, State.FAILED, refund=True, reason=reason, error=error
    )


def cancelled_unbegun(claim: Claim, reason: str | None = None) -> Unsuccessful:
    """The end of a claim that was cancelled, or has expired, before the attempt began."""
    kind = OutcomeKind.CANCELLED
    return Unsuccessful(claim, kind, State.CANCELLED, refund=True, reason=reason)


def _errored(context: Attempt, error: BaseException, *, delay: float | None = None) -> Unsuccessful:
    outcome = OutcomeKind.TIMED_OUT if isinstance(error, AttemptTimeout) else OutcomeKind.ERRORED
    described = describe(error)
    if isinstance(error, RecordedError) and error.final:
        return Unsuccessful(context.claim, outcome, State.FAILED, error=described)
    return retry_or_fail(context, outcome, described, delay=delay)


def _within(context: Attempt, ended: Unsuccessful | None) -> Unsuccessful:
    """After `finish_within`: what to record if its transaction was not committed after all."""
    if ended is None:
        why = "finish_within was called, but its transaction was not committed"
        error = AttemptError(NOT_COMMITTED, why, None)
        ended = retry_or_fail(context, OutcomeKind.ERRORED, error)
        ended = replace(ended, reason=ended.reason or why)
    return replace(ended, within=True)


def bounded_reason(given: object) -> str:
    """Text that can be stored as a reason."""
    return clean(str(given)[:_REASON_MAX])[:_REASON_MAX]
