"""The settings of a worker, checked before it starts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, TypedDict, get_args

from jobqueue import options
from jobqueue.errors import Duration, InvalidOption, invalid
from jobqueue.printable_text import did_you_mean
from jobqueue.states import State

DAY = 86_400.0
CONCURRENCY_MAX = 1024
ASYNC_MAX = 100_000
LEASE_MIN = 1.0
SNOOZES_MAX = 1000
CRASHES_MAX = 3
NAME_MAX = 128


class WorkerOptions(TypedDict, total=False):
    """The options of `worker()`. A Duration is seconds, a timedelta, or text like `5m`."""

    concurrency: int
    """Threads, each of which runs one job at a time, 4 by default. With autoscaling, the number at
    the start."""
    async_concurrency: int
    """Jobs of async tasks that run at once, beside the threads, on one event loop; 1,000 by
    default."""
    min_concurrency: int | None
    """The fewest threads with autoscaling; requires `max_concurrency`."""
    max_concurrency: int | None
    """The most threads with autoscaling, which adds threads while jobs wait, and removes idle
    ones; requires `min_concurrency`."""
    scale_up_at: float
    """The share of busy threads from which autoscaling adds threads while jobs wait, 0.8 by
    default."""
    scale_down_at: float
    """The share of busy threads up to which autoscaling removes threads while no job waits, 0.3 by
    default."""
    scale_up_cooldown: Duration
    """The time from a change to the next scale-up, 5 s by default."""
    scale_down_cooldown: Duration
    """The time from a change to the next scale-down, 10 s by default."""
    queues: str | Iterable[str] | Mapping[str, int | None] | None
    """The queues to serve: `"mail:2,default"`, names, or names with the most jobs of each queue
    that this worker runs at once. None serves all queues."""
    lease: Duration
    """The time without a heartbeat until other workers take the jobs; 30 s by default, at least
    1 s."""
    shutdown_timeout: Duration
    """The time that a shutdown waits for running jobs, 25 s by default."""
    poll: Duration
    """The poll interval when no notification arrives; 1 s by default."""
    drain: bool
    """Stop when no job is left to run."""
    max_jobs: int | None
    """Stop after this number of jobs."""
    max_memory: int | str | None
    """Bytes, or text like `500MB` or `512MiB`: shut down gracefully above this much memory."""
    stats_interval: Duration | None
    """The time between two reports in the log. None logs no reports."""
    name: str | None
    """The worker's name in tables and logs. None: host and process id."""
    allow_exec: bool
    """Run command lines too: jobs of the built-in task `exec`."""
    max_snoozes: int
    """The number of snoozes after which a job fails, 1,000 by default."""
    max_crashes: int
    """The number of crashes of its child process in a row after which a job fails, 3 by default."""
    keep_succeeded: Duration | None
    """The age at which succeeded and cancelled jobs are deleted, 7 days by default. None: never."""
    keep_failed: Duration | None
    """The age at which failed jobs are deleted, 30 days by default. None: never."""


def _share(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise invalid(name, f"{value!r} is not a share between 0 and 1", value)
    return float(value)


def _queues(given: object, _what: str) -> dict[str, int | None]:
    """Read `"mail:2,default"`, a list of names, or a mapping of names to limits."""
    pairs: list[tuple[object, object]]
    if isinstance(given, str):
        pairs = [_pair(part.strip()) for part in given.split(",")]
    elif isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, Iterable):
        pairs = [(name, None) for name in given]
    else:
        raise invalid("queues", f'{given!r}; write "mail:2,default" or a list of names')
    read: dict[str, int | None] = {}
    for given_name, limit in pairs:
        name = options.name(given_name, "queue")
        if name in read:
            raise invalid("queues", f"{name!r} is named twice", given)
        read[name] = (
            None
            if limit is None
            else options.whole(limit, f"limit of queue {name}", 1, CONCURRENCY_MAX)
        )
    if not read:
        raise invalid("queues", "no names given; name at least one queue", given)
    return read


def _pair(part: str) -> tuple[object, object]:
    name, colon, limit = part.rpartition(":")
    return (name, options.integer(limit)) if colon and limit.isdecimal() else (part, None)


def _name(value: object, what: str) -> str:
    if not (
        isinstance(value, str)
        and 0 < len(value) <= NAME_MAX
        and value.isprintable()
        and " " not in value
    ):
        raise invalid(
            what,
            f"{str(value)[:40]!r} is not a worker's name; use printable characters and no "
            f"blanks, at most {NAME_MAX}, such as mail-1",
            value,
        )
    return value


def _truth(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise invalid(name, f"{value!r} is not True or False", value)
    return value


def _size(value: object, _what: str) -> int:
    return options.size(value)


def _checked(default: Any, check: Callable[..., Any], **bounds: float) -> Any:
    """A field whose values are checked by `check(value, name, **bounds)`."""
    return field(default=default, metadata={"check": partial(check, **bounds)})


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The checked `WorkerOptions`, with durations in seconds. `of()` checks and creates them."""

    concurrency: int = _checked(4, options.whole, least=1, most=CONCURRENCY_MAX)
    async_concurrency: int = _checked(1000, options.whole, least=1, most=ASYNC_MAX)
    min_concurrency: int | None = _checked(None, options.whole, least=1, most=CONCURRENCY_MAX)
    max_concurrency: int | None = _checked(None, options.whole, least=1, most=CONCURRENCY_MAX)
    scale_up_at: float = _checked(0.8, _share)
    scale_down_at: float = _checked(0.3, _share)
    scale_up_cooldown: float = _checked(5.0, options.seconds, most=DAY)
    scale_down_cooldown: float = _checked(10.0, options.seconds, most=DAY)
    queues: Mapping[str, int | None] | None = _checked(None, _queues)
    lease: float = _checked(30.0, options.seconds, least=LEASE_MIN, most=DAY)
    shutdown_timeout: float = _checked(25.0, options.seconds, most=DAY)
    poll: float = _checked(1.0, options.seconds, least=0.01, most=3600)
    drain: bool = _checked(False, _truth)
    max_jobs: int | None = _checked(None, options.whole, least=1, most=2**62)
    max_memory: int | None = _checked(None, _size)  # bytes
    stats_interval: float | None = _checked(None, options.seconds, least=0.1, most=DAY)
    name: str | None = _checked(None, _name)
    allow_exec: bool = _checked(False, _truth)
    max_snoozes: int = _checked(SNOOZES_MAX, options.whole, least=1, most=2**31 - 1)
    max_crashes: int = _checked(CRASHES_MAX, options.whole, least=1, most=1000)
    keep_succeeded: float | None = _checked(7 * DAY, options.seconds, most=1e10)
    keep_failed: float | None = _checked(30 * DAY, options.seconds, most=1e10)

    @staticmethod
    def of(**given: Any) -> "WorkerSettings":
        """Check and convert a user's options; raise InvalidOption."""
        known = {each.name: each for each in fields(WorkerSettings)}
        checked: dict[str, Any] = {}
        for option, value in given.items():
            setting = known.get(option)
            if setting is None:
                there = f"there are {', '.join(known)}{did_you_mean(option[:40], known)}"
                raise invalid(option, f"no such setting of a worker; {there}", value)
            is_none = value is None and type(None) in get_args(setting.type)
            checked[option] = None if is_none else setting.metadata["check"](value, option)
        settings = WorkerSettings(**checked)
        if settings.min_concurrency is None and settings.max_concurrency is None:
            return settings
        return _bounded(settings, given)

    @property
    def retention(self) -> dict[State, float | None]:
        """Return the seconds for which jobs of each final state are kept; None keeps them."""
        done, failed = self.keep_succeeded, self.keep_failed
        return {State.SUCCEEDED: done, State.CANCELLED: done, State.FAILED: failed}


def _bounded(settings: WorkerSettings, given: Mapping[str, Any]) -> WorkerSettings:
    least, most = settings.min_concurrency, settings.max_concurrency
    if least is None or most is None or least > most:
        raise InvalidOption(
            f"min_concurrency and max_concurrency: {least} and {most}; "
            "give both, the smaller first",
            field="min_concurrency",
            value=least,
        )
    if settings.scale_down_at >= settings.scale_up_at:
        raise invalid(
            "scale_down_at",
            f"{settings.scale_down_at:g} is not below scale_up_at, {settings.scale_up_at:g}",
            settings.scale_down_at,
        )
    wanted = settings.concurrency if "concurrency" in given else least
    return replace(settings, concurrency=min(max(wanted, least), most))


assert [each.name for each in fields(WorkerSettings)] == list(WorkerOptions.__annotations__)
