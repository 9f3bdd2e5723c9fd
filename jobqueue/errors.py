"""Every error of the package; this is the tree.

JobQueueError
├── ConfigurationError                      the URL, the app, a setting or a task is wrong
│   ├── DatabaseReplaced                    the SQLite file was deleted or replaced while in use
│   ├── SchemaOutdated                      no tables, or older ones: jobqueue db upgrade
│   └── SchemaNewer                         made by a newer jobqueue; never touched
├── InvalidArguments (TypeError)            a call's arguments are not what the task takes
├── InvalidOption (ValueError)              an option's value is out of its range
├── UnknownTask (LookupError)               this process has no such task
├── JobNotFound (LookupError)               no such id
├── WrongState                              the verb does not apply to the job's state
├── QueueFull                               as many jobs wait in a bounded queue as may
├── JobFailed                               result() of a job that failed
├── JobCancelled                            result() of a job that was cancelled
├── ResultTimeout (TimeoutError)            result() waited long enough
├── ClaimLost                               the fence did not match: someone else has the job
└── AttemptTimeout (TimeoutError)           check() after the attempt's deadline

Signal (Exception)                          raised by handlers to steer; not errors:
├── Snooze                                  later, not charged as an attempt
├── Retry                                   errored, again after a time of the handler's choice
└── Cancel                                  give up for good
"""

from datetime import timedelta

from jobqueue.records import AttemptError, lasting

Duration = float | int | timedelta
"""Seconds, or a timedelta."""


class JobQueueError(Exception):
    """Base of everything that jobqueue raises as an error.

    `field` names the input that is wrong and `value` is what was given, where that applies.
    """

    field: str | None
    value: object

    def __init__(self, message: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


class ConfigurationError(JobQueueError):
    """The database URL, the app, a setting or a task's definition cannot be used."""


class DatabaseReplaced(ConfigurationError):
    """The SQLite file was deleted or replaced while it was in use."""


class SchemaOutdated(ConfigurationError):
    """The database has no schema, or an older one: `jobqueue db upgrade` makes it right."""


class SchemaNewer(ConfigurationError):
    """The database's schema was made by a newer jobqueue; this one leaves it alone."""


class InvalidArguments(JobQueueError, TypeError):
    """A call's arguments do not fit the task's signature, or cannot be written as JSON."""


class InvalidOption(JobQueueError, ValueError):
    """An option is unknown, or its value is out of its range."""


class UnknownTask(JobQueueError, LookupError):
    """This process has registered no task of that name."""


class JobNotFound(JobQueueError, LookupError):
    """There is no job with that id (any more)."""


class WrongState(JobQueueError):
    """The verb does not apply to the state that the job is in."""


class QueueFull(JobQueueError):
    """As many jobs wait in a bounded queue as may; nothing was enqueued.

    `retry_after` is a guess, in seconds, when there will be room.
    """

    def __init__(self, message: str, *, queue: str, max_pending: int, retry_after: float) -> None:
        super().__init__(message, field="queue", value=queue)
        self.queue = queue
        self.max_pending = max_pending
        self.retry_after = retry_after


class JobFailed(JobQueueError):
    """The job whose result was asked for has failed.

    `errors` holds one `AttemptError` for each attempt that errored, the last one last.
    """

    def __init__(self, message: str, errors: tuple[AttemptError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class JobCancelled(JobQueueError):
    """The job was cancelled."""


class ResultTimeout(JobQueueError, TimeoutError):
    """The job was not final when the time was up; it goes on by itself."""


class ClaimLost(JobQueueError):
    """The claim's fence did not match: the job was given to another worker, or ended."""


class AttemptTimeout(JobQueueError, TimeoutError):
    """`check()` was called after the attempt's deadline."""


class Signal(Exception):
    """Base of what a handler raises to steer its own job."""


class Snooze(Signal):
    """Run this job again after `seconds` (or other units), without charging the attempt."""

    def __init__(
        self, seconds: Duration = 0, *, minutes: float = 0, hours: float = 0, reason: str = ""
    ) -> None:
        first = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        self.delay = float(first) + 60 * minutes + 3600 * hours
        self.reason = reason
        super().__init__(reason or f"snoozed for {lasting(self.delay)}")


class Retry(Signal):
    """Count this attempt as errored; if attempts are left, run again `after` seconds.

    `after=None` keeps the task's own backoff.
    """

    def __init__(self, after: Duration | None = None, *, reason: str = "") -> None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        self.delay = None if seconds is None else float(seconds)
        super().__init__(reason or "the task asked for a retry")


class Cancel(Signal):
    """End this job as cancelled, without further attempts."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "cancelled by the task")
