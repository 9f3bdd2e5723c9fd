"""Calls that are read from JSON: a line of `enqueue --from`, or the body of a request."""

import functools
from collections.abc import Mapping
from typing import Any

from jobqueue import options
from jobqueue.errors import InvalidArguments, InvalidOption, UnknownTask
from jobqueue.job import Job
from jobqueue.new_jobs import conflict_of
from jobqueue.options import OptionChanges, Options
from jobqueue.printable_text import did_you_mean, listed, not_one
from jobqueue.serialization.codec import Codec
from jobqueue.tasks import Call, Registry, Task

OPTION_NAMES = tuple(name for name in OptionChanges.__annotations__ if name != "backoff")


def find_task(registry: Registry | None, name: object) -> Task[..., Any]:
    """Return the app's task of that name, or without an app one of any valid name.

    Raises InvalidOption or UnknownTask.
    """
    known = options.name(name, "task")
    if registry is None:
        return _undeclared(known)
    if known not in registry:
        names = sorted(registry)
        has = f"the app has {listed(names) or 'no tasks'}"
        raise UnknownTask(
            f"no task is named {known!r}{did_you_mean(known, names)} ({has})",
            field="task",
            value=known,
        )
    return registry[known]


@functools.cache
def _undeclared(name: str) -> Task[..., Any]:
    """Return a task for which only the name is known: it accepts any plain JSON."""

    def undeclared(*args: Any, **kwargs: Any) -> Any: ...

    return Task(undeclared, name, Options(), Codec(undeclared, name), _never)


def _never(calls: object, within: object) -> list[Job[Any]]:
    raise NotImplementedError


def make_call(
    task: Task[..., Any], args: list[Any], kwargs: dict[str, Any], changes: Mapping[str, Any]
) -> Call[Any]:
    """Build a call from exact JSON values. Raises InvalidArguments or InvalidOption."""
    settings = task.settings.merge(dict(changes))
    conflict_of(settings)
    return Call(task, task.codec.from_json(args, kwargs), settings)


def call_of_line(registry: Registry | None, line: Any, what: str) -> Call[Any]:
    """Build a call from one object of `enqueue --from`; `what` names it in errors."""
    if not isinstance(line, dict):
        raise InvalidArguments(
            f'{what}: must be an object like {{"task": "add", "args": [2, 3]}}', field="line"
        )
    known = ("task", "args", "kwargs", *OPTION_NAMES)
    for key in line:
        if key not in known:
            said = f"{what}: {not_one(key, 'a key of a job', known)}"
            raise InvalidOption(said, field=key[:40])
    if "task" not in line:
        raise InvalidOption(f'{what}: names no "task"', field="task")
    changes = {name: line[name] for name in OPTION_NAMES if name in line}
    args, kwargs = line.get("args", []), line.get("kwargs", {})
    return make_call(find_task(registry, line["task"]), args, kwargs, changes)
