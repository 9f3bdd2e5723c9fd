"""From what was written on the command line, or in a line of JSON, to a call of a task."""

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobqueue import options
from jobqueue.cli.app import did_you_mean
from jobqueue.codec import Codec
from jobqueue.errors import InvalidArguments, InvalidOption, UnknownTask
from jobqueue.job import Job
from jobqueue.options import Options
from jobqueue.queue import JobQueue
from jobqueue.tasks import Call, Task
from jobqueue.values import parse_json

OPTION_NAMES = (
    "queue",
    "priority",
    "delay",
    "at",
    "max_attempts",
    "timeout",
    "deadline",
    "unique_key",
    "unique_until",
    "tags",
)
_KNOWN = 8  # names in one message


class Tasks:
    """Which tasks may be enqueued: those of the app, or without one any of a valid name."""

    def __init__(self, app: JobQueue | None) -> None:
        self._app = app
        self._strangers: dict[str, Task[..., Any]] = {}

    def find(self, name: object) -> Task[..., Any]:
        """The task of that name. Raises InvalidOption or UnknownTask."""
        known = options.name(name, "task")
        if self._app is None:
            return self._stranger(known)
        registry = self._app.registry
        if known not in registry:
            names = sorted(registry)
            listed = ", ".join(names[:_KNOWN]) + (", …" if len(names) > _KNOWN else "")
            has = f"the app has {listed}" if names else "the app has no tasks"
            raise UnknownTask(
                f"no task is named {known!r}{did_you_mean(known, names)} ({has})",
                field="task",
                value=known,
            )
        return registry[known]

    def _stranger(self, name: str) -> Task[..., Any]:
        """A task of which only the name is known: it takes any plain JSON."""
        task = self._strangers.get(name)
        if task is None:

            def stranger(*args: Any, **kwargs: Any) -> Any: ...

            codec = Codec(stranger, name)
            task = self._strangers[name] = Task(stranger, name, Options(), codec, _never)
        return task


def _never(calls: object, within: object) -> list[Job[Any]]:
    raise NotImplementedError


def make_call(
    task: Task[..., Any], args: list[Any], kwargs: dict[str, Any], changes: Mapping[str, Any]
) -> Call[Any]:
    """A call of exact JSON values."""
    settings = task.settings.merge(dict(changes))
    return Call(task, task.codec.from_json(args, kwargs), settings)


@dataclass
class Value:
    """One VALUE: what it may mean, the first guess first."""

    text: str
    guesses: list[Any]
    refusal: InvalidArguments | None = field(default=None)

    @staticmethod
    def of(text: str, what: str) -> "Value":
        """Read a VALUE: JSON where it is JSON, otherwise text."""
        if not _is_json(text):
            return Value(text, [_clean(text, what)])
        try:
            return Value(text, [parse_json(text, what=what), text])
        except InvalidArguments as error:
            # JSON that cannot be kept (an integer of 400 digits, say) may still be text.
            return Value(text, [text], error)


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


def _clean(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        offset = len(text[: error.start].encode())
        raise InvalidArguments(
            f"{what}: invalid UTF-8 at byte offset {offset}", field=what, value=text
        ) from None
    return text


def split(words: tuple[str, ...]) -> tuple[list[Value], dict[str, Value]]:
    """Tell VALUEs and KEY=VALUEs apart: a KEY is an identifier."""
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
    """A call whose VALUEs are read by the task's annotations.

    A VALUE that does not fit as JSON is tried as text: for a `str`, `5` is "5".
    """
    everything = [*args, *kwargs.values()]
    for value in everything:
        if value.refusal is not None and not annotated:
            raise value.refusal
    # Positions in `everything` by the name that an error gives to an argument.
    parameters = inspect.signature(task.function).parameters.values() if annotated else ()
    chosen = [0] * len(everything)
    first_error: dict[int, InvalidArguments] = {}
    while True:
        values = [value.guesses[guess] for value, guess in zip(everything, chosen, strict=True)]
        named = dict(zip(kwargs, values[len(args) :], strict=True))
        try:
            return make_call(task, values[: len(args)], named, changes)
        except InvalidArguments as error:
            place = _place(error.field, list(parameters), len(args), list(kwargs))
            if place is None:
                raise
            value = everything[place]
            first_error.setdefault(place, value.refusal or error)
            if chosen[place] + 1 >= len(value.guesses):
                raise first_error[place] from None
            chosen[place] += 1


def _place(
    path: str | None, parameters: list[inspect.Parameter], count: int, names: list[str]
) -> int | None:
    """Which of the arguments an error is about, by its path (`x`, `x.y`, `rest[2]`)."""
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


def call_of_line(tasks: Tasks, line: Any, what: str) -> Call[Any]:
    """A call from one object of `enqueue --from`."""
    if not isinstance(line, dict):
        raise InvalidArguments(
            f'{what}: must be an object like {{"task": "add", "args": [2, 3]}}', field="line"
        )
    known = ("task", "args", "kwargs", *OPTION_NAMES)
    for key in line:
        if key not in known:
            raise InvalidOption(
                f"{what}: {key[:40]!r} is no key of a job; there are {', '.join(known)}"
                f"{did_you_mean(key, known)}",
                field=key[:40],
            )
    if "task" not in line:
        raise InvalidOption(f'{what}: names no "task"', field="task")
    changes = {name: line[name] for name in OPTION_NAMES if name in line}
    args, kwargs = line.get("args", []), line.get("kwargs", {})
    return make_call(tasks.find(line["task"]), args, kwargs, changes)
