"""JobQueue, the façade: register tasks, enqueue, wait, list, cancel, retry, and run a worker."""

import asyncio
import copy
import inspect
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, ParamSpec, Self, TypeVar, Unpack, overload

from sqlalchemy import URL

from jobqueue import options as option_rules
from jobqueue import paths, redaction
from jobqueue.config import database
from jobqueue.config import pool_size as pool_size_of
from jobqueue.database_binding import Binding, write_declarations
from jobqueue.enqueue_hooks import EnqueueHook, check_calls, through_hooks
from jobqueue.error_groups import ErrorGroup
from jobqueue.errors import ConfigurationError, Duration, JobNotFound
from jobqueue.events import EventStream, Subscriber
from jobqueue.job import Job, as_completed
from jobqueue.job_verbs import ID_MAX, JobVerbs
from jobqueue.literal_types import ErrorWindow, EventName, StateName, WhenFull
from jobqueue.options import Options, TaskOptions
from jobqueue.queue_switches import Queue, QueueSwitches, place_of_caller
from jobqueue.records import JobFilter, JobRecord
from jobqueue.schedules.api import Schedules
from jobqueue.schedules.scheduled_calls import declaration
from jobqueue.serialization.codec import Codec
from jobqueue.states import State
from jobqueue.store import transaction_argument
from jobqueue.store.backpressure import QueueLimit, queue_bound
from jobqueue.store.database import POOL_SIZE
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.transaction_argument import SyncTransaction, Transaction
from jobqueue.store.urls import masked
from jobqueue.tasks import AsyncTask, Call, Registry, Task, TaskDecorator
from jobqueue.worker.assembly import Assembly
from jobqueue.worker.handler.context import running_attempt
from jobqueue.worker.handler.run import Middleware
from jobqueue.worker.isolate.importing import ImportGuard
from jobqueue.worker.isolate.pool import require
from jobqueue.worker.settings import WorkerOptions, WorkerSettings
from jobqueue.worker.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")

ASYNC_PAGE = 500
"""Rows that `alist` reads with one call of a thread."""
IN_RUN_SYNC = "write await session.run_sync(lambda sync: jobs.enqueue_many(…, within=sync))"


class JobQueue(JobVerbs):
    """A durable job queue in a SQLite file or a Postgres database.

    `url` is a SQLAlchemy URL of either; None takes $JOBQUEUE_URL, then `url` of [tool.jobqueue] in
    pyproject.toml, then `sqlite:///jobqueue.db`. The first use connects. In a SQLite file the first
    enqueue, worker or pause creates the tables; else `jobqueue db upgrade` does, and without them
    methods raise SchemaOutdated. May be used from any thread. Raises ConfigurationError.

    `pool_size` is the most connections that this process opens at once, 4 by default, 1 to 1,000;
    $JOBQUEUE_POOL_SIZE wins over it, because who runs a program knows the server.
    """

    def __init__(self, url: str | None = None, *, pool_size: int | None = None) -> None:
        self._pool_size = pool_size_of(pool_size) or POOL_SIZE
        self.registry = Registry()
        with suppress(ConfigurationError):
            self.registry.folder = str(paths.current())
        self.events = EventStream()
        self.middleware: list[Middleware] = []
        self.enqueue_hooks: list[EnqueueHook] = []
        self._limits: dict[str, QueueLimit] = {}
        found = database(url)
        with paths.meant_from(found.folder):
            self._set(Binding.to(found.url, self._pool_size, self._limits, named=found.named))

    def _set(self, to: Binding) -> None:
        self.store, self._jobs, self._transactions, self._notifier, self._made = to
        self._hidden = redaction.Declarations(self.store)

    def bind(self, to: Binding) -> Binding:
        """Switch to another database, with the same tasks, hooks and bounds; for tests.

        Returns the binding that was replaced, so that it can be bound again. Handles of jobs stay
        with their database.
        """
        before = Binding(self.store, self._jobs, self._transactions, self._notifier, self._made)
        to.jobs.limits.declare(self._limits)
        self._set(to)
        return before

    def elsewhere(self, url: str | URL) -> Self:
        """Return a copy on another database, with the same tasks, bounds, hooks and middleware."""
        other = copy.copy(self)
        other._set(Binding.to(url, self._pool_size, self._limits))  # noqa: SLF001 - it is one of ours.
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

    @option_rules.listing(TaskOptions, Options)
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Register a function as a task: `@jobs.task`, or `@jobs.task(…)` with `TaskOptions`.

        `name` is the task's name in the database, the function's by default. Raises
        ConfigurationError for a name that is taken or a function that cannot be a task,
        InvalidOption for a wrong option.
        """
        if function is None:
            return lambda function: self._register(function, name, options)
        return self._register(function, name, options)

    def queue(
        self,
        name: str,
        *,
        limit: int | None = None,
        rate: str | None = None,
        burst: int | None = None,
        fair: bool = False,
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
        timeout: Duration | None = None,
    ) -> Queue:
        """Declare how a queue's jobs start, and how many may wait; see docs/limits.md.

        At most `limit` jobs run at once in the whole fleet (0: none starts), and start at a `rate`
        like `"100/minute"`, of which `burst` may run ahead. With `fair` the concurrency keys take
        turns. Workers of this app write these at their start, where they have changed in the code.

        `max_pending` bounds the scheduled and available jobs (1 to 10,000,000). An enqueue into a
        full queue waits for up to `timeout` seconds (None: without a limit) and then raises
        QueueFull. With `when_full="reject"`, and in a caller's own transaction, it raises at once.
        The bound is written when this object first enqueues or starts a worker, or within a
        caller's transaction with its first job of this queue, and then holds for every process.
        Retries may exceed it. Raises InvalidOption; ConfigurationError if it is declared otherwise.
        """
        checked = option_rules.name(name, "queue")
        switches = QueueSwitches.of(limit, rate, burst, fair)
        bound = queue_bound(max_pending, when_full, timeout)
        given = {"max_pending": None} if bound is None else bound._asdict()
        self.registry.queues.declare(checked, switches, given, place_of_caller())
        if bound is not None:
            self._limits[checked] = bound
            self._jobs.limits.declare({checked: bound})
        return Queue(checked)

    def _register(
        self, function: Callable[..., Any], name: str | None, options: TaskOptions
    ) -> Task[..., Any]:
        known_as = name or str(getattr(function, "__name__", "task"))
        settings = Options().merge(options, of_task=True)
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
        redaction.Hidden.of(function, settings.redact)  # Raises for what is not a parameter.
        task.codec.hidden = settings.redact
        if settings.schedule is not None:
            declaration(task)  # Raises where a tick could not call it.
        self.registry.add(task)
        return task

    def _enqueue(
        self, calls: Sequence[Call[Any]], within: Transaction | None = None, *, wait: bool = True
    ) -> list[Job[Any]]:
        if ImportGuard.active:
            ImportGuard.refuse("jobs are enqueued")
        if self.enqueue_hooks:
            calls = through_hooks(self.enqueue_hooks, calls)
        new = [call.to_new_job() for call in calls]
        if (parent := running_attempt()) is not None:
            new = parent.with_deadline(new)
        outcome, tasks = None, (call.task for call in calls)
        if within is None:
            self._hidden.write(tasks)
            inserted = self._jobs.insert(new, wait=wait, notifier=self._notifier)
        else:
            transaction = transaction_argument.resolve(within, "within", IN_RUN_SYNC)
            with self._transactions.using(transaction) as connection:
                self._hidden.write(tasks, connection)
                inserted = self._jobs.insert(new, connection, wait=wait)
                outcome = self._transactions.outcome(connection, inserted)
            self._transactions.after_commit(transaction, self._notifier.notify)
        made: list[Job[Any]] = [
            Job(
                row.id,
                self._jobs,
                call.task.codec.decode_result,
                created=row.created,
                within=outcome,
            )
            for call, row in zip(calls, inserted, strict=True)
        ]
        if self._made is not None:
            self._made(made)
        return made

    def enqueue_many(
        self, calls: Iterable[Call[R]], *, within: SyncTransaction | None = None, wait: bool = True
    ) -> list[Job[R]]:
        """Insert many jobs in one transaction, all or none, and return their handles in order.

        Ids grow in the order of the calls. `within` is the caller's Session, scoped_session or
        Connection. Raises QueueFull; with `wait=False` at once, even if the queue's `when_full` is
        "wait". Raises InvalidArguments for an item that is not `task.call(…)`.
        """
        return self._enqueue(check_calls(calls), within, wait=wait)

    def as_completed(
        self, jobs: Iterable[Job[R]], timeout: Duration | None = None
    ) -> Iterator[Job[R]]:
        """Yield jobs as they end. Raises ResultTimeout after `timeout` seconds."""
        return as_completed(jobs, timeout)

    def get(self, id_: int) -> Job[Any]:
        """Return the handle of a job by its id. Raises JobNotFound."""
        option_rules.whole(id_, "id", 1, ID_MAX)
        record = self._jobs.get(id_)
        if record is None:
            raise JobNotFound(f"there is no job {id_}", field="id", value=id_)
        task = self.registry.find(record.task)
        return Job(id_, self._jobs, task.codec.decode_result if task else json.loads)

    async def aget(self, id_: int) -> Job[Any]:
        """`get` for asyncio: reads in a thread."""
        return await asyncio.to_thread(self.get, id_)

    def list(
        self,
        *,
        state: State | StateName | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        error: str | None = None,
        limit: int | None = 50,
    ) -> Iterator[JobRecord]:
        """Yield rows that match all filters, newest first; `limit=None` yields all, in pages.

        `since` is an aware datetime: jobs created then or later. `error` is the id of one of
        `errors()`. Raises InvalidOption.
        """
        state = None if state is None else option_rules.one_of(state, "state", tuple(State))
        since = None if since is None else option_rules.instant(since, "since")
        limit = None if limit is None else option_rules.whole(limit, "limit", 0, ID_MAX)
        option_rules.texts(task=task, queue=queue, tag=tag, error=error)
        error = None if error is None else ErrorGroups(self.store).resolve(error)
        wanted = JobFilter(state, task, queue, tag, since, error=error)
        return self._jobs.find(wanted, limit)

    async def alist(
        self,
        *,
        state: State | StateName | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        error: str | None = None,
        limit: int | None = 50,
    ) -> AsyncIterator[JobRecord]:
        """`list` for asyncio: `async for record in jobs.alist(…)`; reads pages in a thread."""
        ask = partial(self.list, state=state, task=task, queue=queue, tag=tag)
        found = await asyncio.to_thread(ask, since=since, error=error, limit=limit)
        while page := await asyncio.to_thread(lambda: [*islice(found, ASYNC_PAGE)]):
            for record in page:
                yield record

    def errors(self, since: ErrorWindow = "7d", task: str | None = None) -> Sequence[ErrorGroup]:
        """Return what has errored, by task, type and place, the most frequent first.

        `since` is "1h", "24h" or "7d", in whole hours. Raises InvalidOption.
        """
        option_rules.texts(task=task)
        return ErrorGroups(self.store).find(since, task)

    @property
    def schedules(self) -> Schedules:
        """What runs at fixed times: list, add, pause, resume, run, reset and remove it."""
        return Schedules(self.store, self.registry, self._notifier, self.enqueue_hooks)

    def wake_workers(self) -> None:
        """Wake sleeping workers: after an enqueue on a bare connection has been committed."""
        self._notifier.notify()

    def on(self, event: EventName, subscriber: Subscriber) -> Subscriber:
        """Call `subscriber(event)` in the worker when an event of that name has been committed.

        Names: succeeded, failed, cancelled, errored, snoozed, released, lost. What it raises is
        logged. Raises InvalidOption.
        """
        option_rules.function(subscriber, "on")
        self.events.subscribe(event, subscriber)
        return subscriber

    @overload
    def use(self, middleware: Middleware) -> Middleware: ...

    @overload
    def use(self, *, enqueue: EnqueueHook) -> EnqueueHook: ...

    def use(
        self, middleware: Middleware | None = None, *, enqueue: EnqueueHook | None = None
    ) -> Any:
        """Wrap every handler, or see every call before it is enqueued; return what was given.

        `middleware(context, run)` calls `run()` and returns its result. `enqueue(call, send)`
        returns `send(call)`, or `send(call.with_headers({…}))`, or raises EnqueueRefused: then
        none of the calls that are enqueued together is inserted.
        """
        given = enqueue if middleware is None else middleware
        option_rules.function(given, "use")
        if middleware is not None:
            self.middleware.append(middleware)
        if enqueue is not None:
            self.enqueue_hooks.append(enqueue)
        return given

    @option_rules.listing(WorkerOptions, WorkerSettings)
    def worker(self, **settings: Unpack[WorkerOptions]) -> Worker:
        """Return a worker: a context manager, or `start()` and `stop()`. See `WorkerOptions`."""
        return self.worker_of(WorkerSettings.of(**settings))

    def worker_of(self, settings: WorkerSettings) -> Worker:
        """`worker` with settings that have been checked."""
        assembly = Assembly(
            self.registry,
            settings,
            events=self.events,
            middleware=self.middleware,
            enqueue_hooks=self.enqueue_hooks,
            handlers=self.store,
        )
        return Worker(assembly, partial(write_declarations, self._jobs.limits, self.registry))

    def close(self) -> None:
        """Send pending wake-ups and close idle connections."""
        self._notifier.close()
        self.store.close()
        self._jobs.limits.declare(self._limits)  # A new database may be there next.
        self._hidden = redaction.Declarations(self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
