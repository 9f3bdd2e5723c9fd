"""The user's handle on a job: its state, its result, a wish to cancel it."""

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
from jobqueue.records import JobFilter, JobRecord, Refusal, counted
from jobqueue.states import FINAL, State
from jobqueue.store.jobs import Jobs
from jobqueue.store.transaction_outcomes import Fate

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

log = get_logger("jobqueue.job")

_FIRST_LOOK = 0.001  # seconds; then half as long again each time, up to:
_LAST_LOOK = 0.05
LOOK_COST = 4
"""A look at many jobs is followed by a rest of so many times what it took, up to:"""
LONGEST_REST = 1.0  # seconds


class Job(Generic[R_co]):
    """A job that was enqueued. May be used from any thread, and awaited from asyncio."""

    def __init__(
        self,
        id_: int,
        jobs: Jobs,
        decode: Callable[[str], Any],
        *,
        created: bool = True,
        fate: Fate | None = None,
    ) -> None:
        self.id = id_
        self.created = created
        """False: a job with that unique key was there, and this is it."""
        self._jobs = jobs
        self._decode = decode
        self._fate = fate
        """Of the caller's transaction that it was enqueued in."""

    def __repr__(self) -> str:
        return f"Job({self.id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def state(self) -> State:
        """The state in the database now. Raises JobNotFound."""
        return self.record().state

    def record(self) -> JobRecord:
        """The whole row as it is now. Raises JobNotFound."""
        self.require_kept()
        record = self._jobs.get(self.id)
        if record is None:
            raise JobNotFound(f"job {self.id} is not there (any more)")
        return record

    async def arecord(self) -> JobRecord:
        """`record` for asyncio: the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.record)

    def done(self) -> bool:
        """True when the job has ended, however it did."""
        return self.state in FINAL

    def cancel(self) -> None:
        """Cancel the job, or ask it to stop if it runs.

        Raises WrongState if it had ended otherwise, JobNotFound if it is not there.
        """
        self.require_kept()
        require_changed(self._jobs.cancel(JobFilter(ids=(self.id,)))[1])

    async def acancel(self) -> None:
        """`cancel` for asyncio, and raises what that raises; the event loop goes on meanwhile."""
        await asyncio.to_thread(self.cancel)

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the end and return what the task returned.

        Raises JobFailed, JobCancelled, or ResultTimeout after `timeout` seconds (None waits on).
        """
        self._refuse_uncommitted()
        watch = _Watch(timeout)
        while True:
            watch.ended([self])
            try:
                return self.outcome()
            except Exception as error:
                if not self._jobs.may_pass(error):  # The database may be away only now.
                    raise

    def outcome(self) -> R_co:
        """The result of a job that has ended; raises JobFailed or JobCancelled."""
        return self._outcome(self.record())

    def _outcome(self, record: JobRecord) -> R_co:
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
        raise JobFailed(
            f"job {self.id} ({record.task}) failed after {spent}{why}{last}",
            errors,
        )

    def __await__(self) -> Generator[Any, None, R_co]:
        """Await the result without blocking the event loop."""
        return self._wait().__await__()

    async def _wait(self) -> R_co:
        self._refuse_uncommitted()
        look, watch = _FIRST_LOOK, _Watch(None)
        while True:
            if await asyncio.to_thread(watch.look, [self]):
                try:
                    return await asyncio.to_thread(self.outcome)
                except Exception as error:
                    if not self._jobs.may_pass(error):
                        raise
            await asyncio.sleep(look)
            look = min(_LAST_LOOK, look * 1.5)

    def require_kept(self) -> None:
        """Raise JobNotFound if the job was rolled back: its id may be another job's by now."""
        if self._is_undone():
            raise JobNotFound(
                f"job {self.id} is not there: the transaction that enqueued it was rolled back"
            )

    def _is_undone(self) -> bool:
        # A job that was there before is there after a rollback too.
        return self._fate is not None and self._fate.undone and self.id in self._fate.made

    def _refuse_uncommitted(self) -> None:
        if self._fate is not None and self._fate.is_open:
            raise JobQueueError(
                f"job {self.id} was enqueued in a transaction that has not been committed: no "
                "worker can see it yet, so waiting here would never end"
            )


def require_changed(refused: Iterable[Refusal]) -> None:
    """Raise what a verb's first refusal means: JobNotFound or WrongState."""
    for refusal in refused:
        if refusal.state is None:
            raise JobNotFound(f"there is no job {refusal.id}", field="id", value=refusal.id)
        raise WrongState(f"job {refusal.id}: {refusal.reason}", field="id", value=refusal.id)


def as_completed(jobs: Iterable[Job[R]], timeout: Duration | None = None) -> Iterator[Job[R]]:
    """Yield each job when it has ended, the first to end first.

    Raises ResultTimeout after `timeout` seconds, counted from the first `next()`, and JobNotFound
    for a job that is not there.
    """
    waiting: dict[int, list[Job[R]]] = {}
    for job in jobs:
        if not isinstance(job, Job):
            raise InvalidArguments(
                f"as_completed: {type(job).__name__} is not a job; give what enqueue returns",
                field="jobs",
                value=job,
            )
        waiting.setdefault(job.id, []).append(job)
    watch = _Watch(timeout)
    while waiting:
        for job in watch.ended([same[0] for same in waiting.values()]):
            yield from waiting.pop(job.id)


def results(
    batches: Iterator[list[Job[R]]], *, ordered: bool, window: int, timeout: Duration | None
) -> Iterator[R]:
    """What each job returned, in their order or as they end; about `window` are held at a time.

    The next batch, which may only then be enqueued, is taken when half of the window is free.
    Raises what `Job.outcome()` raises, and ResultTimeout `timeout` seconds after the first
    `next()`.
    """
    watch = _Watch(timeout)
    waiting: dict[int, Job[R]] = {}
    order: deque[Job[R]] = deque()
    records: dict[int, JobRecord] = {}
    while True:
        batch = next(batches, []) if len(waiting) + len(records) <= window // 2 else []
        waiting |= {job.id: job for job in batch}
        order.extend(batch if ordered else ())
        if not waiting:
            return
        ended = watch.ended(list(waiting.values()))
        found = ended[0]._jobs.find(JobFilter(ids=tuple(job.id for job in ended)))  # noqa: SLF001
        records |= {record.id: record for record in found}
        for job in ended:
            if job.id not in records:
                raise JobNotFound(f"job {job.id} was deleted before its result was read")
            del waiting[job.id]
            if not ordered:
                yield job._outcome(records.pop(job.id))  # noqa: SLF001
        while order and order[0].id in records:
            job = order.popleft()
            yield job._outcome(records.pop(job.id))  # noqa: SLF001


class _Watch:
    """Looks at jobs again and again until some have ended, or the time is up."""

    def __init__(self, timeout: Duration | None) -> None:
        self._limit = None if timeout is None else time.monotonic() + to_seconds(timeout, "timeout")
        self._pause = threading.Event()
        self._away = False

    def look(self, jobs: list[Job[R]]) -> list[Job[R]]:
        """Those that have ended by now; none while the database is away.

        A URL that has led nowhere so far raises instead.
        """
        try:
            ended = _ended(jobs)
        except Exception as error:
            if not jobs[0]._jobs.may_pass(error):  # noqa: SLF001
                raise
            if not self._away:
                log.warning(
                    "the database is away, still waiting for %s: %s",
                    counted(len(jobs), "job"),
                    str(error).partition("\n")[0][:300],
                )
            self._away = True
            return []
        self._away = False
        return ended

    def ended(self, jobs: list[Job[R]]) -> list[Job[R]]:
        """Those that have ended, at least one. Raises ResultTimeout."""
        look = _FIRST_LOOK
        while True:
            began = time.monotonic()
            if ended := self.look(jobs):
                return ended
            # Waiting for many may not be all we do.
            least = min(LOOK_COST * (time.monotonic() - began), LONGEST_REST)
            remaining = None if self._limit is None else self._limit - time.monotonic()
            if remaining is not None and remaining <= 0:
                ids = ", ".join(str(job.id) for job in jobs[:5])
                more = f" and {len(jobs) - 5:,} more" if len(jobs) > 5 else ""  # noqa: PLR2004
                raise ResultTimeout(f"not ended in time: job {ids}{more}")
            rest = max(look, least)
            self._pause.wait(rest if remaining is None else min(rest, remaining))
            look = min(_LAST_LOOK, look * 1.5)


def _ended(jobs: list[Job[R]]) -> list[Job[R]]:
    """Those that are final, in the order given; of one database in practice, not by rule."""
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
