"""A handler's access to its own job: `current_job()`."""

import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from sqlalchemy import Connection

from jobqueue.errors import AttemptTimeout, InvalidArguments, JobCancelled, JobQueueError, invalid
from jobqueue.loggers import Logger
from jobqueue.new_jobs import NewJob
from jobqueue.records import Claim, headers_of, lasting
from jobqueue.store import transaction_argument
from jobqueue.store.transaction_argument import AsyncTransaction, SyncTransaction
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Task
from jobqueue.worker.log_context import job_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

MESSAGE_LENGTH_MAX = 1000
NOT_ROLLED_BACK = "the transaction that it left open could not be rolled back"
TIMEOUT_GRACE = 0.25
"""Seconds after the deadline in which a handler may end by itself."""

_CURRENT: ContextVar["Attempt"] = ContextVar("jobqueue_current_job")


class _JobLog(Logger):
    """A logger whose lines start with the job."""

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> Any:
        assert self.extra is not None
        said = {**self.extra, **(kwargs.get("extra") or {})}
        return f"job {self.extra['job']} ({self.extra['task']}): {msg}", {**kwargs, "extra": said}


class JobContext:
    """The running job, seen from inside its handler. May be used from any thread of it."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: "Attempt") -> None:
        self._attempt = attempt

    def __repr__(self) -> str:
        return f"JobContext({self.id}, {self.task!r}, attempt={self.attempt})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobContext) and other._attempt is self._attempt

    def __hash__(self) -> int:
        return hash(self._attempt)

    @property
    def id(self) -> int:
        """The job's id: an idempotency key for effects outside the database."""
        return self._attempt.claim.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._attempt.claim.task

    @property
    def queue(self) -> str:
        """The queue that the job was claimed from."""
        return self._attempt.claim.queue

    @property
    def attempt(self) -> int:
        """Which attempt this is, 1 … max_attempts."""
        return self._attempt.claim.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has."""
        return self._attempt.claim.max_attempts

    @property
    def fence(self) -> int:
        """The fencing token of this claim: outside systems can refuse an older one."""
        return self._attempt.claim.fence

    @property
    def scheduled_for(self) -> datetime | None:
        """The instant, in UTC, that a schedule made this job for; None for other jobs."""
        return self._attempt.claim.scheduled_for

    @property
    def headers(self) -> dict[str, str]:
        """The job's headers: texts that `options(headers=…)` or a hook at the enqueue has given.

        Raises InvalidOption if plain SQL has written something else.
        """
        headers = headers_of(self._attempt.claim.headers)
        if headers is None:
            raise invalid("headers", f"those of job {self.id} are not a JSON object of texts")
        return headers

    @property
    def deadline(self) -> datetime | None:
        """When this attempt's time is up, or the job's if that is sooner; None without either."""
        left = self.remaining()
        return None if left is None else datetime.now(UTC) + timedelta(seconds=left)

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None without one."""
        return self._attempt.remaining()

    @property
    def cancelled(self) -> bool:
        """True once the attempt should stop, or this worker has lost the job."""
        return self._attempt.stop_reason is not None

    def check(self) -> None:
        """Raise if the handler should stop: JobCancelled, ClaimLost or AttemptTimeout."""
        self._attempt.check()

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Say how far the job is: a fraction in [0, 1], and a line of text.

        It is written by the next heartbeat, within 0.5 s, or when the attempt ends; only the last
        word counts. `finish_within` takes along what was said by then, and it stays.
        """
        if fraction is not None:
            whole = isinstance(fraction, int | float) and not isinstance(fraction, bool)
            if not whole or not 0 <= fraction <= 1:  # NaN is in no range.
                raise InvalidArguments(
                    f"progress: {fraction!r} is not a fraction between 0 and 1",
                    field="fraction",
                    value=fraction,
                )
            fraction = float(fraction)
        if message is not None:
            message = clean(str(message))[:MESSAGE_LENGTH_MAX]
        self._attempt.report(fraction, message)

    @property
    def log(self) -> _JobLog:
        """A logger whose lines name the job."""
        return _JobLog(logging.getLogger("jobqueue.job"), job_of(self._attempt.claim))

    def finish_within(self, session: SyncTransaction, result: object = None) -> None:
        """Make success part of the caller's transaction: effects and success commit together.

        `session` is a Session, scoped_session or Connection. Raises ClaimLost when the job is no
        longer this worker's, and JobCancelled when it was asked to be cancelled; either must reach
        the end of the transaction, so that it is rolled back. What the handler returns afterwards
        is not used; give the result here.
        """
        instead = "write await current_job().afinish_within(session)"
        self._attempt.finish(
            transaction_argument.resolve(session, "finish_within", instead), result
        )

    async def afinish_within(self, session: AsyncTransaction, result: object = None) -> None:
        """`finish_within` for an AsyncSession, async_scoped_session or AsyncConnection."""
        instead = "write current_job().finish_within(session)"
        await self._attempt.afinish(
            transaction_argument.aresolve(session, "afinish_within", instead), result
        )


class Attempt:
    """One attempt of a job in this worker. Its handler sees it as a `JobContext`."""

    # Defaults stand on the class: instances are made thousands of times a second.
    stop_reason: type[JobQueueError] | None = None
    """The error that `check()` raises if a stop was requested; None otherwise."""
    reported: tuple[float | None, str | None] | None = None
    """The last progress that is not written yet."""
    said: tuple[float | None, str | None] | None = None
    """The last progress."""
    finishing = False
    """`finish_within` was called, in a transaction that may be open, and then holds the row."""
    _finishing: "Session | Connection | None" = None
    _afinishing: Any = None
    _interrupt: Callable[[], object] | None = None
    _where: Callable[[], str] | None = None
    _budget = _deadline = math.inf

    killable = False
    """The handler can be ended from outside, since it has a process of its own."""
    in_child = False
    """The handler runs in this process, a child that the worker may kill once it has ended."""
    is_coroutine = False
    """The handler runs on the event loop, and occupies no thread."""
    grace = TIMEOUT_GRACE
    """Seconds after its deadline until the claim of the handler is ended."""

    def __init__(self, claim: Claim, transactions: UserTransactions, task: Task[..., Any]) -> None:
        self.claim = claim
        """The claim that it runs under."""
        self.key = (claim.id, claim.fence)
        """(id, fence), the key among the running attempts."""
        self.task = task
        self._transactions = transactions
        self.began = time.perf_counter()
        """When the handler was entered, by `time.perf_counter()`."""
        self.thread = threading.get_ident()
        """The id of the thread that runs the handler."""
        if claim.timeout is not None or claim.deadline_at is not None:
            self.restart(time.monotonic() + time_left(claim))

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None without one."""
        if self._deadline == math.inf:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def restart(self, until: float | None = None) -> None:
        """Start the attempt's own time now, however long its start took.

        The job's deadline stays, or is `until` by `time.monotonic()`.
        """
        present, timeout = time.monotonic(), self.claim.timeout
        self.began = time.perf_counter()
        self._budget = self._budget if until is None else until
        own = math.inf if timeout is None else present + timeout
        self._deadline = min(own, self._budget)

    def budget(self) -> float:
        """Seconds until the job's own deadline, infinity without one."""
        return self._budget - time.monotonic()

    def with_deadline(self, new: list[NewJob]) -> list[NewJob]:
        """Give jobs that this one enqueues its deadline, unless they have their own."""
        if self._budget == math.inf:
            return new
        left = max(0.0, self.budget())
        return [job if job.deadline is not None else replace(job, deadline=left) for job in new]

    def overdue(self) -> float:
        """Seconds since the deadline; below 0 before it, minus infinity without."""
        return time.monotonic() - self._deadline

    def check(self) -> None:
        """See `JobContext.check`."""
        if self.stop_reason is JobCancelled:
            raise JobCancelled(f"job {self.claim.id} is to be cancelled")
        if self.stop_reason is not None:
            raise self.stop_reason(f"job {self.claim.id} is no longer this worker's to run")
        if time.monotonic() >= self._deadline:
            raise AttemptTimeout(f"job {self.claim.id} ran out of its {self.allowed()}")

    def allowed(self) -> str:
        """Return how long it was allowed to run, as the end of a sentence."""
        if self._deadline == self._budget:
            return "time: its deadline has passed"
        return lasting(self.claim.timeout or 0.0)

    def report(self, fraction: float | None, message: str | None) -> None:
        """See `JobContext.progress`; both are checked."""
        self.said = self.reported = (fraction, message)

    def finish(self, transaction: "Session | Connection", result: object) -> None:
        """See `JobContext.finish_within`."""
        self._transactions.finish(
            transaction, self.claim, self.task.codec.encode_result(result), self.said
        )
        self._finishing, self.finishing = transaction, True

    async def afinish(self, session: Any, result: object) -> None:
        """See `JobContext.afinish_within`."""
        await session.run_sync(lambda sync: self.finish(sync, result))
        self._afinishing = session

    def be_coroutine(self, interrupt: Callable[[], object], where: Callable[[], str]) -> None:
        """Set how to cancel the handler and how to get its stack, as it has no thread."""
        self.is_coroutine = True
        self._interrupt = interrupt
        self._where = where

    def interrupt_by(self, interrupt: Callable[[], object]) -> None:
        """Set how to cancel what the handler's thread waits for."""
        self._interrupt = interrupt
        if self.stop_reason is not None:
            interrupt()

    def where(self) -> str:
        """Return the stack of the handler as text."""
        if self._where is not None:
            return self._where()
        return stack_of(self.thread)

    def request_stop(self, error: type[JobQueueError]) -> None:
        """Make `cancelled` true and `check()` raise; cancel a coroutine."""
        if self.stop_reason is None:
            self.stop_reason = error
            if self._interrupt is not None:
                self._interrupt()

    def unwritten_progress(self) -> tuple[int, int, float | None, str | None] | None:
        """Return the last progress; None once `progress_written` was called for it."""
        said = self.reported
        return None if said is None else (*self.key, *said)

    def progress_written(self, report: tuple[int, int, float | None, str | None]) -> None:
        """Mark a progress as written, after the commit: the outcome takes along what is not."""
        said = report[2:]
        if self.reported == said:  # Otherwise there is newer progress.
            self.reported = None

    def leave_transaction(self) -> None:
        """Roll back the transaction of `finish_within` if it was left open."""
        if self._finishing is not None:
            try:
                if self._finishing.in_transaction():
                    self._finishing.rollback()
            except Exception:
                log = JobContext(self).log
                log.exception(NOT_ROLLED_BACK)

    async def aleave_transaction(self) -> None:
        """`leave_transaction` for a coroutine."""
        if self._afinishing is None:
            self.leave_transaction()
            return
        try:
            if self._afinishing.in_transaction():
                await self._afinishing.rollback()
        except Exception:
            log = JobContext(self).log
            log.exception(NOT_ROLLED_BACK)


def current_job() -> JobContext:
    """The job that this code runs in. Raises JobQueueError outside of one."""
    try:
        return JobContext(_CURRENT.get())
    except LookupError:
        raise JobQueueError(
            f"current_job(): thread {threading.current_thread().name} runs no job"
        ) from None


enter = _CURRENT.set
"""Make `current_job()` see this attempt, in a copy of the program's context that ends with it."""


def running_attempt() -> Attempt | None:
    """The attempt that this code runs in, or None."""
    return _CURRENT.get(None)


def stack_of(thread: int) -> str:
    """Return the stack of a thread as text; empty if no thread has that id."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, despite the name.
    return "" if frame is None else "".join(traceback.format_stack(frame))


def time_left(claim: Claim) -> float:
    """Seconds that the job's deadline left when it was claimed, by the database's clock alone."""
    if claim.deadline_at is None:
        return math.inf
    return (claim.deadline_at - claim.started_at).total_seconds()


def clean(text: str) -> str:
    """Text that both databases store: NUL and lone surrogates become visible escapes."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
