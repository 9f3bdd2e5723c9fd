"""Parse the VALUEs of a command line into a call of a task."""

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobqueue.cli.params import clean
from jobqueue.errors import InvalidArguments
from jobqueue.serialization.json_values import parse_json
from jobqueue.tasks import Call, Task
from jobqueue.wire import make_call


@dataclass
class Value:
    """One VALUE: its text (None: it was given as JSON), and what that means as JSON."""

    text: str | None
    parsed: Any
    refusal: InvalidArguments | None = None
    """Why it is not taken for JSON although it has JSON's grammar."""

    @staticmethod
    def of(text: str, what: str) -> "Value":
        """Parse a VALUE: as JSON if it is valid JSON, otherwise as text."""
        if not _is_json(text):
            return Value(text, clean(text, what))
        try:
            return Value(text, parse_json(text, what=what))
        except InvalidArguments as error:
            # JSON that cannot be kept (an integer of 400 digits, say) may still be text.
            return Value(text, text, error)


def _is_json(text: str) -> bool:
    """True for text that has JSON's grammar, whether or not it can be kept."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _refuse(literal: str) -> None:
    raise ValueError(literal)


def split(words: tuple[str, ...]) -> tuple[list[Value], dict[str, Value]]:
    """Split words into VALUEs and KEY=VALUEs: a KEY is an identifier."""
    args: list[Value] = []
    kwargs: dict[str, Value] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            args.append(Value.of(word, f"VALUE {len(args) + 1}"))
        elif key in kwargs:
            raise InvalidArguments(f"{key}: given twice", field=key, value=text)
        else:
            kwargs[key] = Value.of(text, key)
    return args, kwargs


def guess_call(
    task: Task[..., Any],
    args: list[Value],
    kwargs: dict[str, Value],
    changes: Mapping[str, Any],
    *,
    annotated: bool,
) -> Call[Any]:
    """Return a call whose VALUEs are read by the task's annotations.

    A VALUE that does not fit as JSON is tried as text: for a `str`, `5` is "5".
    """
    everything = [*args, *kwargs.values()]
    for value in everything:
        if value.refusal is not None and not annotated:
            raise value.refusal
    parameters = inspect.signature(task.function).parameters.values() if annotated else ()
    chosen = [value.parsed for value in everything]
    errors: dict[int, InvalidArguments] = {}  # Of each VALUE as JSON, by its position.
    while True:
        named = dict(zip(kwargs, chosen[len(args) :], strict=True))
        try:
            return make_call(task, chosen[: len(args)], named, changes)
        except InvalidArguments as error:
            place = _place(error.field, list(parameters), len(args), list(kwargs))
            if place is None:
                raise
            value = everything[place]
            if value.text is None or chosen[place] is value.text:
                raise errors.get(place, value.refusal or error) from None
            chosen[place], errors[place] = value.text, error


def _place(
    path: str | None, parameters: list[inspect.Parameter], count: int, names: list[str]
) -> int | None:
    """Return the position of the argument that an error's path names (`x`, `x.y`, `rest[2]`)."""
    match = re.match(r"(\w+)(?:\[(\d+)\])?", path or "")
    if match is None:
        return None
    name, index = match[1], int(match[2] or 0)
    if name in names:
        return count + names.index(name)
    for position, parameter in enumerate(parameters):
        if parameter.name == name:
            rest = index if parameter.kind is parameter.VAR_POSITIONAL else 0
            return position + rest if position + rest < count else None
    return None
