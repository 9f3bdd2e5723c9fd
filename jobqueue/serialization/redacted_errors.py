"""Errors about an argument that the task hides: without its value, which they would show."""

import inspect
import re
from collections.abc import Sequence

from jobqueue.errors import InvalidArguments

_Kind = inspect.Parameter
_FIRST = re.compile(r"\[['\"](.*?)['\"](…?)\]|[^.\[]*", re.DOTALL)
_PLACE = re.compile(r"args\[(\d+)\]")


def redact_error(
    error: InvalidArguments, hidden: Sequence[str], signature: inspect.Signature
) -> InvalidArguments:
    """Return a refusal as it is, or without the value if its path leads into a hidden argument.

    The first part of the path decides, and is all that is shown: the next may be a hidden key.
    """
    if not hidden or (first := _FIRST.match(error.field or "")) is None:
        return error
    parameters = signature.parameters
    name = first[1] or first[0]
    if name not in parameters and name not in hidden:
        others = (each.name for each in parameters.values() if each.kind is _Kind.VAR_KEYWORD)
        name = next(others, "")
    # Of a long name that is cut there is no telling which one it is.
    return _without_value(first[0]) if first[2] or name in hidden else error


def redact_plain_error(
    error: InvalidArguments, hidden: Sequence[str], signature: inspect.Signature
) -> InvalidArguments:
    """Do the same for a path of plain JSON: `args[1]`, `kwargs.token`."""
    path = error.field or ""
    if hidden and path in ("args", "kwargs"):
        return _without_value(path)
    found = path.removeprefix("kwargs").removeprefix(".")
    if place := _PLACE.match(path):
        named = (_Kind.KEYWORD_ONLY, _Kind.VAR_KEYWORD)
        taking = [each for each in signature.parameters.values() if each.kind not in named]
        found = taking[min(int(place[1]), len(taking) - 1)].name if taking else ""
    shown = redact_error(InvalidArguments("", field=found), hidden, signature)
    return shown if str(shown) else error


def _without_value(path: str) -> InvalidArguments:
    text = f"{path}: does not fit the annotation (its value is hidden)"
    return InvalidArguments(text, field=path)
