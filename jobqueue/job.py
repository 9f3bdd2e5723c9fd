"""Job, the handle on an enqueued job: read its state, wait for its result, cancel it."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from jobqueue.errors import (
    Duration,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobQueueError,
    ResultTimeout,
    WrongState,
)
from jobqueue.loggers import get_logger
from jobqueue.options import seconds as to_seconds
from jobqueue.polling import PollInterval
from jobqueue.records import JobFilter, JobRecord, Refusal, counted
from jobqueue.states import FINAL, State
from jobqueue.store.jobs import Jobs
from jobqueue.store.transaction_outcomes import TransactionOutcome
from jobqueue.store.why import Explanation, explain

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

log = get_logger("jobqueue.job")

FIRST_POLL = 0.001  # seconds


class Job(Generic[R_co]):
    """A handle on one job. May be used from any thread, and awaited in asyncio: `await job`."""

    def __init__(
        self,
        id_: int,
        jobs: Jobs,
        decode: Callable[[str], Any],
        *,
        created: bool = True,
        within: TransactionOutcome | None = None,
    ) -> None:
        self.id = id_
        self.created = created
        """False if a job with the same `unique_key` existed, which this handle then stands for."""
        self._jobs = jobs
        self._decode = decode
        self._within = within
        """The outcome of the caller's transaction; None for a job enqueued without one."""

    def __repr__(self) -> str:
        return f"Job({self.id})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Job) or other.id != self.id:
            return False
        return other._jobs.store.url == self._jobs.store.url

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def state(self) -> State:
        """The state in the database, read at each access. Raises JobNotFound."""
        return self.record().state

    def record(self) -> JobRecord:
        """Read the whole row. Raises JobNotFound."""
        self.require_kept()
        record = self._jobs.get(self.id)
        if record is None:
            raise JobNotFound(f"job {self.id} is not there (any more)")
        return record

    async def arecord(self) -> JobRecord:
        """`record` for asyncio: reads in a thread."""
        return await asyncio.to_thread(self.record)

    def why(self) -> Explanation:
        """Return why the job is where it is: in one sentence, with what to do about it.

        The claim's own conditions decide, one by one. Raises JobNotFound.
        """
        self.require_kept()
        explanation = explain(self._jobs, self.id)
        if explanation is None:
            raise JobNotFound(f"job {self.id} is not there (any more)")
        return explanation

    async def awhy(self) -> Explanation:
        """`why` for asyncio: reads in a thread."""
        return await asyncio.to_thread(self.why)

    def done(self) -> bool:
        """True if the job succeeded, failed or was cancelled. Raises JobNotFound."""
        return self.state in FINAL

    def cancel(self) -> None:
        """Cancel a job that waits; request a running one to stop, which `check()` tells it.

        Raises WrongState if it has succeeded or failed, JobNotFound if it was deleted.
        """
        self.require_kept()
        require_changed(self._jobs.cancel(JobFilter(ids=(self.id,)))[1])

    async def acancel(self) -> None:
        """`cancel` for asyncio: works in a thread. Raises what `cancel` raises."""
        await asyncio.to_thread(self.cancel)

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait until the job has ended, and return what the task returned, as its annotation says.

        `timeout` is in seconds; None waits without a limit, 0 asks once. Raises JobFailed,
        JobCancelled, ResultTimeout; JobNotFound if the job was deleted; JobQueueError if it was
        enqueued in a transaction that is still open.
        """
        self._refuse_uncommitted()
        watch = _Watch(timeout)
        while True:
            watch.ended([self])
            try:
                return self._result()
            except Exception as error:
                if not self._jobs.may_pass(error):  # It may have gone since.
                    raise

    def _result(self) -> R_co:
        return self._result_of(self.record())

    def _result_of(self, record: JobRecord) -> R_co:
        if record.state is State.SUCCEEDED:
            value: R_co = None if record.result is None else self._decode(record.result)  # type: ignore[assignment]
            return value
        if record.state is State.CANCELLED:
            raise JobCancelled(f"job {self.id} ({record.task}) was cancelled")
        if record.state is not State.FAILED:
            raise JobQueueError(f"job {self.id} ({record.task}) is {record.state}, not final")
        errors = tuple(
            attempt.error for attempt in self._jobs.attempts(record) if attempt.error is not None
        )
        last = f": {errors[-1].type}: {errors[-1].message}" if errors else ""
        why = f" ({record.reason})" if record.reason else ""
        spent = counted(record.attempt, "attempt")
        raise JobFailed(f"job {self.id} ({record.task}) failed after {spent}{why}{last}", errors)

    def __await__(self) -> Generator[Any, None, R_co]:
        """Await the result. Raises what `result` raises; the event loop is not blocked."""
        return self._wait().__await__()

    async def _wait(self) -> R_co:
        self._refuse_uncommitted()
        interval, watch = PollInterval(FIRST_POLL), _Watch(None)
        while True:
            if await asyncio.to_thread(watch.ask, [self]):
                try:
                    return await asyncio.to_thread(self._result)
                except Exception as error:
                    if not self._jobs.may_pass(error):
                        raise
            await asyncio.sleep(interval.next())

    def require_kept(self) -> None:
        """Raise JobNotFound if the job was rolled back: another job may have got its id since."""
        within = self._within
        # A job that the transaction only found, by its unique key, outlives the rollback.
        if within is not None and within.rolled_back and self.id in within.inserted:
            raise JobNotFound(
                f"job {self.id} is not there: the transaction that enqueued it was rolled back"
            )

    def _refuse_uncommitted(self) -> None:
        if self._within is not None and self._within.is_open:
            raise JobQueueError(
                f"job {self.id} was enqueued in a transaction that has not been committed: no "
                "worker can see it yet, so waiting here would never end"
            )


def require_changed(refused: Iterable[Refusal]) -> None:
    """Raise JobNotFound or WrongState for the first refusal, if there is one."""
    for refusal in refused:
        if refusal.state is None:
            raise JobNotFound(f"there is no job {refusal.id}", field="id", value=refusal.id)
        raise WrongState(f"job {refusal.id}: {refusal.reason}", field="id", value=refusal.id)


def as_completed(jobs: Iterable[Job[R]], timeout: Duration | None = None) -> Iterator[Job[R]]:
    """Yield jobs in the order in which they end.

    Raises ResultTimeout `timeout` seconds after the first `next()`, JobNotFound for a job that was
    deleted, InvalidArguments for an item that is not a Job.
    """
    waiting: dict[Job[R], list[Job[R]]] = {}
    for job in jobs:
        if not isinstance(job, Job):
            raise InvalidArguments(
                f"as_completed: {type(job).__name__} is not a job; give what enqueue returns",
                field="jobs",
                value=job,
            )
        waiting.setdefault(job, []).append(job)
    watch = _Watch(timeout)
    while waiting:
        for job in watch.ended(list(waiting)):
            yield from waiting.pop(job)


class Window(Generic[R]):
    """Bounds how many jobs of a long series are held at a time, enqueued or ended: about `size`.

    The next of `batches`, which may only then be enqueued, is taken when half of them is free.
    """

    def __init__(
        self, batches: Iterator[list[Job[R]]], size: int, *, ordered: bool, timeout: Duration | None
    ) -> None:
        self._batches = batches
        self._size = size
        self._ordered = ordered
        self._timeout = timeout
        self._waiting: dict[int, Job[R]] = {}
        self._ended: dict[int, JobRecord | None] = {}
        """Rows whose results have not been yielded; None: deleted since."""
        self._order: deque[Job[R]] = deque()
        """Jobs whose results have not been yielded: as enqueued, or else as they ended."""

    def results(self) -> Iterator[R]:
        """Yield what each job returned, in the jobs' order, or else as they end.

        Raises what `Job.result` raises; ResultTimeout `timeout` seconds after the first `next()`.
        """
        watch = _Watch(self._timeout)
        while self._refill():
            self._read(watch.ended(list(self._waiting.values())))
            while self._order and self._order[0].id in self._ended:
                job = self._order.popleft()
                record = self._ended.pop(job.id)
                if record is None:
                    raise JobNotFound(f"job {job.id} was deleted before its result was read")
                yield job._result_of(record)  # noqa: SLF001

    def _refill(self) -> bool:
        """Take the next batch if there is room; False if no job is left to wait for."""
        if len(self._waiting) + len(self._ended) <= self._size // 2:
            batch = next(self._batches, [])
            self._waiting |= {job.id: job for job in batch}
            self._order.extend(batch if self._ordered else ())
        return bool(self._waiting)

    def _read(self, ended: list[Job[R]]) -> None:
        """Read the rows of jobs that have ended, all of one database."""
        ids = [job.id for job in ended]
        found = ended[0]._jobs.find(JobFilter(ids=tuple(ids)))  # noqa: SLF001
        self._ended |= dict.fromkeys(ids) | {record.id: record for record in found}
        for id_ in ids:
            del self._waiting[id_]
        self._order.extend(() if self._ordered else ended)


class _Watch:
    """Polls jobs until some have ended, or the time is up."""

    def __init__(self, timeout: Duration | None) -> None:
        self._limit = None if timeout is None else time.monotonic() + to_seconds(timeout, "timeout")
        self._pause = threading.Event()
        self._unanswered = False

    def ask(self, jobs: list[Job[R]]) -> list[Job[R]]:
        """Ask once, and return the jobs that have ended; none if the database does not answer.

        Raises the database's error if it has never answered: its URL may be wrong.
        """
        try:
            ended = _ended(jobs)
        except Exception as error:
            if not jobs[0]._jobs.may_pass(error):  # noqa: SLF001
                raise
            if not self._unanswered:
                log.warning(
                    "the database is away, still waiting for %s: %s",
                    counted(len(jobs), "job"),
                    str(error).partition("\n")[0][:300],
                )
            self._unanswered = True
            return []
        self._unanswered = False
        return ended

    def ended(self, jobs: list[Job[R]]) -> list[Job[R]]:
        """Poll until at least one job has ended, and return those. Raises ResultTimeout."""
        interval = PollInterval(FIRST_POLL)
        while True:
            began = time.monotonic()
            if ended := self.ask(jobs):
                return ended
            took = time.monotonic() - began
            remaining = None if self._limit is None else self._limit - time.monotonic()
            if remaining is not None and remaining <= 0:
                ids = ", ".join(str(job.id) for job in jobs[:5])
                more = f" and {len(jobs) - 5:,} more" if len(jobs) > 5 else ""  # noqa: PLR2004
                why = f"why: job.why(), or jobqueue why {jobs[0].id}"
                raise ResultTimeout(f"not ended in time: job {ids}{more}; {why}")
            pause = interval.next(took)
            self._pause.wait(pause if remaining is None else min(pause, remaining))


def _ended(jobs: list[Job[R]]) -> list[Job[R]]:
    """Return the final ones, in the given order. They may belong to several databases."""
    stores: dict[int, list[Job[R]]] = {}
    for job in jobs:
        job.require_kept()
        stores.setdefault(id(job._jobs), []).append(job)  # noqa: SLF001
    ended = []
    for group in stores.values():
        states = group[0]._jobs.states([job.id for job in group])  # noqa: SLF001
        for job in group:
            if job.id not in states:
                raise JobNotFound(f"job {job.id} is not there (any more)")
            if states[job.id] in FINAL:
                ended.append(job)
    return ended
