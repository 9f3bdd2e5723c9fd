"""What travels between the layers: rows as read, claims, and how a claim ended."""

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from jobqueue.error_groups import signature_of
from jobqueue.literal_types import UniqueUntil
from jobqueue.states import FINAL, OutcomeKind, State

Aware = Annotated[datetime, msgspec.Meta(tz=True)]
"""An instant with its time zone; a decoder refuses others, such as a text cut at a NUL."""


class Claim(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A job in a worker's hands. Every write about it names (id, fence, worker_id).

    A struct is made and read in a third of the time of a named tuple, for every job, and the
    garbage collector skips those that refer to no container; so are the two kinds of outcomes.
    """

    id: int
    fence: int
    task: str
    queue: str
    args: str
    attempt: int
    max_attempts: int
    run_at: Aware
    started_at: Aware
    timeout: float | None
    headers: str | None  # JSON
    priority: int
    worker_id: int  # the lease under which it was claimed
    # What few jobs have: the columns of claims hold them as one.
    backoff: str | None = None
    snoozes: int = 0
    crashes: int = 0
    child_crashes: int = 0  # deaths of the child process that it alone ran in
    # May not be held unbegun: max_attempts=1, crashed before, unique until started, or it expires.
    immediate_only: bool = False
    at_most_once: bool = False
    releases_key_on_start: bool = False  # its unique key is free once it begins
    deadline_at: Aware | None = None
    scheduled_for: Aware | None = None  # the tick that made it
    expires_at: Aware | None = None  # it does not begin later


NOT_COMMITTED = "NotCommitted"
"""The error's type where `finish_within` was called and its transaction not committed."""
INTERRUPTED = "interrupted"
"""The reason of a claim that was given back although its handler had started."""


class AttemptError(NamedTuple):
    """What an attempt died of, made safe to store: no NUL, no lone surrogates, bounded."""

    type: str
    message: str
    traceback: str | None
    place: str | None = None
    """The innermost function of the user's that raised it, as `app/mail.py:send`; not stored."""

    def signature(self, task: str) -> str:
        """Return what errors of one cause share: the task, the type, and the place if known."""
        return signature_of(task, self.type, self.place)


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """A claim that ended well. Times are seconds."""

    claim: Claim
    result: str | None
    reason: str | None  # why the result was dropped, if it was
    duration: float
    wait: float


class Unsuccessful(msgspec.Struct, frozen=True, gc=False):
    """A claim that ended in any other way than success."""

    claim: Claim
    outcome: OutcomeKind
    state: State
    delay: float | None = None  # None: due when it was due
    refund: bool = False  # the attempt is given back
    snooze: bool = False  # counts towards the bound on snoozes
    reason: str | None = None
    error: AttemptError | None = None
    duration: float | None = None  # None: the handler was not entered
    wait: float = 0.0
    within: bool = False  # finish_within was called: if its transaction committed, that counts
    crash: bool = False  # its own child process died under it
    exit_signal: str | None = None  # what that process was ended with
    peak_memory: int | None = None  # of that process, in bytes


Outcome = Succeeded | Unsuccessful


class ReapedJob(NamedTuple):
    """A job taken from a worker that is gone."""

    id: int
    fence: int  # after the move
    task: str
    queue: str
    state: State
    attempt: int  # the one that was lost
    worker: str | None
    started_at: datetime | None
    lane: str | None  # its concurrency key


class ExpiredJob(NamedTuple):
    """A job that was cancelled because it had not begun in time."""

    id: int
    task: str
    queue: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as read back."""

    attempt: int
    fence: int
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str
    error: AttemptError | None
    exit_signal: str | None = None
    peak_memory: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that `show --json` prints."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "started_at": _iso(self.started_at),
            "finished_at": _iso(self.finished_at),
            "error": self.error
            and {
                "type": self.error.type,
                "message": self.error.message,
                "traceback": self.error.traceback,
            },
        }


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One row of the jobs table, with the error of its last attempt.

    Instants have a time zone, UTC; durations are seconds; `args`, `headers` and `result` are
    JSON text.
    """

    id: int
    task: str
    queue: str
    state: State
    priority: int
    args: str
    tags: tuple[str, ...]
    run_at: datetime
    attempt: int
    max_attempts: int
    crashes: int
    snoozes: int
    fence: int
    worker: str | None
    timeout: float | None
    unique_key: str | None
    unique_until: UniqueUntil | None
    progress: float | None
    progress_message: str | None
    cancel_requested_at: datetime | None
    reason: str | None
    result: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    child_crashes: int = 0
    headers: str | None = None
    scheduled_for: datetime | None = None
    expires_at: datetime | None = None
    lane: str | None = None
    awaits_key: bool = False
    """It waits until another job has freed its unique key."""
    error: AttemptError | None = None
    error_at: datetime | None = None

    @property
    def final(self) -> bool:
        """True when no worker will touch it again."""
        return self.state in FINAL

    @property
    def duration(self) -> float | None:
        """Seconds from the last claim to the end; None before."""
        if self.finished_at is None or self.started_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def wait(self) -> float | None:
        """Seconds from when it was due to its last claim; None before, at least 0."""
        if self.started_at is None:
            return None
        return max(0.0, (self.started_at - self.run_at).total_seconds())

    def to_json(self) -> dict[str, Any]:
        """The job object of the contract, the same everywhere."""
        args, kwargs = arguments_of(self.args)
        error = self.error and {
            "type": self.error.type,
            "message": self.error.message,
            "at": _iso(self.error_at),
        }
        progress = None
        if self.progress is not None or self.progress_message is not None:
            progress = {"fraction": self.progress, "message": self.progress_message}
        return {
            "id": self.id,
            "task": self.task,
            "queue": self.queue,
            "state": self.state.value,
            "priority": self.priority,
            "args": args,
            "kwargs": kwargs,
            "tags": list(self.tags),
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "run_at": _iso(self.run_at),
            "created_at": _iso(self.created_at),
            "started_at": _iso(self.started_at),
            "finished_at": _iso(self.finished_at),
            "deadline_at": _iso(self.deadline_at),
            "scheduled_for": _iso(self.scheduled_for),
            "expires_at": _iso(self.expires_at),
            "lane": self.lane,
            "worker": self.worker,
            "unique_key": self.unique_key,
            "headers": headers_of(self.headers),
            "fence": self.fence,
            "timeout": self.timeout,
            "progress": progress,
            "result": None if self.result is None else json.loads(self.result),
            "error": error,
            "reason": self.reason,
            "cancel_requested_at": _iso(self.cancel_requested_at),
        }


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker says of itself when it takes a lease. `lease` is seconds."""

    name: str
    host: str
    pid: int
    boot_id: str | None
    pid_namespace: str | None
    process_started: float | None
    wakeup_address: str | None
    queues: tuple[str, ...] | None
    tasks: tuple[str, ...]
    concurrency: int
    lease: float


class Lease(NamedTuple):
    """A worker's row as the reaper sees it."""

    id: int
    name: str
    host: str
    pid: int
    boot_id: str | None
    pid_namespace: str | None
    process_started: float | None
    lease: float
    heartbeats: int


class Due(NamedTuple):
    """In how many seconds upkeep has to do something, by the database's clock; None: nothing."""

    job: float | None  # a scheduled job is due
    expiry: float | None  # a job expires
    freed_key: float | None  # a key that a job waits for is free: 0


class PollResult(NamedTuple):
    """What a worker has to know of others and of what is to come, read in one transaction."""

    leases: list[Lease]  # others', those that this worker watches
    orphans: bool  # some job's worker is gone
    due: Due
    tick: float | None = None  # seconds until the next tick of a schedule is due


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a bulk verb or a list is about; None matches all."""

    state: State | None = None
    task: str | None = None
    queue: str | None = None
    tag: str | None = None
    since: datetime | None = None
    ids: tuple[int, ...] | None = None
    tasks: tuple[str, ...] | None = None
    error: str | None = None
    """The signature of the last error, of a job that has not succeeded since."""

    def named(self) -> dict[str, Any]:
        """Return what it asks for, but for ids and times."""
        names = ("state", "task", "tasks", "queue", "tag", "error")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A job that a verb did not change, and why."""

    id: int
    state: State | None  # None: there is no such job
    reason: str


def counted(count: int, noun: str) -> str:
    """A count with its noun, for messages: `1 job`, `1,790 jobs`, `2 processes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def lasting(seconds: float) -> str:
    """A time for messages, never with an exponent: `0.5 s`, `86,400 s`, `3,660 days`."""
    days = seconds / 86_400
    number, unit = (f"{days:,.1f}", "days") if days >= 2 else (f"{seconds:,.6f}", "s")  # noqa: PLR2004
    return f"{number.rstrip('0').rstrip('.')} {unit}"


def in_largest_unit(seconds: float) -> str:
    """A time in the largest unit that divides it, as options take it: `5m`, `90s`, `0.5s`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return repr(float(seconds)).removesuffix(".0") + "s"  # All digits: it is read again.


def format_bytes(count: int) -> str:
    """A number of bytes for people: `1.9 GB`."""
    power = min(4, max(0, (len(str(count)) - 1) // 3))
    return f"{count / 1000**power:.1f} {'kMGT'[power - 1]}B" if power else f"{count} B"


def arguments_of(text: str) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Both kinds of arguments; None where plain SQL has written something else."""
    try:
        given = json.loads(text)
        args, kwargs = given["args"], given["kwargs"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None, None
    return (args if isinstance(args, list) else None, kwargs if isinstance(kwargs, dict) else None)


def names_in(text: str | None) -> tuple[str, ...]:
    """Return the names in a JSON array; none if plain SQL has written anything else."""
    try:
        names = json.loads(text) if text else ()
    except (ValueError, TypeError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def headers_of(text: str | None) -> dict[str, str] | None:
    """Return a row's headers; None where plain SQL has written anything but an object of texts."""
    try:
        headers = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(headers, dict) and all(isinstance(one, str) for one in headers.values())
    return headers if is_ours else None


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(UTC).isoformat()
