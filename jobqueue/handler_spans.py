"""What tracing integrations share: a handler within a span, and headers that carry a trace."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from jobqueue.errors import Cancel, ClaimLost, InvalidOption, JobCancelled, Snooze
from jobqueue.loggers import get_logger
from jobqueue.tasks import Call
from jobqueue.worker.execute.event_loop import meant
from jobqueue.worker.handler.context import JobContext, running_attempt
from jobqueue.worker.handler.describe import type_name

log = get_logger("jobqueue.worker")

_NOT_ERRORS = {Snooze: "snoozed", Cancel: "cancelled", JobCancelled: "cancelled", ClaimLost: "lost"}


class HandlerSpan(Protocol):
    """A span of an attempt, or of an enqueue."""

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which spans of the handler become children of this one."""

    def end(self, error: BaseException | None) -> None:
        """End it; `error` is what the handler raised. Raises nothing."""


def installed(kind: type, middleware: Iterable[object]) -> bool:
    """Return whether a method of an object of `kind` is among the middleware."""
    return any(isinstance(getattr(each, "__self__", None), kind) for each in middleware)


@contextmanager
def harmless(system: str) -> Iterator[None]:
    """Log an error of what reports to a system, its hooks and transport: it fails no job."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a hook or a transport may do anything.
        log.warning("not reported to %s: %s: %s", system, type_name(type(error)), error)


def run_within(span: HandlerSpan, run: Callable[[], Any]) -> Any:
    """Run a handler, and await what it returns, within a span, which ends with it."""
    try:
        with span.current():
            result = run()
    except BaseException as error:
        span.end(error)
        raise
    if inspect.isawaitable(result):
        return _awaited(span, result)
    span.end(None)
    return result


async def _awaited(span: HandlerSpan, result: Awaitable[Any]) -> Any:
    try:
        with span.current():
            value = await result
    except BaseException as error:
        attempt = running_attempt()
        # A coroutine learns by a CancelledError that it is cancelled, or that its time is up.
        span.end(error if attempt is None else meant(attempt, error))
        raise
    span.end(None)
    return value


def outcome_without_error(error: BaseException | None) -> str | None:
    """Return the outcome for an exception that is not a failure; None for any other."""
    found = (word for kind, word in _NOT_ERRORS.items() if isinstance(error, kind))
    return next(found, None)


def carrying(call: Call[Any], headers: Mapping[str, str]) -> Call[Any]:
    """Return a call whose job carries a trace; without it if the headers would be too many."""
    try:
        return call.with_headers(headers) if headers else call
    except InvalidOption as error:  # Telemetry never refuses a job.
        log.debug("%s: enqueued without its trace: %s", call.task.name, error)
        return call


def carried(context: JobContext) -> dict[str, str]:
    """Return the headers of a job; none if plain SQL has written something else there."""
    try:
        return context.headers
    except InvalidOption:
        return {}
