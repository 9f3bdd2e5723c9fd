"""What a function must be to be a task's, and what its annotations and decorators say."""

import inspect
import typing
from collections.abc import Callable
from typing import Any, Never, NoReturn

from jobqueue.errors import ConfigurationError
from jobqueue.serialization.json_values import shorten


def check(function: Callable[..., Any], name: str) -> None:
    """Raise ConfigurationError unless a function can be a task's."""
    reason = ""
    if not inspect.isfunction(function):
        reason = f"{shorten(function)} is not a function defined with def"
    elif function.__name__ == "<lambda>":
        reason = "a lambda has no name that another process could find"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        reason = "a generator yields more than the one result that a job has; return a list"
    elif not (function.__qualname__.rpartition(".")[0] or "<locals>").endswith("<locals>"):
        reason = "a method needs its object, which is not stored; use a function of the module"
    if reason:
        raise ConfigurationError(f"{name}: {reason}", field=name, value=function)


def annotations(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """The types of a function's parameters, and of what it returns; raises ConfigurationError."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        for parameter, annotation in inspect.get_annotations(function).items():
            alone = type("Alone", (), {"__annotations__": {parameter: annotation}})
            try:
                typing.get_type_hints(alone, globalns=scope)
            except Exception as cause:
                reason = f"{name}: parameter {parameter}: cannot resolve its annotation: {cause}"
                raise ConfigurationError(reason, field=parameter) from cause
        raise ConfigurationError(f"{name}: {error}") from error
    if hints.get("return") in (NoReturn, Never):  # It ends by raising; JSON knows no such type.
        hints["return"] = type(None)
    return hints


def hint(function: Callable[..., Any]) -> str:
    """What to add where arguments do not fit: a wrapper may take others than what it wraps."""
    if not hasattr(function, "__wrapped__") or hasattr(function, "__signature__"):
        return ""
    return "; a decorator that gives some of them itself must set wrapper.__signature__"


def wraps_coroutine(function: Callable[..., Any]) -> bool:
    """True for a plain wrapper around an `async def`, which may or may not return its coroutine."""
    return not inspect.iscoroutinefunction(function) and inspect.iscoroutinefunction(
        inspect.unwrap(function)
    )
