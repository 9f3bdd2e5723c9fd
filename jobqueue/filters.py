"""Text that names jobs or chooses among them, in a command line or a query: ids, filters."""

import re
from datetime import UTC, datetime, timedelta

from jobqueue import options
from jobqueue.calls import did_you_mean
from jobqueue.errors import InvalidOption
from jobqueue.records import JobFilter
from jobqueue.serialization.json_values import INTEGER_MAX
from jobqueue.states import State

_DIGITS = re.compile(r"[0-9]{1,30}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)


def job_id(text: str) -> int:
    """A job's id; raises InvalidOption."""
    if not _DIGITS.fullmatch(text):
        raise InvalidOption(
            f"id: {text[:40]!r} is not a job's id; ids are whole numbers, such as 42",
            field="id",
            value=text,
        )
    if int(text) > INTEGER_MAX:
        raise InvalidOption(f"id: {text} is beyond 63 bits", field="id", value=text)
    return int(text)


def job_ids(texts: tuple[str, ...]) -> tuple[int, ...]:
    """Ids in the order given, each once."""
    return tuple(dict.fromkeys(map(job_id, texts)))


def whole(text: str) -> int | str:
    """A whole number, or what is none as it is: whoever checks the range says what is wrong."""
    return int(text) if _NUMBER.fullmatch(text) else text


def state(text: str | None) -> State | None:
    """A state by its name; raises InvalidOption."""
    if text is None:
        return None
    try:
        return State(text)
    except ValueError:
        raise InvalidOption(
            f"state: {text[:40]!r} is none of {', '.join(State)}"
            f"{did_you_mean(text.lower(), list(State))}",
            field="state",
            value=text,
        ) from None


def since(text: str | None) -> datetime | None:
    """An instant, or a time before now such as `2h`."""
    if text is None:
        return None
    if text[:1].isdigit() and "-" not in text:
        return datetime.now(UTC) - timedelta(seconds=options.seconds(text, "since"))
    return options.instant(text, "since")


def a_filter(
    state_name: str | None,
    task: str | None,
    queue: str | None,
    tag: str | None,
    since_text: str | None = None,
) -> JobFilter:
    """A filter from its options, checked."""
    return JobFilter(
        state=state(state_name),
        task=None if task is None else options.name(task, "task"),
        queue=None
        if queue is None
        else options.name(queue, "queue", longest=options.QUEUE_LENGTH_MAX),
        tag=None if tag is None else options.name(tag, "tag", longest=63),
        since=since(since_text),
    )
