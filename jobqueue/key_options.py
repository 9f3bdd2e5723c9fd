"""Checks of the options that only go together: keys, debounces, due times."""

from collections.abc import Mapping
from datetime import datetime

from jobqueue.errors import invalid
from jobqueue.records import lasting

KEY_LENGTH_MAX = 512
OF_KEY = ("concurrency_limit", "strict", "weight")
"""Options that mean nothing for a job without a concurrency key."""


def check_key(value: object, field: str) -> str | None:
    """Check a unique key or a concurrency key. Raises InvalidOption."""
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= KEY_LENGTH_MAX:
        raise invalid(field, f"must be text of 1 to {KEY_LENGTH_MAX} characters", value)
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        shown = f"{value[:40]!r} has a character that no database stores"
        raise invalid(field, shown, value)
    return value


def check_debounce(
    debounce: float | None, max_wait: float | None, delay: float | None, at: datetime | None
) -> None:
    """Raise InvalidOption unless these options go together. Times are seconds."""
    if debounce is None:
        if max_wait is not None:
            raise invalid("max_wait", "it limits a debounce, and there is none", max_wait)
        return
    if delay is not None or at is not None:
        other = "delay" if at is None else "at"
        raise invalid("debounce", f"it says when the job is due; leave out {other}", debounce)
    if max_wait is not None and max_wait < debounce:
        limit = f"{lasting(max_wait)} is shorter than the debounce, {lasting(debounce)}"
        raise invalid("max_wait", limit, max_wait)


def check_without_key(checked: Mapping[str, object]) -> None:
    """Raise InvalidOption for an option that is about a concurrency key; there is none."""
    for option in OF_KEY:
        value = checked.get(option)
        if value is not None and value is not False:  # A limit of 0 equals False.
            said = "it is for jobs of a concurrency_key, and there is none"
            raise invalid(option, said, value)


def check_due_times(wait: float, deadline: float | None, expires: float | None) -> None:
    """Raise InvalidOption if a job would end, or expire, before it is due. Times are seconds."""
    for option, limit in (("deadline", deadline), ("expires", expires)):
        if limit is not None and wait >= limit:
            raise invalid(option, f"{lasting(limit)} from now it would not even be due", limit)
