"""Parse the VALUEs of a command line into a call of a task."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobqueue.cli.params import clean
from jobqueue.errors import InvalidArguments
from jobqueue.json_calls import make_call
from jobqueue.serialization.codec import Codec
from jobqueue.serialization.json_values import parse_json
from jobqueue.tasks import Call, Task


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

    def chosen(self, codec: Codec, place: int | str) -> Any:
        """Return what the task takes there: the JSON, else the text. Raises InvalidArguments."""
        if self.refusal is None and (self.text is None or codec.takes(place, self.parsed)):
            return self.parsed
        if codec.takes(place, self.text):
            return self.text
        if self.refusal is not None:
            raise self.refusal
        return self.parsed  # The codec says what is wrong with it.


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
    for value in (*args, *kwargs.values()):
        if value.refusal is not None and not annotated:
            raise value.refusal
    codec = task.codec
    chosen = [value.chosen(codec, place) for place, value in enumerate(args)]
    named = {key: value.chosen(codec, key) for key, value in kwargs.items()}
    return make_call(task, chosen, named, changes)
