"""Tasks: functions that the queue knows by name; and calls of them, not yet written down."""

import asyncio
import functools
import inspect
import itertools
import json
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

from jobqueue import options as option_rules
from jobqueue.errors import ConfigurationError, Duration, InvalidOption, QueueFull, UnknownTask
from jobqueue.job import Job, results
from jobqueue.options import OptionChanges, Options
from jobqueue.records import NewJob
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


@dataclass(frozen=True, slots=True)
class Call(Generic[R_co]):
    """A task with its arguments and options, to be enqueued with others: `task.call(…)`."""

    task: "Task[..., R_co]"
    args: str  # canonical JSON
    settings: Options

    def to_new_job(self) -> NewJob:
        """The row that enqueueing writes."""
        settings = self.settings
        key = settings.unique_key
        return NewJob(
            task=self.task.name,
            queue=settings.queue,
            priority=settings.priority,
            args=self.args,
            tags=json.dumps(settings.tags) if settings.tags else None,
            delay=settings.delay,
            at=settings.at,
            max_attempts=settings.max_attempts,
            timeout=settings.timeout,
            # The task's own backoff stays with the task, so that a deploy may change it.
            backoff=None if settings.backoff is self.task.own_backoff else _text(settings.backoff),
            unique_key=key,
            unique_until=None if key is None else settings.unique_until,
            deadline=settings.deadline,
        )


def _text(backoff: option_rules.Backoff | None) -> str | None:
    return None if backoff is None else backoff.to_text()


class Enqueue(Protocol):
    """All that a task knows of its queue."""

    def __call__(self, calls: Sequence[Call[Any]], within: Transaction | None) -> list[Job[Any]]:
        """Write calls down."""
        ...


class TakesOne(Protocol[A_contra, R_co]):
    """A task that can be called with one argument; by these `map` is typed."""

    def call(self, first: A_contra, /) -> Call[R_co]:
        """See `Task.call`."""
        ...


class TakesTwo(Protocol[A_contra, B_contra, R_co]):
    """A task that can be called with two arguments."""

    def call(self, first: A_contra, second: B_contra, /) -> Call[R_co]:
        """See `Task.call`."""
        ...


class TakesThree(Protocol[A_contra, B_contra, C_contra, R_co]):
    """A task that can be called with three arguments."""

    def call(self, first: A_contra, second: B_contra, third: C_contra, /) -> Call[R_co]:
        """See `Task.call`."""
        ...


class MapOptions(TypedDict, total=False):
    """What `map()` takes beside the arguments."""

    ordered: bool
    """Results come in the order of the items (True, the default), or as jobs end."""
    window: int
    """About how many jobs are there at a time, 1,000 by default."""
    timeout: Duration | None
    """Seconds from the first `next()` until it raises ResultTimeout. None: no limit."""


@dataclass(frozen=True)
class Task(Generic[P, R_co]):
    """A function that the queue knows by name. Calling it runs it, as if it were not a task.

    `options()` and `within()` return changed copies, so they can be chained and kept.
    """

    function: Callable[P, R_co]
    name: str
    settings: Options
    codec: Codec = field(repr=False)
    _enqueue: Enqueue = field(repr=False)
    own_backoff: option_rules.Backoff | None = field(default=None, repr=False)
    _within: Transaction | None = field(default=None, repr=False)
    middleware: Sequence[Any] = field(default=(), repr=False)
    """That of its queue, for a child process, which finds the task alone."""

    def __post_init__(self) -> None:
        # A frozen dataclass has no __setattr__ for update_wrapper to use; its __dict__ takes it.
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            if attribute not in ("__annotations__", "__type_params__"):
                self.__dict__[attribute] = getattr(self.function, attribute, None)
        self.__dict__["__wrapped__"] = self.function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function here and now."""
        return self.function(*args, **kwargs)

    @functools.cached_property
    def is_async(self) -> bool:
        """True for an `async def`: its jobs run on the worker's event loop."""
        return inspect.iscoroutinefunction(self.function)

    @functools.cached_property
    def runs_on_loop(self) -> bool:
        """True if its jobs run on the worker's event loop: async, and not in a child process."""
        return self.is_async and self.settings.isolation != "process"

    @functools.cached_property
    def wraps_async(self) -> bool:
        """True for a plain wrapper of an `async def`: a coroutine that it returns is awaited."""
        return wraps_coroutine(self.function)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """A call to be enqueued with others. Raises InvalidArguments if they do not fit."""
        if self._within is not None:
            raise InvalidOption(
                "within: calls are enqueued together; give enqueue_many(…, within=session)",
                field="within",
            )
        return self._call(args, kwargs)

    def _call(self, args: Any, kwargs: Any) -> Call[R_co]:
        return Call(self, self.codec.encode(args, kwargs), self.settings)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """Write a job down; when this returns, it survives every crash.

        Inside `within()` it exists when the caller's transaction commits. May be called from any
        thread. Raises InvalidArguments if the arguments do not fit the function.
        """
        if transaction_argument.is_async(self._within):
            raise InvalidOption(
                f"{self.name}: within() was given an async session; use "
                f"`await {self.name}.within(session).aenqueue(…)`",
                field="within",
            )
        return self._enqueue([self._call(args, kwargs)], self._within)[0]

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """`enqueue` for asyncio: the event loop goes on meanwhile.

        Inside `within()` it takes the async forms only; raises InvalidOption for a Session, which
        must not be used by another thread.
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
        """Enqueue a job for each item, in bulk, and yield what they return.

        With several iterables the n-th job gets the n-th item of each, as with `map()`. Results
        come in the order of the items, or as jobs end if `ordered` is false. About `window` jobs
        are there at a time, so an endless iterable is as good as a short one. The first job that
        does not succeed raises JobFailed or JobCancelled; those enqueued by then go on. Raises
        ResultTimeout `timeout` seconds after the first `next()`.
        """
        if self._within is not None or self.settings.unique_key is not None:
            what = "within" if self._within is not None else "unique_key"
            raise InvalidOption(f"{what}: not with map(), which waits for many jobs", field=what)
        option_rules.whole(window, "window", 2, 1_000_000)
        if not arguments:
            raise InvalidOption("map: give it an iterable for each argument", field="arguments")
        calls = (self._call(items, {}) for items in zip(*arguments, strict=False))
        return results(
            self._in_bulk(calls, window // 2), ordered=ordered, window=window, timeout=timeout
        )

    def _in_bulk(self, calls: Iterator[Call[R_co]], size: int) -> Iterator[list[Job[R_co]]]:
        while batch := list(itertools.islice(calls, size)):
            try:
                made = self._enqueue(batch, None)
            except QueueFull as full:
                if len(batch) <= full.max_pending:
                    raise
                size = full.max_pending  # More than that never fit in at once.
                calls = itertools.chain(batch, calls)
            else:
                yield made

    def options(self, **changes: Unpack[OptionChanges]) -> Self:
        """A copy with other options, see `OptionChanges`. Raises InvalidOption."""
        if "isolation" in changes:
            raise InvalidOption(
                "isolation: it belongs to the task, not to a call; write "
                '@jobs.task(isolation="process")',
                field="isolation",
                value=changes.get("isolation"),
            )
        return replace(self, settings=self.settings.merge(changes))

    def within(self, transaction: Transaction) -> Self:
        """A copy that enqueues in the caller's transaction, committed or rolled back with it.

        Takes a Session, scoped_session or Connection of SQLAlchemy on the same database, or the
        async form of one. It never begins, commits or rolls back anything on it. Raises
        InvalidOption for anything else.
        """
        transaction_argument.check(transaction, "within")
        return replace(self, _within=transaction)


class AsyncTask(Task[P, R_co]):
    """A task that is an `async def`. Calling it makes its coroutine, as if it were not a task."""

    if TYPE_CHECKING:  # At run time the function itself makes the difference.

        def __call__(  # type: ignore[override]
            self, *args: P.args, **kwargs: P.kwargs
        ) -> Coroutine[Any, Any, R_co]:
            """Make the coroutine here and now."""
            ...


class TaskDecorator(Protocol):
    """What `task(…)` with options returns: it makes a function a task."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class Registry(Mapping[str, Task[..., Any]]):
    """The tasks that one app knows."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        self.queues: set[str] = set()
        """The queues that the app declares, beside those that its tasks name."""
        self.app: str | None = None
        """`module:attribute` of the queue that these are of, where someone has named it."""
        self.folder: str | None = None
        """The folder that the program was in when it made that queue."""

    def add(self, task: Task[..., Any]) -> None:
        """Register a task; the same name twice is an error that names both places."""
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
        """The task of that name, or None; hot."""
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
