"""QueueTester: run the jobs of an application's queue in a test, and assert on them."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar, overload

from jobqueue.database_binding import Binding
from jobqueue.errors import Duration, JobNotFound, JobQueueError, WrongState
from jobqueue.job import Job
from jobqueue.options import seconds
from jobqueue.queue import JobQueue
from jobqueue.records import Claim, JobFilter
from jobqueue.states import WAITING, OutcomeKind, State
from jobqueue.store import transaction_argument
from jobqueue.store.testing import BorrowingStore, make_due, pass_time, seconds_to_next
from jobqueue.store.transaction_argument import SyncTransaction
from jobqueue.store.urls import as_text
from jobqueue.tasks import Call, Task
from jobqueue.testing.enqueued_jobs import Enqueued, matcher
from jobqueue.testing.inline_worker import Inline, Ran, explain
from jobqueue.testing.workerless_jobs import ObservedNotifier, WorkerlessJobs

P = ParamSpec("P")
R = TypeVar("R")

ATTEMPTS_MAX = 1000
"""The default limit of attempts in one drain."""
_NOTES = 8  # failed jobs that are named in a note of the exception
_WITH_SYNC = "write await session.run_sync(lambda sync: jobqueue.drain(within=sync))"


class QueueTester:
    """An application's queue on a test's database: collects enqueues and runs jobs."""

    def __init__(self, jobs: JobQueue, store: BorrowingStore) -> None:
        self.jobs = jobs
        """The application's own queue."""
        self._store = store
        self._rows = WorkerlessJobs(store)
        self._watchers: list[Callable[[Sequence[Job[Any]]], object]] = []
        self._inline: list[Ran] | None = None
        self._inline_scheduled = 0.0
        self._at_work = threading.Lock()
        self._again = False

    def __repr__(self) -> str:
        return f"QueueTester({self.jobs!r})"

    @property
    def url(self) -> str:
        """The database's URL with its password, for an engine of the application.

        It names the driver, because SQLAlchemy 2.0 and 2.1 differ in the default for PostgreSQL.
        """
        return as_text(self._store.url.set(drivername=self._store.engine.url.drivername))

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Bind the queue to the test's database for the block."""
        store = self._store
        notifier = ObservedNotifier(store.backend.notification_sender(store.engine), self._heard)
        before = self.jobs.bind(Binding(store, self._rows, store.users, notifier, self._enqueued))
        try:
            store.require_schema()
            yield
        finally:
            self.jobs.bind(before)
            notifier.close()

    @contextmanager
    def within(self, transaction: SyncTransaction) -> Iterator[None]:
        """Use this transaction for everything in the block, also for enqueues without `within`.

        `transaction` is a Session, scoped_session or Connection that the test rolls back. Raises
        InvalidOption for another one.
        """
        with self._store.borrowing(transaction_argument.resolve(transaction, "within", _WITH_SYNC)):
            yield

    @contextmanager
    def enqueues(self) -> Iterator[list[Job[Any]]]:
        """Collect the jobs that the block enqueues, in the order of their ids.

        A call whose unique key is held adds none. Jobs that were rolled back are removed at the end
        of the block.
        """
        made: list[Job[Any]] = []

        def watch(jobs: Sequence[Job[Any]]) -> None:
            made.extend(job for job in jobs if job.created)
            # With inline(), those of a handler are reported before its own.
            made.sort(key=lambda job: job.id)

        self._watchers.append(watch)
        try:
            yield made
        finally:
            self._watchers.remove(watch)
            made[:] = [job for job in made if _is_kept(job)]

    @overload
    def enqueued(self, task: Task[..., R], /) -> Enqueued[R]: ...

    @overload
    def enqueued(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Enqueued[R]: ...

    def enqueued(self, task: Task[..., R], /, *args: Any, **kwargs: Any) -> Enqueued[R]:
        """Return the scheduled and available jobs of a task by id; those with these arguments.

        `f(7)` equals `f(user_id=7)`, and a default may be left out. Arguments are compared by
        equality, so `unittest.mock.ANY` matches all. Raises InvalidArguments if they do not fit.
        """
        waiting = [row for state in WAITING for row in self._rows.find(JobFilter(state=state))]
        waiting.sort(key=lambda row: row.id)
        same = matcher(task, args, kwargs) if args or kwargs else None
        found: list[Job[R]] = [
            Job(row.id, self._rows, task.codec.decode_result)
            for row in waiting
            if row.task == task.name and (same is None or same(row))
        ]
        return Enqueued(found, waiting)

    def run(self, job: Job[R] | Call[R]) -> R:
        """Run one job in this thread, also before it is due, and return its stored result.

        A call is enqueued first. The attempt is recorded as by a worker. Raises what the handler
        raised (a Snooze too), WrongState if the job is neither scheduled nor available,
        JobQueueError if it cannot be claimed, as in a paused queue.
        """
        job = self._written(job)
        worker = self._worker()
        with self._working(), worker.lease():
            claim = self._claim(worker, job)
            attempt = worker.run(claim)
        return self._result(job, attempt)

    async def arun(self, job: Job[R] | Call[R]) -> R:
        """`run` for asyncio: an `async def` runs on this loop, another handler in a thread."""
        job = self._written(job)
        worker = self._worker()
        with self._working(), worker.lease():
            claim = self._claim(worker, job)
            await worker.handle(claim)
            attempt = worker.record()
        return self._result(job, attempt)

    def drain(
        self,
        *,
        with_scheduled: bool | Duration = False,
        within: SyncTransaction | None = None,
        raises: bool = True,
        limit: int = ATTEMPTS_MAX,
    ) -> list[Ran]:
        """Run available jobs, and those that they enqueue, until none is left; return the attempts.

        `with_scheduled=True` advances the database's time until no job is scheduled either, retries
        included; a duration (seconds or timedelta) advances it by that much. `within`: see
        `within()`. At the end raises the error of the first job whose last attempt errored, unless
        `raises` is False. An exception that is not an Exception, such as `pytest.fail`, is raised
        at once. Raises JobQueueError after `limit` attempts.
        """
        made: list[Ran] = []
        with nullcontext() if within is None else self.within(within), self._working():
            self._drain(made, _time(with_scheduled), limit)
        _raise(made, raises=raises)
        return made

    async def adrain(
        self,
        *,
        with_scheduled: bool | Duration = False,
        raises: bool = True,
        limit: int = ATTEMPTS_MAX,
    ) -> list[Ran]:
        """`drain` for asyncio: an `async def` runs on this loop, another handler in a thread."""
        made: list[Ran] = []
        worker, time_left = self._worker(), _time(with_scheduled)
        with self._working(), worker.lease():
            for claim in self._claims(worker, made, time_left, limit):
                await worker.handle(claim)
                made.append(worker.record())
        _raise(made, raises=raises)
        return made

    @contextmanager
    def inline(self, *, with_scheduled: bool = False, raises: bool = True) -> Iterator[list[Ran]]:
        """Run each job of the block as soon as it is committed; yields the list of attempts.

        A job of a plain Connection runs with the next one or at the end of the block, and jobs that
        a handler enqueues run after it. Errors are raised at the end of the block, as by `drain`:
        an enqueue never raises a handler's error.
        """
        if self._inline is not None:
            raise JobQueueError("inline(): this is within another inline() block already")
        made: list[Ran] = []
        self._inline = made
        self._inline_scheduled = _time(with_scheduled)
        try:
            yield made
            self._heard()
        finally:
            self._inline = None
        _raise(made, raises=raises)

    def _worker(self) -> Inline:
        jobs = self.jobs
        return Inline(
            self._store,
            jobs.registry,
            self._store.users,
            events=jobs.events,
            middleware=jobs.middleware,
        )

    def _enqueued(self, jobs: Sequence[Job[Any]]) -> None:
        for watch in self._watchers:
            watch(jobs)

    def _heard(self) -> None:
        """Run available jobs if inline() is active.

        A call while another thread runs jobs sets a flag, by which that thread drains again.
        """
        self._again = True
        while self._inline is not None and self._again and self._at_work.acquire(blocking=False):
            made, self._again = self._inline, False
            try:
                self._drain(made, self._inline_scheduled, ATTEMPTS_MAX)
            finally:
                self._at_work.release()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Run jobs in the block; inline() runs what they enqueue after it."""
        first = self._at_work.acquire(blocking=False)
        try:
            yield
        finally:
            if first:
                self._at_work.release()
                self._heard()

    def _drain(self, made: list[Ran], time_left: float, limit: int) -> None:
        worker = self._worker()
        wait = seconds_to_next(self._store)
        due = wait is not None and wait <= time_left
        if not (due or worker.sees_jobs() or 0 < time_left < math.inf):
            return  # Do not write: SQLite would wait for an open transaction of the test.
        with worker.lease():
            for claim in self._claims(worker, made, time_left, limit):
                made.append(worker.run(claim))  # noqa: PERF401 - _claims reads `made`.

    def _claims(
        self, worker: Inline, made: list[Ran], time_left: float, limit: int
    ) -> Iterator[Claim]:
        """Yield the claims to run; the caller appends each attempt to `made`."""
        began = len(made)
        unknown: set[int] = set()
        while True:
            if len(made) > began:
                _raise_at_once(made[-1])
                if made[-1].outcome == OutcomeKind.UNKNOWN_TASK:
                    unknown.add(made[-1].job)  # It is rescheduled for a worker that knows the task.
            worker.promote()
            claim = worker.claim_next()
            if claim is None:
                wait = seconds_to_next(self._store, unknown)
                if wait is None or wait > time_left:
                    break
                pass_time(self._store, max(wait, 0.0))
                time_left -= max(wait, 0.0)
            elif len(made) - began == limit:
                worker.give_back(claim)
                raise JobQueueError(
                    f"{limit} attempts were made, and job {claim.id} ({claim.task}) still waits: "
                    "does a job enqueue itself, or snooze, without end? drain(limit=…) allows more"
                )
            else:
                yield claim
        if 0 < time_left < math.inf:
            pass_time(self._store, time_left)

    def _written(self, job: Job[R] | Call[R]) -> Job[R]:
        return self.jobs.enqueue_many([job])[0] if isinstance(job, Call) else job

    def _claim(self, worker: Inline, job: Job[Any]) -> Claim:
        record = job.record()
        if record.state is State.SCHEDULED:
            make_due(self._store, job.id)
            worker.promote()
            record = job.record()
        claim = worker.claim(record)
        if claim is not None:
            return claim
        if record.state is not State.AVAILABLE:
            raise WrongState(
                f"job {record.id} ({record.task}) is {record.state}: only a job that waits is run",
                field="job",
                value=record.id,
            )
        raise JobQueueError(
            f"job {record.id} ({record.task}) cannot be claimed: is the queue "
            f"{record.queue!r} paused?"
        )

    def _result(self, job: Job[R], attempt: Ran) -> R:
        _raise_at_once(attempt)
        if attempt.state is not State.SUCCEEDED:
            raise explain(attempt)
        # Not job.result(), which refuses a job of a transaction that is open, as the test's may be.
        return job._result()  # noqa: SLF001


def _is_kept(job: Job[Any]) -> bool:
    """Return False if the transaction that enqueued it was rolled back."""
    try:
        job.require_kept()
    except JobNotFound:
        return False
    return True


def _time(with_scheduled: bool | Duration) -> float:  # noqa: FBT001
    """Return by how many seconds time may advance."""
    if isinstance(with_scheduled, bool):
        return math.inf if with_scheduled else 0.0
    return seconds(with_scheduled, "with_scheduled")


def _raise_at_once(attempt: Ran) -> None:
    """Raise KeyboardInterrupt, `pytest.fail` and the like at once: they end the test."""
    if attempt.raised is not None and not isinstance(attempt.raised, Exception):
        raise attempt.raised


def _raise(made: Sequence[Ran], *, raises: bool) -> None:
    last = {attempt.job: attempt for attempt in made}
    died = [attempt for attempt in last.values() if attempt.error is not None]
    if not died or not raises:
        return
    error = died[0].error
    assert error is not None, "it was chosen by that"
    for attempt in died[:_NOTES]:
        error.add_note(
            f"job {attempt.job} ({attempt.task}), attempt {attempt.number} {attempt.outcome}; "
            f"it is {attempt.state} now"
        )
    raise error
