"""Decides whether an attempt that failed is followed by another one, and when."""

from jobqueue.backoff import Backoff
from jobqueue.options import DEFAULT_BACKOFF, SECONDS_MAX
from jobqueue.records import AttemptError, Unsuccessful
from jobqueue.states import OutcomeKind, State
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.log_context import about, log


def retry_or_fail(
    context: Attempt, outcome: OutcomeKind, error: AttemptError, *, delay: float | None = None
) -> Unsuccessful:
    """The end of an attempt that failed: another one after the backoff, or none if none is left."""
    claim = context.claim
    if claim.attempt >= claim.max_attempts:
        return Unsuccessful(claim, outcome, State.FAILED, error=error)
    delay = bounded_delay(_backoff(context) if delay is None else delay)
    if delay >= context.budget():
        reason = "its deadline leaves no time for another attempt"
        return Unsuccessful(claim, outcome, State.FAILED, error=error, reason=reason)
    return Unsuccessful(claim, outcome, State.SCHEDULED, delay=delay, error=error)


def _backoff(context: Attempt) -> float:
    """The call's own backoff, else the task's as this worker knows it, else the default."""
    claim = context.claim
    if claim.backoff:
        try:
            return Backoff.from_text(claim.backoff).delay(claim.attempt)
        except (TypeError, ValueError, ArithmeticError) as error:  # It was written with plain SQL.
            why = f"its backoff is of no use: {error}"
            log.warning("job %d (%s): %s", claim.id, claim.task, why, extra=about(claim))
    return (context.task.settings.backoff or DEFAULT_BACKOFF).delay(claim.attempt)


def bounded_delay(delay: float) -> float:
    """Return seconds that can be stored; 0 for a negative delay and for NaN."""
    return min(max(delay, 0.0), SECONDS_MAX) if delay == delay else 0.0  # noqa: PLR0124 - NaN.
