"""Calls that came as JSON: a line of `enqueue --from`, or the body of a request."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from jobqueue import options
from jobqueue.errors import InvalidArguments, InvalidOption, UnknownTask
from jobqueue.job import Job
from jobqueue.options import Options
from jobqueue.serialization.codec import Codec
from jobqueue.tasks import Call, Registry, Task

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
    """Which tasks may be enqueued: those of an app, or without one any of a valid name."""

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry
        self._strangers: dict[str, Task[..., Any]] = {}

    def find(self, name: object) -> Task[..., Any]:
        """The task of that name. Raises InvalidOption or UnknownTask."""
        known = options.name(name, "task")
        registry = self._registry
        if registry is None:
            return self._stranger(known)
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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
