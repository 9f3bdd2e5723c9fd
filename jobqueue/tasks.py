"""Task, a function registered with a queue by name, and Call, a task with its arguments."""

import asyncio
import functools
import inspect
import itertools
import json
from collections import ChainMap
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import msgspec

from jobqueue import options as option_rules
from jobqueue.backoff import Backoff
from jobqueue.errors import (
    ConfigurationError,
    Duration,
    InvalidOption,
    QueueFull,
    UnknownTask,
    invalid,
)
from jobqueue.job import Job, Window
from jobqueue.new_jobs import NewJob, conflict_of, extra_columns
from jobqueue.options import OptionChanges, Options
from jobqueue.queue_switches import DeclaredQueues
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.serialization.codec import Codec
from jobqueue.serialization.functions import wraps_coroutine
from jobqueue.store import transaction_argument
from jobqueue.store.transaction_argument import Transaction

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)


class Call(msgspec.Struct, Generic[R_co], frozen=True, gc=False):
    """A task with its arguments and options, for `enqueue_many`. Made by `task.call(…)`.

    The garbage collector skips it, as it skips `NewJob`.
    """

    task: "Task[..., R_co]"
    args: str  # canonical JSON
    settings: Options
    schedule: ScheduleRecord | None = None
    """The schedule that enqueues it, for hooks; None: a program does."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the job will have."""
        return dict(self.settings.headers)

    def with_headers(self, headers: Mapping[str, str]) -> "Call[R_co]":
        """Return a copy with these headers beside its own, which they replace by name.

        Raises InvalidOption.
        """
        changes = {"headers": self.headers | dict(headers)}
        return Call(self.task, self.args, self.settings.merge(changes), self.schedule)

    def to_new_job(self) -> NewJob:
        """Return the row that enqueueing inserts."""
        settings = self.settings
        key, backoff = settings.unique_key, settings.backoff
        if backoff is self.task.own_backoff:
            backoff = None  # It is not stored with the job, so that a deploy can change it.
        return NewJob(
            task=self.task.name,
            queue=settings.queue,
            priority=settings.priority,
            args=self.args,
            tags=json.dumps(settings.tags) if settings.tags else None,
            delay=settings.delay if settings.debounce is None else settings.debounce,
            at=settings.at,
            max_attempts=settings.max_attempts,
            timeout=settings.timeout,
            backoff=None if backoff is None else backoff.to_text(),
            unique_key=key,
            unique_until=None if key is None else settings.unique_until,
            deadline=settings.deadline,
            extra=extra_columns(settings),
            conflict=conflict_of(settings),
        )


Enqueue = Callable[[Sequence[Call[Any]], Transaction | None], list[Job[Any]]]
"""Enqueues calls: all that a task knows of its queue, which imports this module."""


class TakesOne(Protocol[A_contra, R_co]):
    """A task that can be called with one argument: these protocols give `map` its types."""

    def call(self, first: A_contra, /) -> Call[R_co]:
        """See `Task.call`."""


class TakesTwo(Protocol[A_contra, B_contra, R_co]):
    """A task that can be called with two arguments."""

    def call(self, first: A_contra, second: B_contra, /) -> Call[R_co]:
        """See `Task.call`."""


class TakesThree(Protocol[A_contra, B_contra, C_contra, R_co]):
    """A task that can be called with three arguments."""

    def call(self, first: A_contra, second: B_contra, third: C_contra, /) -> Call[R_co]:
        """See `Task.call`."""


class MapOptions(TypedDict, total=False):
    """What `map()` takes beside the arguments."""

    ordered: bool
    """True, the default: results come in the order of the items. False: as jobs end."""
    window: int
    """About how many jobs are enqueued or unread at a time; 1,000 by default, 2 to 1,000,000."""
    timeout: Duration | None
    """Seconds from the first `next()` to ResultTimeout. None, the default: no limit."""


@dataclass(frozen=True)
class Task(Generic[P, R_co]):
    """A function that the queue knows by name. A direct call runs the function, without a job.

    `options()` and `within()` return copies, which can be chained and kept.
    """

    function: Callable[P, R_co] = field(repr=False)
    name: str
    settings: Options
    codec: Codec = field(repr=False)
    _enqueue: Enqueue = field(repr=False)
    own_backoff: Backoff | None = field(default=None, repr=False)
    _within: Transaction | None = field(default=None, repr=False)
    middleware: Sequence[Any] = field(default=(), repr=False)
    """The queue's middleware, kept here because a child process imports only the task."""

    def __post_init__(self) -> None:
        # update_wrapper would need __setattr__, which a frozen dataclass refuses.
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            if attribute not in ("__annotations__", "__type_params__"):
                self.__dict__[attribute] = getattr(self.function, attribute, None)
        self.__dict__["__wrapped__"] = self.function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself, in this thread."""
        return self.function(*args, **kwargs)

    @functools.cached_property
    def is_async(self) -> bool:
        """True if the function is an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @functools.cached_property
    def runs_on_loop(self) -> bool:
        """True if jobs run on the worker's event loop: async, and not isolated in a process."""
        return self.is_async and self.settings.isolation != "process"

    @functools.cached_property
    def wraps_async(self) -> bool:
        """True if a plain function wraps an `async def`: its coroutine is awaited."""
        return wraps_coroutine(self.function)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Return a call for `enqueue_many`. Raises InvalidArguments if the arguments do not fit."""
        if self._within is not None:
            raise invalid(
                "within", "calls are enqueued together; give enqueue_many(…, within=session)"
            )
        return self._call(args, kwargs)

    def _call(self, args: Any, kwargs: Any) -> Call[R_co]:
        return Call(self, self.codec.encode(args, kwargs), self.settings)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """Insert a job with these arguments and return its handle. The job is committed.

        After `within()` it is part of the caller's transaction and is committed with it. May be
        called from any thread. Raises InvalidArguments if the arguments do not fit the function or
        cannot be written as JSON, QueueFull for a bounded queue without room, ConfigurationError
        if the database cannot be used.
        """
        if self._within is not None and transaction_argument.is_async(self._within):
            raise InvalidOption(
                f"{self.name}: within() was given an async session; use "
                f"`await {self.name}.within(session).aenqueue(…)`",
                field="within",
            )
        return self._enqueue([self._call(args, kwargs)], self._within)[0]

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """`enqueue` for asyncio: inserts in a thread.

        After `within()` it takes an AsyncSession or AsyncConnection only. Raises InvalidOption for
        a Session, which must not be used by another thread.
        """
        call = self._call(args, kwargs)
        if self._within is None:
            jobs = await asyncio.to_thread(self._enqueue, [call], None)
        else:
            instead = f"write {self.name}.within(session).enqueue(…)"
            session = transaction_argument.aresolve(self._within, "aenqueue", instead)
            jobs = await session.run_sync(lambda sync: self._enqueue([call], sync))
        job: Job[R_co] = jobs[0]
        return job

    @overload
    def map(
        self: TakesOne[A, R], first: Iterable[A], /, **options: Unpack[MapOptions]
    ) -> Iterator[R]: ...

    @overload
    def map(
        self: TakesTwo[A, B, R],
        first: Iterable[A],
        second: Iterable[B],
        /,
        **options: Unpack[MapOptions],
    ) -> Iterator[R]: ...

    @overload
    def map(
        self: TakesThree[A, B, C, R],
        first: Iterable[A],
        second: Iterable[B],
        third: Iterable[C],
        /,
        **options: Unpack[MapOptions],
    ) -> Iterator[R]: ...

    @overload
    def map(
        self: "Task[..., R]",
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        fourth: Iterable[Any],
        /,
        *more: Iterable[Any],
        **options: Unpack[MapOptions],
    ) -> Iterator[R]: ...

    def map(
        self,
        *arguments: Iterable[Any],
        ordered: bool = True,
        window: int = 1000,
        timeout: Duration | None = None,
    ) -> Iterator[Any]:
        """Enqueue a job for each item, in bulk, and yield the results.

        With several iterables the n-th job gets the n-th item of each, as with the builtin `map`.
        Results come in the order of the items, or in the order in which jobs end if `ordered` is
        False. At most about `window` jobs are enqueued or unread at a time, so an iterable may be
        endless. Raises JobFailed or JobCancelled at the first job that does not succeed (jobs that
        are enqueued by then go on), and ResultTimeout `timeout` seconds after the first `next()`.
        """
        if self._within is not None or self.settings.unique_key is not None:
            what = "within" if self._within is not None else "unique_key"
            raise invalid(what, "not with map(), which waits for many jobs")
        option_rules.whole(window, "window", 2, 1_000_000)
        limit = None if timeout is None else option_rules.seconds(timeout, "timeout")
        if not arguments:
            raise InvalidOption("map: give it an iterable for each argument", field="arguments")
        calls = (self._call(items, {}) for items in zip(*arguments, strict=False))
        batches = self._in_bulk(calls, window // 2)
        return Window(batches, window, ordered=ordered, timeout=limit).results()

    def _in_bulk(self, calls: Iterator[Call[R_co]], size: int) -> Iterator[list[Job[R_co]]]:
        while batch := list(itertools.islice(calls, size)):
            try:
                made = self._enqueue(batch, None)
            except QueueFull as full:
                if len(batch) <= full.max_pending:
                    raise
                size = full.max_pending  # A larger batch can never fit.
                calls = itertools.chain(batch, calls)
            else:
                yield made

    @option_rules.listing(OptionChanges, Options)
    def options(self, **changes: Unpack[OptionChanges]) -> Self:
        """Return a copy with other options, see `OptionChanges`. Raises InvalidOption."""
        for option in option_rules.OF_TASK:
            if option in changes:
                raise invalid(
                    option,
                    f"it belongs to the task, not to a call; write @jobs.task({option}=…)",
                    changes.get(option),
                )
        return replace(self, settings=self.settings.merge(changes))

    def within(self, transaction: Transaction) -> Self:
        """Return a copy that enqueues in the caller's transaction, to be committed with it.

        `transaction` is SQLAlchemy's Session, scoped_session or Connection on the same database,
        or AsyncSession or AsyncConnection for `aenqueue`. It is never begun, committed or rolled
        back here. Raises InvalidOption for anything else.
        """
        transaction_argument.check(transaction, "within")
        return replace(self, _within=transaction)


class AsyncTask(Task[P, R_co]):
    """A task that is an `async def`. A direct call returns its coroutine, without a job."""

    if TYPE_CHECKING:  # At run time the function itself returns a coroutine.

        def __call__(  # type: ignore[override]
            self, *args: P.args, **kwargs: P.kwargs
        ) -> Coroutine[Any, Any, R_co]:
            """Return the function's coroutine."""


class TaskDecorator(Protocol):
    """What `task(…)` with options returns: a decorator that registers a function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class Registry(Mapping[str, Task[..., Any]]):
    """The tasks of one queue by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] | ChainMap[str, Task[..., Any]] = {}
        self.queues = DeclaredQueues()
        """The queues that the app declares, by name, beside those that its tasks name."""
        self.app: str | None = None
        """`module:attribute` of the JobQueue, as given with --app or $JOBQUEUE_APP; else None."""
        self.folder: str | None = None
        """The working folder when the JobQueue was created; None if that had been deleted."""

    def add(self, task: Task[..., Any]) -> None:
        """Register a task. Raises ConfigurationError, with both places, if its name is taken."""
        option_rules.name(task.name, "task")
        there = self._tasks.get(task.name)
        if there is not None:
            raise ConfigurationError(
                f"two tasks are named {task.name!r}: {_place(there)} and {_place(task)}; "
                "give one of them name=…",
                field="name",
                value=task.name,
            )
        self._tasks[task.name] = task

    def __getitem__(self, name: str) -> Task[..., Any]:
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(f"no task is named {name!r}", field="task", value=name) from None

    def find(self, name: str) -> Task[..., Any] | None:
        """Return the task of that name, or None. Called for each job: no exception is made."""
        return self._tasks.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def _place(task: Task[..., Any]) -> str:
    code = getattr(inspect.unwrap(task.function), "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else "unknown place"
    return f"{task.function.__qualname__} ({where})"
