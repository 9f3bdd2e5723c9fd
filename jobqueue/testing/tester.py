"""What a test asks of a queue that is bound to its database."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar, overload

from jobqueue.binding import Binding
from jobqueue.errors import (
    Duration,
    JobNotFound,
    JobQueueError,
    WrongState,
)
from jobqueue.job import Job
from jobqueue.options import seconds
from jobqueue.queue import JobQueue
from jobqueue.records import Claim, JobFilter
from jobqueue.states import WAITING, State
from jobqueue.store import transaction_argument
from jobqueue.store.testing import (
    BorrowingStore,
    make_due,
    pass_time,
    seconds_to_next,
)
from jobqueue.store.transaction_argument import SyncTransaction
from jobqueue.store.urls import as_text
from jobqueue.tasks import Call, Task
from jobqueue.testing.inline_worker import Inline, Ran, explain
from jobqueue.testing.lone_jobs import LoneJobs, ObservedNotifier
from jobqueue.testing.matching import Enqueued, matcher

P = ParamSpec("P")
R = TypeVar("R")

ATTEMPTS_MAX = 1000
"""Attempts that one drain makes, unless it is told otherwise."""
_NOTES = 8  # jobs that an error names
_WITH_SYNC = "write await session.run_sync(lambda sync: jobqueue.drain(within=sync))"


class QueueTester:
    """A queue that is bound to a test's database, and what a test asks of it."""

    def __init__(self, jobs: JobQueue, store: BorrowingStore) -> None:
        self.jobs = jobs
        """The application's own queue."""
        self._store = store
        self._rows = LoneJobs(store)
        self._watchers: list[Callable[[Sequence[Job[Any]]], object]] = []
        self._inline: list[Ran] | None = None
        self._inline_scheduled = 0.0
        self._at_work = threading.Lock()
        self._again = False

    def __repr__(self) -> str:
        return f"QueueTester({self.jobs!r})"

    @property
    def url(self) -> str:
        """The database's URL, its password included, for an engine of the application's.

        It names the driver, since SQLAlchemy 2.0 and 2.1 have other defaults for PostgreSQL.
        """
        return as_text(self._store.url.set(drivername=self._store.engine.url.drivername))

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Bind the queue to the test's database meanwhile."""
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
        """Do all in this transaction meanwhile, the application's plain enqueues included.

        `transaction` is a Session, scoped_session or Connection that the test will roll back.
        """
        with self._store.borrowing(transaction_argument.resolve(transaction, "within", _WITH_SYNC)):
            yield

    @contextmanager
    def enqueues(self) -> Iterator[list[Job[Any]]]:
        """Collect the jobs that are made in the block, in order.

        A call whose unique key is held makes none; one that is rolled back is taken out at the end.
        """
        made: list[Job[Any]] = []

        def watch(jobs: Sequence[Job[Any]]) -> None:
            made.extend(job for job in jobs if job.created)
            made.sort(key=lambda job: job.id)  # Inline, a handler's come before its own.

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
        """The jobs of a task that wait to be run, in order; with arguments, those of such a call.

        `f(7)` and `f(user_id=7)` are one call, and so is one with a default left out. An argument
        may be anything that is equal, such as `unittest.mock.ANY`. Raises InvalidArguments if they
        do not fit the task.
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
        """Run one job here and now, whenever it is due, and return its result as it was stored.

        A call is enqueued first. The attempt is recorded as a worker records it. Raises what the
        handler raised, a Snooze too; WrongState for a job that does not wait, JobQueueError for
        one that cannot be claimed.
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
        """Run what is available, and what that enqueues, until nothing is; returns the attempts.

        `with_scheduled=True` lets time pass until nothing is scheduled either, retries included;
        a duration lets so much time pass. `within`: see there. When all is done, raises what the
        first job died of whose last attempt errored, unless `raises` is false; at once what is no
        Exception, such as `pytest.fail`. Raises JobQueueError after `limit` attempts.
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
        """Run each job in the block as soon as it is committed, before the next line of the test.

        Gives the list of attempts. A job of a bare Connection runs with the next one, or at the
        end; what a handler enqueues, when that handler has ended. Errors are raised at the end of
        the block, as by `drain`: to enqueue never fails because of a handler.
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
        """Something may have become available: run it, if that is wanted.

        Whoever comes while another runs jobs leaves it to that one, which looks again.
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
        """Jobs are run: what they make available meanwhile waits until those have ended."""
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
            return  # Nothing is written: SQLite would wait for a transaction of the test's.
        with worker.lease():
            for claim in self._claims(worker, made, time_left, limit):
                made.append(worker.run(claim))  # noqa: PERF401 - it is read meanwhile.

    def _claims(
        self, worker: Inline, made: list[Ran], time_left: float, limit: int
    ) -> Iterator[Claim]:
        """What to run next, one after another; `made` is what became of those before."""
        began = len(made)
        unknown: set[int] = set()
        while True:
            if len(made) > began:
                _raise_at_once(made[-1])
                if made[-1].outcome == "unknown task":
                    unknown.add(made[-1].job)  # It waits for a worker that knows it.
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
        return job.result(timeout=0)


def _is_kept(job: Job[Any]) -> bool:
    """False once the transaction that made it was rolled back."""
    try:
        job.require_kept()
    except JobNotFound:
        return False
    return True


def _time(with_scheduled: bool | Duration) -> float:  # noqa: FBT001
    """Seconds that may pass."""
    if isinstance(with_scheduled, bool):
        return math.inf if with_scheduled else 0.0
    return seconds(with_scheduled, "with_scheduled")


def _raise_at_once(attempt: Ran) -> None:
    """An interrupt from the keyboard, `pytest.fail` and their like end the test, not an attempt."""
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
