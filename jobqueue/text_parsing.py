"""Parse what users write on a command line or in a URL: ids, states, instants, filters of jobs."""

import re
from datetime import UTC, datetime, timedelta

from jobqueue import options
from jobqueue.errors import InvalidOption, invalid
from jobqueue.printable_text import did_you_mean
from jobqueue.records import JobFilter
from jobqueue.serialization.json_values import INTEGER_MAX
from jobqueue.states import State

_DIGITS = re.compile(r"[0-9]{1,30}", re.ASCII)


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
    if not _DIGITS.fullmatch(text) or not 0 < int(text) <= INTEGER_MAX:
        said = f"{text[:40]!r} is not the id of an action; see: jobqueue log"
        raise invalid("id", said, text)
    return int(text)


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
        queue=None if queue is None else options.name(queue, "queue"),
        tag=None if tag is None else options.name(tag, "tag"),
        since=since(since_text),
        error=error,
    )
