"""The executor: one thread that takes claims from the inbox and runs them to their outcome."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import CoroutineType
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
from jobqueue.options import DEFAULT_BACKOFF, SECONDS_MAX, Backoff
from jobqueue.records import AttemptError, Claim, Ended, Outcome, Succeeded
from jobqueue.states import State
from jobqueue.store.transactions import UserTransactions
from jobqueue.tasks import Registry, Task
from jobqueue.worker.context import JobContext, clean, enter, leave, time_left
from jobqueue.worker.exit import NOT_COMMITTED
from jobqueue.worker.failure import describe
from jobqueue.worker.inflight import InFlight

log = logging.getLogger("jobqueue.worker")

Middleware = Callable[[JobContext, Callable[[], Any]], Any]

UNKNOWN_TASK_REST = 10.0  # seconds
UNKNOWN_TASKS_MAX = 1000  # names for which it is remembered when they were logged last
_OWN_FRAMES = 1
_REASON_MAX = 1000  # characters


class Executor:
    """Runs claims one after another until it is handed None."""

    def __init__(
        self,
        inflight: InFlight,
        registry: Registry,
        transactions: UserTransactions,
        *,
        middleware: Sequence[Middleware] = (),
        max_snoozes: int,
        finished: Callable[[], None],
    ) -> None:
        self._inflight = inflight
        self._registry = registry
        self._transactions = transactions
        self._middleware = middleware
        self._max_snoozes = max_snoozes
        self._finished = finished
        self._unknown: dict[str, float] = {}

    def loop(self, retired: threading.Event | None = None) -> None:
        """The thread's life, until it is handed None or was retired while a handler ran."""
        inflight = self._inflight
        while (claim := inflight.inbox.get()) is not None:
            while not inflight.lease.good() and inflight.is_held(claim):
                inflight.lease.wait(0.5)  # The first heartbeat that lands decides.
            if not inflight.is_held(claim):
                inflight.let_go(claim)
                continue
            if inflight.unwanted and (claim.id, claim.fence) in inflight.unwanted:
                inflight.outbox.put(Ended(claim, "cancelled", State.CANCELLED, refund=True))
            else:
                try:
                    self.work(claim)
                except BaseException as error:
                    # Such as a column that plain SQL has filled with something else.
                    log.exception("job %d (%s) could not be run", claim.id, claim.task)
                    inflight.running.pop((claim.id, claim.fence), None)
                    why = Ended(claim, "errored", State.FAILED, error=describe(error))
                    inflight.outbox.put(why)
            inflight.let_go(claim)
            self._finished()
            if retired is not None and retired.is_set():
                return

    def work(self, claim: Claim) -> None:
        """Run one claim and put its outcome into the outbox; never raises."""
        task = self._registry.find(claim.task)
        if task is None:
            self._inflight.outbox.put(self._wait_for_task(claim))
            return
        if time_left(claim) <= 0:
            self._inflight.outbox.put(_too_late(claim))
            return
        try:
            args, kwargs = task.codec.decode(claim.args)
        except Exception as error:  # noqa: BLE001 - a user's type may raise anything when made.
            self._inflight.outbox.put(_refused(claim, error))
            return
        context = JobContext(claim, self._transactions, task.codec.encode_result)
        self._inflight.begin(context)
        outcome = self.run(task, context, claim, args, kwargs)
        self._inflight.end(context, outcome)

    def run(
        self,
        task: Task[..., Any],
        context: JobContext,
        claim: Claim,
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Outcome:
        """Run the handler to its outcome; never raises, whatever the handler does."""
        ended: Ended | None = None
        text = reason = None
        token = enter(context)
        try:
            if self._middleware:
                result = self._wrapped(task, context, args, kwargs)
            else:
                result = task.function(*args, **kwargs)
            if type(result) is CoroutineType:
                result.close()
                raise TypeError("the task returned a coroutine that nobody awaits")  # noqa: TRY301
            text, reason = _encode(task, claim, result)
        except Signal as signal:
            ended = self._steered(task, context, signal)
        except JobCancelled as error:  # Its own, through check(); or that of a job it waited for.
            ended = (
                Ended(claim, "cancelled", State.CANCELLED, reason="cancelled while it ran")
                if context.cancelled
                else self._errored(task, context, error)
            )
        except BaseException as error:  # noqa: BLE001 - SystemExit too is only a failed attempt.
            ended = self._errored(task, context, error)
        finally:
            leave(token)
        duration = time.perf_counter() - context.began
        wait = max(0.0, (claim.started_at - claim.run_at).total_seconds())
        if context.leave_transaction():
            return self._within(task, context, ended)._replace(duration=duration, wait=wait)
        if ended is not None:
            return ended._replace(duration=duration, wait=wait)
        return Succeeded(claim, text, reason, duration, wait)

    def _wrapped(
        self, task: Task[..., Any], context: JobContext, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        def innermost() -> Any:
            return task.function(*args, **kwargs)

        run: Callable[[], Any] = innermost
        for middleware in reversed(self._middleware):
            run = _around(middleware, context, run)
        return run()

    def _steered(self, task: Task[..., Any], context: JobContext, signal: Signal) -> Ended:
        try:
            return self._obeyed(task, context, signal)
        except Exception as error:  # noqa: BLE001 - a signal of the user's own may do anything.
            return self._errored(task, context, error)

    def _obeyed(self, task: Task[..., Any], context: JobContext, signal: Signal) -> Ended:
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
            why = f"it was snoozed {claim.snoozes} times, the most that is allowed"
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
        context: JobContext,
        error: BaseException,
        *,
        delay: float | None = None,
    ) -> Ended:
        outcome = "timed out" if isinstance(error, AttemptTimeout) else "errored"
        return self._ran_out(task, context, outcome, describe(error, skip=_OWN_FRAMES), delay=delay)

    @staticmethod
    def _ran_out(
        task: Task[..., Any],
        context: JobContext,
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

    def _within(self, task: Task[..., Any], context: JobContext, ended: Ended | None) -> Ended:
        """After `finish_within`: what to record if its transaction was not committed after all."""
        if ended is None:
            why = "finish_within was called, but its transaction was not committed"
            error = AttemptError(NOT_COMMITTED, why, None)
            ended = self._ran_out(task, context, "errored", error)
            ended = ended._replace(reason=ended.reason or why)
        return ended._replace(within=True)

    def timed_out(self, context: JobContext, stack: str) -> Ended:
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
        return ended._replace(
            duration=time.perf_counter() - context.began,
            wait=max(0.0, (claim.started_at - claim.run_at).total_seconds()),
            within=context.finishing,
        )

    def _wait_for_task(self, claim: Claim) -> Ended:
        """A newer program may have enqueued it, and a newer worker may know it: wait, uncharged."""
        present = time.monotonic()
        if len(self._unknown) > UNKNOWN_TASKS_MAX:
            self._unknown.clear()
        if present - self._unknown.get(claim.task, float("-inf")) >= 60:  # noqa: PLR2004
            self._unknown[claim.task] = present
            log.warning(
                "no task is named %r in this worker: job %d and its like wait", claim.task, claim.id
            )
        return Ended(
            claim,
            "unknown task",
            State.SCHEDULED,
            delay=UNKNOWN_TASK_REST,
            refund=True,
            reason=f"no worker that claimed it knows the task {claim.task!r}",
        )


def _around(
    middleware: Middleware, context: JobContext, run: Callable[[], Any]
) -> Callable[[], Any]:
    return lambda: middleware(context, run)


def _encode(task: Task[..., Any], claim: Claim, result: object) -> tuple[str | None, str | None]:
    """The result as text; a result that cannot be stored never makes the work undone."""
    try:
        return task.codec.encode_result(result), None
    except (JobQueueError, TypeError, ValueError, RecursionError) as error:
        reason = _reason(f"the result was dropped: {error}")
        log.warning("job %d (%s): %s", claim.id, claim.task, reason)
        return None, reason


def _refused(claim: Claim, error: Exception) -> Ended:
    described = describe(error)._replace(traceback=None)
    reason = "its arguments do not fit the task any more"
    return Ended(claim, "refused", State.FAILED, reason=reason, error=described)


def _too_late(claim: Claim) -> Ended:
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
            log.warning("job %d (%s): its backoff is of no use: %s", claim.id, claim.task, error)
    return (task.settings.backoff or DEFAULT_BACKOFF).delay(claim.attempt)


def _reason(given: object) -> str:
    return clean(str(given)[:_REASON_MAX])[:_REASON_MAX]


def _bounded(delay: float) -> float:
    return min(max(delay, 0.0), SECONDS_MAX) if delay == delay else 0.0  # noqa: PLR0124 - NaN.
