"""JSON and text forms that the command line and the HTTP API share: jobs, calls, filters."""

import difflib
import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobqueue import options
from jobqueue.errors import InvalidArguments, InvalidOption, UnknownTask, invalid
from jobqueue.job import Job
from jobqueue.new_jobs import conflict_of
from jobqueue.options import OptionChanges, Options
from jobqueue.printable_text import listed
from jobqueue.records import JobFilter, JobRecord, Refusal
from jobqueue.serialization.codec import Codec
from jobqueue.serialization.json_values import INTEGER_MAX, shorten
from jobqueue.states import State
from jobqueue.store.jobs import Jobs
from jobqueue.tasks import Call, Registry, Task

OPTION_NAMES = tuple(name for name in OptionChanges.__annotations__ if name != "backoff")
_VALUE_LENGTH = 200  # characters of a wrong value
_DIGITS = re.compile(r"[0-9]{1,30}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)


# Output of --json and of HTTP responses


def job_json(job: JobRecord) -> dict[str, Any]:
    """Return the job object of the contract, also for a row that plain SQL has written."""
    try:
        return job.to_json()
    except (ValueError, TypeError, KeyError, RecursionError):
        bare = replace(job, args='{"args": [], "kwargs": {}}', result=None).to_json()
        return bare | {"args": None, "kwargs": None, "args_text": job.args}


def with_attempts(jobs: Jobs, job: JobRecord) -> dict[str, Any]:
    """Return the job object with its attempts."""
    return job_json(job) | {"attempts": [attempt.to_json() for attempt in jobs.attempts(job)]}


def changes(changed: Sequence[int], refused: Sequence[Refusal]) -> dict[str, Any]:
    """Return the result of a bulk verb: the number of changed jobs, and each refusal."""
    return {
        "changed": len(changed),
        "refused": [
            {"id": refusal.id, "state": refusal.state, "reason": refusal.reason}
            for refusal in refused
        ],
    }


def error_json(message: str, field: str | None = None, value: object = None) -> dict[str, Any]:
    """Return the error object of the contract; long or structured values are shortened."""
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    if not isinstance(value, bool | int | float | None):
        short = isinstance(value, str) and len(value) <= _VALUE_LENGTH
        value = value if short else shorten(value)
    return {"message": message, "field": field, "value": value}


# Calls in JSON: a line of `enqueue --from`, or the body of a request


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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean a or b?`, or an empty text without a similar name."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def not_one(word: str, of: str, known: Collection[str]) -> str:
    """Return that a word is none of those that are known, for a message."""
    there = f"there are {', '.join(known)}" if known else "there are none here"
    return f"{word[:40]!r} is not {of}; {there}{did_you_mean(word, known)}"


# Text that names or filters jobs


def job_id(text: str) -> int:
    """Parse a job's id; raise InvalidOption."""
    if not _DIGITS.fullmatch(text) or int(text) == 0:
        raise invalid(
            "id", f"{text[:40]!r} is not a job's id; ids are whole numbers from 1, such as 42", text
        )
    if int(text) > INTEGER_MAX:
        raise invalid("id", f"{text} is beyond 63 bits", text)
    return int(text)


def job_ids(texts: tuple[str, ...]) -> tuple[int, ...]:
    """Parse ids, in the order given, without duplicates."""
    return tuple(dict.fromkeys(map(job_id, texts)))


def action_id(text: str) -> int:
    """Parse the id of an action in the log; raise InvalidOption."""
    return options.whole(whole(text), "id", 1, INTEGER_MAX)


def whole(text: str) -> int | str:
    """Parse an integer; return any other text unchanged, for the range check to report."""
    return int(text) if _NUMBER.fullmatch(text) else text


def state(text: str | None) -> State | None:
    """Parse a state; raise InvalidOption."""
    if text is None:
        return None
    try:
        return State(text)
    except ValueError:
        raise invalid(
            "state",
            f"{text[:40]!r} is none of {', '.join(State)}{did_you_mean(text.lower(), list(State))}",
            text,
        ) from None


def since(text: str | None) -> datetime | None:
    """Parse an instant, or a duration before now such as `2h`."""
    if text is None:
        return None
    if text[:1].isdigit() and "-" not in text:
        return datetime.now(UTC) - timedelta(seconds=options.seconds(text, "since"))
    try:
        return options.instant(text, "since")
    except InvalidOption as error:
        said = f"{error}, or a time before now such as 2h"
        raise InvalidOption(said, field="since", value=text) from None


def a_filter(
    state_name: str | None = None,
    task: str | None = None,
    queue: str | None = None,
    tag: str | None = None,
    since_text: str | None = None,
    *,
    error: str | None = None,
) -> JobFilter:
    """Build a filter from its options; raise InvalidOption. `error` is a signature."""
    return JobFilter(
        state=state(state_name),
        task=None if task is None else options.name(task, "task"),
        queue=None
        if queue is None
        else options.name(queue, "queue", longest=options.QUEUE_LENGTH_MAX),
        tag=None if tag is None else options.name(tag, "tag", longest=63),
        since=since(since_text),
        error=error,
    )
