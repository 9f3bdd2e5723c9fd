"""Options of tasks and calls: each is checked where it is given; a call's override the task's."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypedDict, TypeVar, get_args

from jobqueue.backoff import Backoff
from jobqueue.errors import SHOWN_MAX, Duration, invalid, seconds_of, wrong
from jobqueue.headers import Headers, check_headers
from jobqueue.key_options import check_debounce, check_due_times, check_key, check_without_key
from jobqueue.literal_types import CatchUp, Isolation, OnConflict, Overlap, UniqueUntil
from jobqueue.printable_text import did_you_mean
from jobqueue.records import lasting
from jobqueue.schedules.definition import CATCH_UPS, OVERLAPS
from jobqueue.schedules.timing import Timing, check_timing

Word = TypeVar("Word", bound=str)
F = TypeVar("F", bound=Callable[..., Any])

NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.:][A-Za-z0-9_.:-]{0,127}")
NAME_LENGTH_MAX = 128
SHORTER = {"queue": 63, "tag": 63, "redact": 63}
"""The lengths of names that are shorter, by what they name."""
MEMORY_LEAST = 10_000_000  # bytes; no Python runs in less
TAGS_MAX = 32
BASE_MAX = 1000
PRIORITY_MAX = 2**31 - 1
ATTEMPTS_MAX = 1_000_000
PORT_MAX = 65_535
RUNNING_MAX = 1_000_000
"""The largest limit of jobs that run at once."""
WEIGHT_LEAST, WEIGHT_MAX = 0.001, 1000.0
SECONDS_MAX = 10 * 366 * 86_400.0
"""Ten years: a longer duration is taken for a mistake of units."""

UNIQUE_SCOPES: tuple[UniqueUntil, ...] = get_args(UniqueUntil)
CONFLICT_MODES: tuple[OnConflict, ...] = get_args(OnConflict)
ISOLATIONS: tuple[Isolation, ...] = get_args(Isolation)
OF_TASK = ("isolation", "schedule", "catch_up", "overlap", "redact")
"""Options of a task that no call can change."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*(k|m|g|t|ki|mi|gi|ti)?b?", re.IGNORECASE | re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def exponential(base: float = 2, cap: Duration = 3600) -> Backoff:
    """Wait `base ** n` seconds before attempt n + 1, at most `cap` seconds; ± 25 % of jitter.

    `base` is greater than 1, up to 1,000. Raises InvalidOption.
    """
    if isinstance(base, bool) or not isinstance(base, int | float) or not 1 < base <= BASE_MAX:
        raise wrong("backoff", base, "is not a number in (1, 1000]", what="backoff base")
    return Backoff(float(base), seconds(cap, "backoff cap", least=0.001))


def fixed(every: Duration) -> Backoff:
    """Wait the same time before every further attempt, without jitter. Raises InvalidOption."""
    return Backoff(None, seconds(every, "backoff", least=0.001), jitter=0.0)


DEFAULT_BACKOFF = Backoff(2.0, 3600.0)


def seconds(value: object, name: str, *, least: float = 0.0, most: float = SECONDS_MAX) -> float:
    """Check a duration and return its seconds: from a number, a timedelta or text like `5m`.

    Raises InvalidOption unless it is in [least, most].
    """
    number = seconds_of(value, name)
    if not least <= number <= most:
        bounds = f"at least {lasting(least)} and at most {lasting(most)}"
        raise wrong(name, value, f"is out of range; {bounds}")
    return number


def instant(value: object, name: str = "at") -> datetime:
    """Check an instant, an aware datetime or ISO 8601 text, and return the datetime.

    Raises InvalidOption unless its year is in [1970, 9998].
    """
    given = value
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError as error:
            detail = "" if "isoformat" in str(error) else f" ({str(error)[:SHOWN_MAX]})"
            why = f"is not an instant{detail}; write 2026-12-24T18:00+01:00"
            raise wrong(name, given, why) from None
    if not isinstance(value, datetime):
        raise wrong(name, given, "is not a datetime")
    if value.tzinfo is None or value.utcoffset() is None:
        raise invalid(name, f"{given!s} has no time zone; add one, such as +01:00 or Z", given)
    if not 1970 <= value.year <= 9998:  # noqa: PLR2004 - what both databases and Python can hold.
        raise invalid(name, f"{given!s} is out of range; give a year from 1970 to 9998", given)
    return value


def size(value: object) -> int:
    """Check a size and return its bytes: from a number, or text like `500MB`, `1.5GB`, `512MiB`."""
    count: float | None = None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = (match[2] or "").lower()
        power = _POWERS.get(unit[:1], 0)
        count = float(match[1]) * (1024 if unit.endswith("i") else 1000) ** power
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    if count is None or not MEMORY_LEAST <= count < 2**63:
        raise invalid(
            "max_memory",
            f"{str(value)[:40]!r} is not a size of at least 10 MB; write 500MB, 1.5GB or 512MiB",
            value,
        )
    return int(count)


def name(value: object, what: str) -> str:
    """Check the name of a task, queue, tag or schedule and return it as plain `str`."""
    longest = SHORTER.get(what, NAME_LENGTH_MAX)
    if not isinstance(value, str) or len(value) > longest or not NAME.fullmatch(value):
        form = f"use letters, digits and _ . : -, at most {longest} characters, not . or .."
        raise wrong(what, value, f"is not a name; {form}")
    return str(value)  # Queue is a subclass.


def texts(**given: object) -> None:
    """Raise InvalidOption unless each value is a `str` or None."""
    for what, value in given.items():
        if value is not None and not isinstance(value, str):
            raise wrong(what, value, "is not text")


def whole(value: object, what: str, least: int, most: int) -> int:
    """Check a whole number in [least, most]. Raises InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise wrong(what, value, f"is not a whole number between {least} and {most}")
    return value


def integer(text: str) -> int | str:
    """Parse an integer; return any other text unchanged, for `whole()` to report."""
    return int(text) if _INTEGER.fullmatch(text) else text


def port(value: object, what: str = "port") -> int:
    """A TCP port; 0 is any free one."""
    return whole(value, what, 0, PORT_MAX)


def one_of(value: object, what: str, words: tuple[Word, ...]) -> Word:
    """Return the word that `value` equals. Raises InvalidOption if there is none."""
    for word in words:
        if value == word:
            return word
    raise wrong(what, value, f"is none of {', '.join(words)}")


def function(value: object, what: str) -> None:
    """Raise InvalidOption unless `value` can be called."""
    if not callable(value):
        raise wrong(what, value, "cannot be called; give a function")


def flag(value: object, what: str) -> bool:
    """Check a bool. Raises InvalidOption."""
    if not isinstance(value, bool):
        raise wrong(what, value, "is neither true nor false")
    return value


class OptionChanges(TypedDict, total=False):
    """What `options()` takes. A Duration is seconds, a timedelta, or text like `5m`."""

    queue: str
    """The queue's name, `"default"` by default. Its first job creates it."""
    priority: int
    """Smaller numbers run first; 0 by default. Jobs of one priority run by due time, then id."""
    delay: Duration | None
    """From now until the job is due, at most ten years. None, the default: due now, or at `at`."""
    at: datetime | None
    """When the job is due, as a datetime with a time zone; instead of `delay`."""
    max_attempts: int
    """The most attempts that are charged, 10 by default. With 1 the handler starts at most once."""
    backoff: Backoff | None
    """Time between attempts: `exponential(base=2, cap=3600)`, the default, or `fixed(30)`."""
    timeout: Duration | None
    """Limit of one attempt; `current_job().check()` then raises AttemptTimeout. None: no limit."""
    deadline: Duration | None
    """Limit from the enqueue to the end of the job, with all attempts and waits. None: no limit."""
    expires: Duration | None
    """A job that has not begun this long after the enqueue is cancelled. None: it waits on."""
    unique_key: str | None
    """At most one job holds a key: `enqueue` returns the holder instead of a second job.
    Text of 1 to 512 characters. None, the default: no key."""
    unique_until: UniqueUntil
    """When the key is free again: when the job is `"finished"` (default) or `"started"`, or only
    when its row is `"deleted"`."""
    on_conflict: OnConflict
    """Where a waiting job holds the key: `"ignore"` (default) leaves it, `"replace"` gives it the
    new arguments and options, `"reschedule"` the new due time."""
    debounce: Duration | None
    """The job is due this long after the last enqueue with its unique key. None: it does not wait
    for more of them."""
    max_wait: Duration | None
    """With `debounce`: due at most this long after the first enqueue. None: no limit."""
    rerun: bool
    """Where a running job holds the key: one more job, which waits until the key is free."""
    tags: Iterable[str]
    """Up to 32 names, by which jobs can be listed, cancelled, retried and deleted."""
    headers: Mapping[str, str]
    """Texts beside the arguments, at most 4 KiB of JSON: `current_job().headers` in the handler."""
    concurrency_key: str | None
    """Jobs of one key share its limit, in the whole fleet, whatever their queue.
    Text of 1 to 512 characters. None, the default: no key."""
    concurrency_limit: int | None
    """The job starts only while fewer jobs than this run with its key; 0: it waits. At most
    1,000,000. None, the default: no limit, or 1 with `strict`."""
    strict: bool
    """True: jobs of the key start in order, and one that awaits its next attempt keeps its place.
    False by default."""
    weight: float
    """The share of the key in a queue with `fair=True`: 0.001 to 1,000, 1 by default."""


class TaskOptions(OptionChanges, total=False):
    """What `task()` takes: the options of `options()`, and those that no call can change."""

    isolation: Isolation
    """Where the handler runs: in a `"thread"` of the worker (default), or in a child `"process"`,
    which is killed at its timeout."""
    schedule: Timing | None
    """When workers enqueue it, without arguments: `cron("0 3 * * *", tz=…)`, `every(minutes=5)`."""
    catch_up: CatchUp
    """What becomes of missed ticks: one job for the `"latest"` (default), `"all"`, or `"none"`."""
    overlap: Overlap | None
    """`"skip"`: a tick makes no job while the last one has not ended; `"allow"`: it does. None, the
    default: skip, and allow with `catch_up="all"`."""
    redact: Iterable[str]
    """Parameters whose values no command, page or answer shows. The database keeps them."""


@dataclass(frozen=True, slots=True)
class Options:
    """The checked options of a task or call; see `TaskOptions`. Durations are seconds."""

    queue: str = "default"
    priority: int = 0
    delay: float | None = None
    at: datetime | None = None
    max_attempts: int = 10
    backoff: Backoff | None = None
    timeout: float | None = None
    deadline: float | None = None
    expires: float | None = None
    unique_key: str | None = None
    unique_until: UniqueUntil = "finished"
    on_conflict: OnConflict = "ignore"
    debounce: float | None = None
    max_wait: float | None = None
    rerun: bool = False
    tags: tuple[str, ...] = ()
    headers: Headers = ()
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    strict: bool = False
    weight: float = 1.0
    isolation: Isolation = "thread"
    schedule: Timing | None = None
    catch_up: CatchUp = "latest"
    overlap: Overlap | None = None
    redact: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Name the options that are not the defaults: a REPL shows those of each task."""
        values = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        changed = ", ".join(f"{name}={is_!r}" for name, is_, was in values if is_ != was)
        return f"Options({changed})"

    def merge(self, changes: Mapping[str, object], *, of_task: bool = False) -> "Options":
        """Return a copy with the given options changed. Raises InvalidOption.

        A task may have a `concurrency_limit` for those of its calls that have a concurrency key.
        """
        checked: dict[str, Any] = {}
        for option, value in changes.items():
            check = _CHECKS.get(option)
            if check is None:
                known = f"there are {', '.join(_CHECKS)}{did_you_mean(option[:40], _CHECKS)}"
                raise invalid(option, f"no such option; {known}", value)
            checked[option] = check(value)
        if checked.get("delay") is not None and checked.get("at") is not None:
            raise invalid("at", "give either delay or at, not both")
        if checked.get("delay") is not None:
            checked["at"] = None
        elif checked.get("at") is not None:
            checked["delay"] = None
        merged = replace(self, **checked)
        if merged.concurrency_key is None and not of_task:
            check_without_key(checked)
        check_due_times(merged.delay or merged.debounce or 0.0, merged.deadline, merged.expires)
        check_debounce(merged.debounce, merged.max_wait, merged.delay, merged.at)
        return merged


def listing(taken: type, checked: type) -> Callable[[F], F]:
    """Add the options of a TypedDict to a docstring, where `help()` would show its name alone.

    `checked` is the dataclass that has their defaults.
    """

    def add(function: F) -> F:
        defaults = {one.name: one.default for one in fields(checked)}
        named = ", ".join(f"{name}={defaults[name]!r}" for name in taken.__annotations__)
        said = textwrap.fill(f"Options, with their defaults: {named}.", 88, break_on_hyphens=False)
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{said}"
        return function

    return add


def _check_backoff(value: object) -> Backoff | None:
    if value is not None and not isinstance(value, Backoff):
        raise wrong("backoff", value, "is not one; use exponential(base=2, cap=3600) or fixed(30)")
    return value


def _check_weight(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not WEIGHT_LEAST <= value <= WEIGHT_MAX:  # type: ignore[operator]
        raise wrong("weight", value, "is not a number between 0.001 and 1000")
    return float(value)  # type: ignore[arg-type]


def _check_names(value: object, what: str, each: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise invalid(what, "give a list of names", value)
    names = tuple(dict.fromkeys(name(one, each) for one in value))
    if len(names) > TAGS_MAX:
        raise invalid(what, f"{len(names)} of them; at most {TAGS_MAX}")
    return names


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "queue": lambda value: name(value, "queue"),
    "priority": lambda value: whole(value, "priority", -PRIORITY_MAX, PRIORITY_MAX),
    "delay": lambda value: None if value is None else seconds(value, "delay"),
    "at": lambda value: None if value is None else instant(value),
    "max_attempts": lambda value: whole(value, "max_attempts", 1, ATTEMPTS_MAX),
    "backoff": _check_backoff,
    "timeout": lambda value: None if value is None else seconds(value, "timeout", least=0.001),
    "deadline": lambda value: None if value is None else seconds(value, "deadline", least=0.001),
    "expires": lambda value: None if value is None else seconds(value, "expires", least=0.001),
    "unique_key": lambda value: check_key(value, "unique_key"),
    "unique_until": lambda value: one_of(value, "unique_until", UNIQUE_SCOPES),
    "on_conflict": lambda value: one_of(value, "on_conflict", CONFLICT_MODES),
    "debounce": lambda value: None if value is None else seconds(value, "debounce", least=0.001),
    "max_wait": lambda value: None if value is None else seconds(value, "max_wait", least=0.001),
    "rerun": lambda value: flag(value, "rerun"),
    "tags": lambda value: _check_names(value, "tags", "tag"),
    "headers": check_headers,
    "concurrency_key": lambda value: check_key(value, "concurrency_key"),
    "concurrency_limit": lambda value: (
        None if value is None else whole(value, "concurrency_limit", 0, RUNNING_MAX)
    ),
    "strict": lambda value: flag(value, "strict"),
    "weight": _check_weight,
    "isolation": lambda value: one_of(value, "isolation", ISOLATIONS),
    "schedule": check_timing,
    "catch_up": lambda value: one_of(value, "catch_up", CATCH_UPS),
    "overlap": lambda value: None if value is None else one_of(value, "overlap", OVERLAPS),
    "redact": lambda value: _check_names(value, "redact", "redact"),
}
assert (
    list(_CHECKS) == [field.name for field in fields(Options)] == list(TaskOptions.__annotations__)
)
