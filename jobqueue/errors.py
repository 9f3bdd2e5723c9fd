"""All exceptions of the package, as a tree.

JobQueueError
├── ConfigurationError                      the URL, the app, a setting or a task is wrong
│   ├── DatabaseReplaced                    the SQLite file was deleted or replaced while in use
│   ├── ExtraMissing (ModuleNotFoundError)  a feature's extra is not installed
│   ├── SchemaOutdated                      no tables, or older ones: jobqueue db upgrade
│   └── SchemaNewer                         made by a newer jobqueue; never touched
├── InvalidArguments (TypeError)            a call's arguments are not what the task takes
├── InvalidOption (ValueError)              an option's value is out of its range
│   └── ScheduleNotFound (LookupError)      no schedule has that name
├── UnknownTask (LookupError)               this process has no such task
├── JobNotFound (LookupError)               no such id
├── WrongState                              the verb does not apply to the job's state
├── QueueFull                               a bounded queue has no room
├── EnqueueRefused                          a hook at the enqueue refused the call
├── JobFailed                               result() of a job that failed
├── JobCancelled                            result() of a job that was cancelled
├── ResultTimeout (TimeoutError)            result() waited for its whole timeout
├── ClaimLost                               the fence did not match: another worker has the job
└── AttemptTimeout (TimeoutError)           check() after the attempt's deadline

Signal (Exception)                          raised by handlers about their own job; not errors:
├── Snooze                                  run again later; the attempt is not charged
├── Retry                                   errored; run again after a time of the handler's choice
└── Cancel                                  end as cancelled
"""

import re
from datetime import timedelta
from typing import Any, TypeVar

from jobqueue.records import AttemptError, lasting

E = TypeVar("E", bound=Exception)

SHOWN_MAX = 60

Duration = float | int | timedelta | str
"""Seconds as a number, a timedelta, or text like `90s`, `5m`, `1h`, `7d`."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class JobQueueError(Exception):
    """Base of all errors.

    `field` is the name of the input that is wrong, and `value` what was given; both are None where
    no single input is to blame.
    """

    def __init__(self, message: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


class ConfigurationError(JobQueueError):
    """The database URL, the app, a setting or a task's definition cannot be used."""


class DatabaseReplaced(ConfigurationError):
    """The SQLite file was deleted or replaced while it was in use."""


class ExtraMissing(ConfigurationError, ModuleNotFoundError):
    """A feature needs an extra of this package that is not installed; the text has the command."""


class SchemaOutdated(ConfigurationError):
    """The database has no schema or an older one; `jobqueue db upgrade` brings it up to date."""


class SchemaNewer(ConfigurationError):
    """A newer jobqueue made the database's schema. It is not changed; upgrade this package."""


class InvalidArguments(JobQueueError, TypeError):
    """A call's arguments do not fit the task's signature, or cannot be written as JSON."""


class InvalidOption(JobQueueError, ValueError):
    """An option is unknown, or its value is out of its range."""


def invalid(field: str, problem: str, value: object = None) -> InvalidOption:
    """Return the error about an option: `field: problem`."""
    return InvalidOption(f"{field}: {problem}", field=field, value=value)


def wrong(field: str, value: object, problem: str, *, what: str | None = None) -> InvalidOption:
    """Return the error about an option's value: `field: value problem`."""
    return InvalidOption(f"{what or field}: {_shown(value)} {problem}", field=field, value=value)


def type_of(value: object) -> str:
    """Return the type of a value with its article, for a message: `an int`, `a str`, `None`."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def _shown(value: object) -> str:
    """Return a short repr: the value may be long, or a number too long for Python to print."""
    if isinstance(value, timedelta):
        return lasting(value.total_seconds())
    if type(value).__repr__ is object.__repr__:
        return type_of(value)  # Its address says nothing.
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - a value's own repr() may raise anything.
        shown = type_of(value)
    return shown if len(shown) <= SHOWN_MAX else shown[: SHOWN_MAX - 1] + "…"


def seconds_of(value: object, name: str) -> float:
    """Return the seconds of a Duration, within no bounds. Raises InvalidOption."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip()) if value.isascii() else None
        if match is None:
            raise wrong(name, value, "is not a duration; write 90, 90s, 5m, 1h or 7d")
        return float(match[1]) * _UNITS[match[2] or "s"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(max(min(value, 2.0**63), -(2.0**63)))  # An int may be beyond any float.
    raise wrong(name, value, "is not a duration; give seconds, a timedelta or text like 5m")


class ScheduleNotFound(InvalidOption, LookupError):
    """No schedule has that name, or it was removed."""


class UnknownTask(JobQueueError, LookupError):
    """This process has registered no task of that name."""


class JobNotFound(JobQueueError, LookupError):
    """No job has that id, or it was deleted."""


class WrongState(JobQueueError):
    """The operation does not apply to the job's state, such as cancelling one that succeeded."""


def _made(kind: type[E], args: tuple[Any, ...]) -> E:
    return kind.__new__(kind, *args)


def _reduced(error: Exception) -> tuple[Any, ...]:
    """For pickle and copy, of an error whose __init__ takes other arguments than its `args`."""
    return _made, (type(error), error.args), vars(error)


class QueueFull(JobQueueError):
    """A bounded queue has no room; nothing was enqueued.

    `queue` is its name and `max_pending` its bound. `retry_after` estimates in how many seconds
    there will be room.
    """

    def __init__(self, message: str, *, queue: str, max_pending: int, retry_after: float) -> None:
        super().__init__(message, field="queue", value=queue)
        self.queue = queue
        self.max_pending = max_pending
        self.retry_after = retry_after

    __reduce__ = _reduced


class EnqueueRefused(JobQueueError):
    """Raised by a hook of `jobs.use(enqueue=…)` that refuses a call; nothing was enqueued."""


class JobFailed(JobQueueError):
    """`result()` of a job that has failed.

    `errors` holds an `AttemptError` for each attempt that errored, in order.
    """

    def __init__(self, message: str, errors: tuple[AttemptError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class JobCancelled(JobQueueError):
    """`result()` of a job that was cancelled."""


class ResultTimeout(JobQueueError, TimeoutError):
    """The timeout passed before the job ended. The job itself goes on."""


class ClaimLost(JobQueueError):
    """The claim's fence did not match: another worker has claimed the job, or it has ended."""


class AttemptTimeout(JobQueueError, TimeoutError):
    """`check()` was called after the attempt's timeout or the job's deadline."""


class Signal(Exception):
    """Base of what a handler raises to decide what becomes of its job."""

    __reduce__ = _reduced


class Snooze(Signal):
    """Run this job again after `seconds`, `minutes` and `hours`; the attempt is not charged.

    Raises InvalidOption for what is not a Duration; one out of bounds is taken as the bound.
    """

    def __init__(
        self, seconds: Duration = 0, *, minutes: float = 0, hours: float = 0, reason: str = ""
    ) -> None:
        self.delay = seconds_of(seconds, "seconds") + 60 * minutes + 3600 * hours
        self.reason = reason
        super().__init__(reason or f"snoozed for {lasting(self.delay)}")


class Retry(Signal):
    """Count this attempt as errored and, if attempts are left, run again after a Duration, `after`.

    `after=None` waits as the task's backoff says. Raises InvalidOption as Snooze does.
    """

    def __init__(self, after: Duration | None = None, *, reason: str = "") -> None:
        self.delay = None if after is None else seconds_of(after, "after")
        super().__init__(reason or "the task asked for a retry")


class Cancel(Signal):
    """End this job as cancelled, without further attempts."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "cancelled by the task")
