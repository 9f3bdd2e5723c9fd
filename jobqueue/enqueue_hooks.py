"""Hooks at the enqueue: each call passes them before it is inserted; and the check of calls."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from jobqueue.errors import ConfigurationError, InvalidArguments, type_of
from jobqueue.tasks import Call

R = TypeVar("R")

Send = Callable[[Call[Any]], Call[Any]]
EnqueueHook = Callable[[Call[Any], Send], Call[Any]]
"""`hook(call, send)` returns `send(call)`, with the call as it came or changed, or raises."""


def check_calls(calls: Iterable[Call[R]]) -> list[Call[R]]:
    """Return the calls given to `enqueue_many` as a list. Raises InvalidArguments."""
    if isinstance(calls, Call):
        raise InvalidArguments(
            "enqueue_many: a single call; write enqueue_many([task.call(…), …])",
            field="calls",
            value=calls,
        )
    given = list(calls)
    for place, call in enumerate(given):
        if not isinstance(call, Call):
            raise InvalidArguments(
                f"enqueue_many: item {place} is {type_of(call)}, not a call; write task.call(…)",
                field=f"calls[{place}]",
                value=call,
            )
    return given


def through_hooks(hooks: Sequence[EnqueueHook], calls: Sequence[Call[Any]]) -> list[Call[Any]]:
    """Pass each call through the hooks, the first one outermost; return what is to be inserted.

    All hooks have run before the first job is inserted. Raises what a hook raises, and
    ConfigurationError if one does not return a call.
    """
    send: Send = lambda call: call  # noqa: E731
    for hook in reversed(hooks):
        send = partial(_ask, hook, send)
    return [send(call) for call in calls]


def _ask(hook: EnqueueHook, send: Send, call: Call[Any]) -> Call[Any]:
    sent = hook(call, send)
    if not isinstance(sent, Call):
        raise ConfigurationError(
            f"the enqueue hook {getattr(hook, '__qualname__', repr(hook))} returned "
            f"{type_of(sent)}: write return send(call), or raise EnqueueRefused"
        )
    return sent
