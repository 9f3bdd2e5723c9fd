"""The façade: the object that a program registers tasks with and enqueues and works through."""

import asyncio
import copy
import inspect
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack, overload

from sqlalchemy import URL

from jobqueue import options as option_rules
from jobqueue import paths
from jobqueue.binding import Binding
from jobqueue.config import database
from jobqueue.config import pool_size as pool_size_of
from jobqueue.errors import (
    ConfigurationError,
    Duration,
    InvalidArguments,
    JobNotFound,
)
from jobqueue.events import EventStream, Subscriber
from jobqueue.job import Job, as_completed, require_changed
from jobqueue.literals import EventName, StateName, WhenFull
from jobqueue.options import Options, TaskOptions
from jobqueue.records import JobFilter, JobRecord, NewJob
from jobqueue.serialization.codec import Codec
from jobqueue.states import State
from jobqueue.store import transaction_argument
from jobqueue.store.backpressure import WHEN_FULL, Bound
from jobqueue.store.database import POOL_SIZE
from jobqueue.store.stats import Monitor
from jobqueue.store.transaction_argument import SyncTransaction, Transaction
from jobqueue.store.urls import masked
from jobqueue.tasks import AsyncTask, Call, Registry, Task, TaskDecorator
from jobqueue.worker.handler.context import running_attempt
from jobqueue.worker.handler.run import Middleware
from jobqueue.worker.isolate.importing import ImportGuard
from jobqueue.worker.isolate.pool import require
from jobqueue.worker.settings import WorkerOptions, WorkerSettings
from jobqueue.worker.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")


ID_MAX = 2**63 - 1
PENDING_MAX = 10_000_000
ASYNC_PAGE = 500
"""Records that `alist` has a thread read at once."""
IN_RUN_SYNC = "write await session.run_sync(lambda sync: jobs.enqueue_many(…, within=sync))"


class Queue(str):
    """A queue's name, once its bound is declared: to be given wherever a name is."""

    __slots__ = ()


class JobQueue:
    """A durable job queue in a SQLite file or a Postgres database.

    `url` is any SQLAlchemy URL of the two; None takes $JOBQUEUE_URL, then pyproject.toml, then
    `sqlite:///jobqueue.db`. Nothing is connected to before the first use. In a SQLite file the
    tables are made by the first enqueue, worker or pause; what only reads or changes jobs that are
    there raises SchemaOutdated without them. May be used from any thread. Raises
    ConfigurationError for a URL that cannot be used.

    `pool_size`: how many connections this process may open at once, 4 unless it is given;
    $JOBQUEUE_POOL_SIZE comes first, since who runs a program knows its server.
    """

    def __init__(self, url: str | None = None, *, pool_size: int | None = None) -> None:
        self._pool_size = pool_size_of(pool_size) or POOL_SIZE
        self.registry = Registry()
        with suppress(ConfigurationError):
            self.registry.folder = str(paths.current())
        self.events = EventStream()
        self.middleware: list[Middleware] = []
        self._bounds: dict[str, Bound] = {}
        found = database(url)
        self._set(Binding.to(found.url, self._pool_size, self._bounds, named=found.named))

    def _set(self, to: Binding) -> None:
        self.store, self._jobs, self._transactions, self._bell, self._made = to

    def bind(self, to: Binding) -> Binding:
        """Work on another database from now on, with the same tasks, hooks and bounds; for tests.

        Returns what it worked on, to be bound again. Handles stay with their database.
        """
        before = Binding(self.store, self._jobs, self._transactions, self._bell, self._made)
        to.jobs.bounds.declare(self._bounds)
        self._set(to)
        return before

    def elsewhere(self, url: str | URL) -> Self:
        """The same queue on another database: its tasks, bounds, hooks, whatever it declares."""
        other = copy.copy(self)
        other._set(Binding.to(url, self._pool_size, self._bounds))  # noqa: SLF001 - it is one of ours.
        return other

    def __repr__(self) -> str:
        return f"JobQueue({masked(self.store.url)!r})"

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, /, *, name: str | None = None, **options: Unpack[TaskOptions]
    ) -> TaskDecorator: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Register a function as a task, as a decorator with or without options: `TaskOptions`.

        Raises ConfigurationError for a function that cannot be one, InvalidOption for an option.
        """
        if function is None:
            return lambda function: self._register(function, name, options)
        return self._register(function, name, options)

    def queue(
        self,
        name: str,
        *,
        max_pending: int,
        when_full: WhenFull = "wait",
        timeout: Duration | None = None,
    ) -> Queue:
        """Bound a queue: at most `max_pending` scheduled and available jobs, whoever enqueues them.

        An enqueue that finds it full waits, up to `timeout` seconds (None: as long as it takes),
        or, with `when_full="reject"`, and in a caller's own transaction, raises QueueFull at once.
        The bound is written when this object first enqueues or starts a worker, or within a
        caller's transaction with its first job of this queue, and then holds for every process.
        Retries may exceed it.
        Raises InvalidOption.
        """
        checked = option_rules.name(name, "queue", longest=option_rules.QUEUE_LENGTH_MAX)
        bound = Bound(
            option_rules.whole(max_pending, "max_pending", 1, PENDING_MAX),
            option_rules.one_of(when_full, "when_full", WHEN_FULL),
            None if timeout is None else option_rules.seconds(timeout, "timeout"),
        )
        self._bounds[checked] = bound
        self._jobs.bounds.declare({checked: bound})
        self.registry.queues.add(checked)
        return Queue(checked)

    def _register(
        self, function: Callable[..., Any], name: str | None, options: TaskOptions
    ) -> Task[..., Any]:
        known_as = name or str(getattr(function, "__name__", ""))
        settings = Options().merge(options)
        kind = AsyncTask if inspect.iscoroutinefunction(function) else Task
        task = kind(
            function,
            known_as,
            settings,
            Codec(function, known_as),
            self._enqueue,
            settings.backoff,
            middleware=self.middleware,
        )
        if settings.isolation == "process" and "<locals>" in function.__qualname__:
            require(task, None)
        self.registry.add(task)
        return task

    def _enqueue(
        self,
        calls: Sequence[Call[Any]],
        within: Transaction | None = None,
        *,
        wait: bool = True,
    ) -> list[Job[Any]]:
        if ImportGuard.active:
            ImportGuard.refuse("jobs are enqueued")
        new = _inherit([call.to_new_job() for call in calls])
        fate = None
        if within is None:
            inserted = self._jobs.insert(new, wait=wait)
            self._bell.ring()
        else:
            transaction = transaction_argument.resolve(within, "within", IN_RUN_SYNC)
            with self._transactions.using(transaction) as connection:
                inserted = self._jobs.insert(new, connection, wait=wait)
                fate = self._transactions.fate(connection, inserted)
            self._transactions.after_commit(transaction, self._bell.ring)
        made: list[Job[Any]] = [
            Job(
                row.id,
                self._jobs,
                call.task.codec.decode_result,
                created=row.created,
                fate=fate,
            )
            for call, row in zip(calls, inserted, strict=True)
        ]
        if self._made is not None:
            self._made(made)
        return made

    def enqueue_many(
        self,
        calls: Iterable[Call[R]],
        *,
        within: SyncTransaction | None = None,
        wait: bool = True,
    ) -> list[Job[R]]:
        """Write many calls down in one transaction, all or none. Ids grow in their order.

        `within` is a Session, scoped_session or Connection. Raises QueueFull; with `wait=False` at
        once, for a queue that is to be waited for too.
        """
        if isinstance(calls, Call):
            raise InvalidArguments(
                "enqueue_many: a single call; write enqueue_many([task.call(…), …])",
                field="calls",
                value=calls,
            )
        listed = list(calls)
        for place, call in enumerate(listed):
            if not isinstance(call, Call):
                raise InvalidArguments(
                    f"enqueue_many: item {place} is a {type(call).__name__}, not a call; "
                    "write task.call(…)",
                    field=f"calls[{place}]",
                    value=call,
                )
        return self._enqueue(listed, within, wait=wait)

    def as_completed(
        self, jobs: Iterable[Job[R]], timeout: Duration | None = None
    ) -> Iterator[Job[R]]:
        """Yield jobs as they end. Raises ResultTimeout after `timeout` seconds."""
        return as_completed(jobs, timeout)

    def get(self, id_: int) -> Job[Any]:
        """A handle on a job by its id. Raises JobNotFound."""
        option_rules.whole(id_, "id", -ID_MAX, ID_MAX)
        record = self._jobs.get(id_)
        if record is None:
            raise JobNotFound(f"there is no job {id_}", field="id", value=id_)
        task = self.registry.get(record.task) if record.task in self.registry else None
        return Job(id_, self._jobs, task.codec.decode_result if task else json.loads)

    async def aget(self, id_: int) -> Job[Any]:
        """`get` for asyncio: the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.get, id_)

    def list(
        self,
        *,
        state: State | StateName | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        limit: int | None = 50,
    ) -> Iterator[JobRecord]:
        """Jobs that match, newest first; `limit=None` gives all, read in pages."""
        state = None if state is None else option_rules.one_of(state, "state", tuple(State))
        since = None if since is None else option_rules.instant(since, "since")
        limit = None if limit is None else option_rules.whole(limit, "limit", 0, ID_MAX)
        option_rules.texts(task=task, queue=queue, tag=tag)
        return self._jobs.find(JobFilter(state, task, queue, tag, since), limit)

    async def alist(
        self,
        *,
        state: State | StateName | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        limit: int | None = 50,
    ) -> AsyncIterator[JobRecord]:
        """`list` for asyncio: `async for record in jobs.alist(…)`."""
        found = await asyncio.to_thread(
            self.list, state=state, task=task, queue=queue, tag=tag, since=since, limit=limit
        )
        while page := await asyncio.to_thread(lambda: [*islice(found, ASYNC_PAGE)]):
            for record in page:
                yield record

    def cancel(self, *ids: int) -> None:
        """Cancel jobs that wait; ask those that run to stop. Raises JobNotFound or WrongState."""
        require_changed(self._jobs.cancel(_named(ids))[1])

    def retry(self, *ids: int, succeeded: bool = False) -> None:
        """Run final jobs again with a fresh budget of attempts; make scheduled ones due now.

        `succeeded=True` runs those that have succeeded once more, too. Raises JobNotFound or
        WrongState; the other jobs are retried then.
        """
        changed, refused = self._jobs.rerun(_named(ids), succeeded=succeeded)
        if changed:
            self._bell.ring()
        require_changed(refused)

    def delete(self, *ids: int) -> None:
        """Delete jobs that do not run. Raises JobNotFound or WrongState."""
        require_changed(self._jobs.delete(_named(ids))[1])

    def pause(self, queue: str) -> None:
        """Stop workers from claiming jobs of a queue; those that run go on."""
        Monitor(self.store).pause(option_rules.name(queue, "queue"))

    def resume(self, queue: str) -> None:
        """Let workers claim jobs of a queue again."""
        Monitor(self.store).resume(option_rules.name(queue, "queue"))
        self._bell.ring()

    def ring(self) -> None:
        """Wake sleeping workers: after an enqueue on a bare connection has been committed."""
        self._bell.ring()

    def on(self, event: EventName, subscriber: Subscriber) -> Subscriber:
        """Call `subscriber(event)` in the worker after each event of that name was committed.

        Names: succeeded, failed, cancelled, errored, snoozed, released, lost.
        """
        option_rules.function(subscriber, "on")
        self.events.subscribe(event, subscriber)
        return subscriber

    def use(self, middleware: Middleware) -> Middleware:
        """Wrap every handler: `middleware(context, run)` calls `run()` and returns its result."""
        option_rules.function(middleware, "use")
        self.middleware.append(middleware)
        return middleware

    def worker(self, **settings: Unpack[WorkerOptions]) -> Worker:
        """A worker inside this program: a context manager, or `start()` and `stop()`.

        For the settings see `WorkerOptions`. Raises InvalidOption.
        """
        return self.worker_of(WorkerSettings.of(**settings))

    def worker_of(self, settings: WorkerSettings) -> Worker:
        """`worker` with settings that are made already."""
        return Worker(
            self.store.url,
            self.registry,
            settings,
            events=self.events,
            middleware=self.middleware,
            handlers=self.store,
            declared=self._jobs.bounds.write,
        )

    def close(self) -> None:
        """Send pending wake-ups and close idle connections."""
        self._bell.close()
        self.store.close()
        self._jobs.bounds.declare(self._bounds)  # What is there at the next use may lack them.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


def _inherit(new: list[NewJob]) -> list[NewJob]:
    """What a job enqueues has to end with it, unless it was given a deadline of its own."""
    parent = running_attempt()
    if parent is None or parent.budget() == math.inf:
        return new
    left = max(0.0, parent.budget())
    return [job if job.deadline is not None else job._replace(deadline=left) for job in new]


def _named(ids: tuple[int, ...]) -> JobFilter:
    return JobFilter(ids=tuple(option_rules.whole(id_, "id", -ID_MAX, ID_MAX) for id_ in ids))
