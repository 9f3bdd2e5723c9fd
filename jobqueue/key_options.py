"""What an enqueue does where its unique key is held: the options that go with `unique_key`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from jobqueue.errors import InvalidOption
from jobqueue.literals import OnConflict, UniqueUntil
from jobqueue.new_jobs import Conflict
from jobqueue.records import lasting

KEY_LENGTH_MAX = 512
OF_KEY = ("concurrency_limit", "strict", "weight")
"""Options that mean nothing for a job without a concurrency key."""


def check_key(value: object, field: str) -> str | None:
    """Check a unique key or a concurrency key. Raises InvalidOption."""
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= KEY_LENGTH_MAX:
        raise _wrong(field, f"must be text of 1 to {KEY_LENGTH_MAX} characters", value)
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        shown = f"{value[:40]!r} has a character that no database stores"
        raise _wrong(field, shown, value)
    return value


def check_debounce(
    debounce: float | None, max_wait: float | None, delay: float | None, at: datetime | None
) -> None:
    """Raise InvalidOption unless these options go together. Times are seconds."""
    if debounce is None:
        if max_wait is not None:
            raise _wrong("max_wait", "it limits a debounce, and there is none", max_wait)
        return
    if delay is not None or at is not None:
        other = "delay" if at is None else "at"
        raise _wrong("debounce", f"it says when the job is due; leave out {other}", debounce)
    if max_wait is not None and max_wait < debounce:
        limit = f"{lasting(max_wait)} is shorter than the debounce, {lasting(debounce)}"
        raise _wrong("max_wait", limit, max_wait)


class DueTimes(Protocol):
    """The options of a call that say when it is due, and until when. All are seconds."""

    @property
    def delay(self) -> float | None:
        """From the enqueue until the job is due."""
        ...

    @property
    def debounce(self) -> float | None:
        """The same, from the last enqueue with its key."""
        ...

    @property
    def deadline(self) -> float | None:
        """From the enqueue until it has to end."""
        ...

    @property
    def expires(self) -> float | None:
        """From the enqueue until it has to begin."""
        ...


def check_without_key(checked: Mapping[str, object]) -> None:
    """Raise InvalidOption for an option that is about a concurrency key; there is none."""
    for option in OF_KEY:
        if checked.get(option) not in (None, False):
            raise InvalidOption(
                f"{option}: it is for jobs of a concurrency_key, and there is none",
                field=option,
                value=checked[option],
            )


def check_due_times(options: DueTimes) -> None:
    """Raise InvalidOption if a job would end, or expire, before it is due."""
    wait = options.delay or options.debounce or 0.0
    for option, limit in (("deadline", options.deadline), ("expires", options.expires)):
        if limit is not None and wait >= limit:
            raise InvalidOption(
                f"{option}: {lasting(limit)} from now it would not even be due",
                field=option,
                value=limit,
            )


class KeyOptions(Protocol):
    """The options of a call that are about its key."""

    @property
    def unique_key(self) -> str | None:
        """The key; None: none."""
        ...

    @property
    def unique_until(self) -> UniqueUntil:
        """How long the key is held."""
        ...

    @property
    def on_conflict(self) -> OnConflict:
        """What to do with a waiting holder."""
        ...

    @property
    def debounce(self) -> float | None:
        """Seconds from the last enqueue to the due time."""
        ...

    @property
    def max_wait(self) -> float | None:
        """The most seconds from the first enqueue to it."""
        ...

    @property
    def rerun(self) -> bool:
        """Whether a running holder is followed by one more run."""
        ...


def conflict_of(call: KeyOptions) -> Conflict | None:
    """Return what a call does where its key is held; None: nothing.

    Raises InvalidOption if an option needs a key, and there is none.
    """
    if call.on_conflict == "ignore" and call.debounce is None and not call.rerun:
        return None
    if call.unique_key is None:
        wanting = "on_conflict"
        if call.on_conflict == "ignore":
            wanting = "rerun" if call.debounce is None else "debounce"
        raise _wrong(wanting, "it needs a unique_key, and there is none", None)
    if call.rerun and call.unique_until != "finished":
        needs = f"it needs unique_until 'finished', not {call.unique_until!r}"
        raise _wrong("rerun", needs, call.unique_until)
    return Conflict(call.on_conflict, call.debounce, call.max_wait, call.rerun)


def _wrong(field: str, problem: str, value: object) -> InvalidOption:
    return InvalidOption(f"{field}: {problem}", field=field, value=value)
