"""Runs the handler of a job to its outcome: in a thread, on an event loop, in a child process."""

import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import CoroutineType, TracebackType
from typing import Any

from jobqueue import fork_guard
from jobqueue.errors import JobQueueError
from jobqueue.records import Outcome, Succeeded, Unsuccessful
from jobqueue.worker.handler import outcomes
from jobqueue.worker.handler.context import Attempt, JobContext, enter
from jobqueue.worker.log_context import about, log

Middleware = Callable[[JobContext, Callable[[], Any]], Any]
Completion = Callable[[Attempt, Coroutine[Any, Any, Any]], Any]


class HandlerRunner:
    """Runs handlers within their middleware. May be used from any thread."""

    def __init__(self, middleware: Sequence[Middleware], max_snoozes: int) -> None:
        self._middleware = middleware
        self._max_snoozes = max_snoozes
        self.complete: Completion | None = None
        """Runs the coroutine that a handler returned to a thread, and returns its result."""

    def run(self, context: Attempt, args: Sequence[Any], kwargs: dict[str, Any]) -> Outcome:
        """Run a handler to its outcome; never raises, whatever the handler does.

        Call it in a `contextvars.Context` of its own: `current_job()` is in it from here on.
        """
        ended: Unsuccessful | None = None
        text = reason = None
        enter(context)
        forks = fork_guard.forks  # As `EndForks`, without its three calls for each job.
        try:
            if self._middleware:
                result = self._call(context, args, kwargs)
            else:
                result = context.task.function(*args, **kwargs)
            if type(result) is CoroutineType:
                result = self._complete(context, result)
            if fork_guard.forks != forks:
                fork_guard.end(None)
            text, reason = _encode(context, result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is how the attempt ended.
            if fork_guard.forks != forks:
                fork_guard.end(error)
            ended = self.failed(context, error)
        if context.finishing:
            context.leave_transaction()
        return _outcome(context, ended, text, reason)

    async def run_async(
        self,
        context: Attempt,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        wait: Callable[[Attempt, Awaitable[Any]], Awaitable[Any]],
    ) -> Outcome:
        """`run` on an event loop; `wait` awaits what the handler returned, within its time."""
        ended: Unsuccessful | None = None
        text = reason = None
        enter(context)
        try:
            with EndForks():
                result = self._call(context, args, kwargs)
                if inspect.isawaitable(result):
                    result = await wait(context, result)
            text, reason = _encode(context, result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is how the attempt ended.
            ended = self.failed(context, error)
        await context.aleave_transaction()
        return _outcome(context, ended, text, reason)

    def failed(self, context: Attempt, error: BaseException) -> Unsuccessful:
        """How an attempt ended whose handler has raised this."""
        return outcomes.from_exception(context, error, self._max_snoozes)

    def _call(self, context: Attempt, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        function = context.task.function
        if not self._middleware:
            return function(*args, **kwargs)

        def innermost() -> Any:
            return function(*args, **kwargs)

        run: Callable[[], Any] = innermost
        seen = JobContext(context)
        for middleware in reversed(self._middleware):
            run = _around(middleware, seen, run)
        return run()

    def _complete(self, context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
        task = context.task
        if self.complete is not None and (task.is_async or task.wraps_async):
            return self.complete(context, coroutine)
        coroutine.close()
        raise TypeError("the task returned a coroutine that nobody awaits")


class EndForks:
    """A block that only the worker's own process leaves.

    A handler may fork. The child is a copy of the worker, with its claims and connections: it ends
    where the handler returns or raises, and where the event loop would go on in it.
    """

    def __init__(self, forks: int | None = None) -> None:
        self._forks = fork_guard.forks if forks is None else forks

    def __enter__(self) -> None:
        if fork_guard.forks != self._forks:
            fork_guard.end(None)

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if fork_guard.forks != self._forks:
            fork_guard.end(error)


def _encode(context: Attempt, result: object) -> tuple[str | None, str | None]:
    """The result as text; a result that cannot be stored never makes the work undone."""
    claim = context.claim
    try:
        return context.task.codec.encode_result(result), None
    except (JobQueueError, TypeError, ValueError, RecursionError) as error:
        reason = outcomes.bounded_reason(f"the result was dropped: {error}")
        log.warning("job %d (%s): %s", claim.id, claim.task, reason, extra=about(claim))
        return None, reason


def _outcome(
    context: Attempt, ended: Unsuccessful | None, text: str | None, reason: str | None
) -> Outcome:
    """The whole outcome, with its durations: how the attempt ended, or the text of its result."""
    if ended is not None or context.finishing:
        return outcomes.completed(context, ended)
    claim = context.claim
    wait = (claim.started_at - claim.run_at).total_seconds()
    duration = time.perf_counter() - context.began
    return Succeeded(claim, text, reason, duration, wait if wait > 0 else 0.0)


def _around(
    middleware: Middleware, context: JobContext, run: Callable[[], Any]
) -> Callable[[], Any]:
    return lambda: middleware(context, run)
