"""A worker without threads, for tests: it claims, runs and records one job after another.

Claims, handlers, endings and records are those of every worker; what is left out is what goes on
beside them: heartbeats, limits of time that are enforced from outside, child processes, upkeep.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, NamedTuple

from sqlalchemy import Connection

from jobqueue.errors import JobCancelled, JobFailed, JobQueueError, Signal
from jobqueue.events import EventStream
from jobqueue.records import Claim, JobRecord, Outcome, Unsuccessful
from jobqueue.states import OutcomeKind, State
from jobqueue.store.claims import Claims, QueueHead, WorkerRef
from jobqueue.store.completion import Completion
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.lanes import LaneClaims, Lanes
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import BATCH, Maintenance
from jobqueue.store.paused import PausedJobs, before
from jobqueue.store.schema import LaneId, LaneKind
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Registry
from jobqueue.worker import process_identity
from jobqueue.worker.complete.outcome_writer import OutcomeWriter
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker.execute.event_loop import AsyncRunner
from jobqueue.worker.execute.executor import Executor
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.handler.run import HandlerRunner, Middleware
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.observe.metrics import Metrics
from jobqueue.worker.settings import DAY, WorkerSettings
from jobqueue.worker.upkeep.heartbeat import registration

NAME = "jobqueue.testing"
_ALL = 2**31 - 1


class Ran(NamedTuple):
    """One attempt, and the job's state after it."""

    job: int
    task: str
    number: int
    outcome: str
    """As in the job's record: succeeded, errored, timed out, snoozed, cancelled, refused …"""
    state: State
    """The job's state afterwards."""
    raised: BaseException | None
    """What the handler raised, or None: an error, or a Snooze, Retry or Cancel."""
    error: BaseException | None
    """The attempt's error or None; JobFailed where it is not an exception of the handler."""


class _Handlers(HandlerRunner):
    """Keeps the exception that a handler raised, for the test that wants it raised."""

    error: BaseException | None = None

    def failed(self, context: Attempt, error: BaseException) -> Unsuccessful:
        self.error = error
        return super().failed(context, error)


class Inline:
    """A worker without threads, which runs one job at a time. Claims only within `lease()`."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        transactions: UserTransactions,
        *,
        events: EventStream,
        middleware: Sequence[Middleware],
    ) -> None:
        settings = WorkerSettings(concurrency=1, lease=DAY)
        self._store = store
        self._claims = claims = Claims(store)
        self._paused = PausedJobs(store)
        self._lanes = Lanes(store)
        self._ended_in: list[LaneId] = []
        """The lanes of the last claim."""
        self._leases, self._maintenance = Leases(store), Maintenance(store)
        self._jobs = Jobs(store)
        self._inflight = inflight = InFlight(settings.concurrency, settings.lease)
        self._handlers = _Handlers(tuple(middleware), settings.max_snoozes)
        self._events = EventDispatcher(events)
        self._writer = OutcomeWriter(
            store,
            Completion(store),
            inflight,
            NAME,
            events=self._events,
            metrics=Metrics(inflight),
        )
        self._executor = Executor(
            inflight,
            registry,
            self._handlers,
            claims=claims,
            transactions=transactions,
            finished=lambda: None,
        )
        self._async_runner = AsyncRunner(inflight, self._executor, lambda: None, concurrency=1)
        self._handlers.complete = lambda context, coroutine: run_here(
            self._async_runner.run_rest(context, coroutine)
        )
        me = process_identity.this_process()
        self._registration = registration(settings, NAME, registry, me, None)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Register as a worker for the block."""
        id_ = self._leases.register(self._registration)
        self._inflight.lease.worker = WorkerRef(id_, NAME)
        try:
            yield
        finally:
            self._inflight.lease.worker = None
            self._leases.deregister(id_)

    def promote(self) -> None:
        """Make due jobs available, and those whose awaited keys are free."""
        while self._maintenance.pass_on_keys() >= BATCH:
            pass
        while len(self._maintenance.promote()) >= BATCH:
            pass

    def claim_next(self) -> Claim | None:
        """Claim the available job with the best priority, the first due; None if there is none.

        Jobs of concurrency keys and of limited queues come after the others, within their limits.
        """
        for head in sorted(self._heads(), key=lambda head: (head.priority, head.queue)):
            with self._store.write() as connection:
                claims = self._claims.claim(connection, self._worker, head.queue, limit=1, free=1)
            if claims:
                return claims[0]
        return self._claim_from_lanes() if self._has_lanes() else None

    def sees_jobs(self) -> bool:
        """Return whether jobs are available. Writes nothing."""
        return bool(self._heads()) or self._has_lanes()

    def _heads(self) -> list[QueueHead]:
        with self._store.read() as connection:
            heads = self._claims.next_queues(connection, limit=_ALL)
            if not any(head.is_any_paused for head in heads):
                return heads
            levels = self._paused.levels(connection, [head.queue for head in heads])
            cursors = {level: before(level) for level in levels}
            looks = self._paused.look(connection, cursors, _ALL)
        return [QueueHead(*level) for level, look in looks.items() if look.heads]

    def _has_lanes(self) -> bool:
        with self._store.read() as connection:
            return self._lanes.exist(connection)

    def _claim_from_lanes(self) -> Claim | None:
        self._lanes.sweep()
        with self._store.write() as connection:
            self._lanes.unpark(connection, self._ended_in)
            if claim := self._claim_from_open_lanes(connection):
                return claim
            # What they wait for may be over: a test lets time pass, and ends jobs by itself.
            self._lanes.unpark_full(connection)
            return self._claim_from_open_lanes(connection)

    def _claim_from_open_lanes(self, connection: Connection) -> Claim | None:
        for queue in sorted(self._lanes.with_work(connection, None)):
            found = LaneClaims(has_more=True)
            while found.has_more and not found.claims:
                found = self._lanes.claim(connection, self._worker, queue, 1)
            if found.claims:
                self._ended_in = [
                    *((LaneKind.KEY, key) for key in found.keys.values()),
                    (LaneKind.QUEUE, queue),
                ]
                return found.claims[0]
        return None

    def claim(self, job: JobRecord) -> Claim | None:
        """Claim this job, whatever its limit; None if it is not available, or its queue paused."""
        with self._store.write() as connection:
            claims = self._lanes.claim_jobs(connection, self._worker, job.queue, {job.id: job.lane})
        return claims[0] if claims else None

    def run(self, claim: Claim) -> Ran:
        """Run a claim and record its outcome. Raises only what the database raises."""
        if self._begin(claim):
            run_here(self._async_runner.run(claim))
        else:
            self._executor.take(claim)
        return self.record()

    async def handle(self, claim: Claim) -> None:
        """Run a claim for asyncio: a coroutine on this loop, a plain handler in a thread."""
        if self._begin(claim):
            await self._async_runner.run(claim)
        else:
            await asyncio.to_thread(self._executor.take, claim)

    def give_back(self, claim: Claim) -> None:
        """Release a claim that is not to be run."""
        self._inflight.release(claim)
        self.record()

    @property
    def _worker(self) -> WorkerRef:
        assert self._inflight.lease.worker is not None, "claims are made within lease()"
        return self._inflight.lease.worker

    def _begin(self, claim: Claim) -> bool:
        """Take a claim in hand; True if it is for the event loop."""
        self._handlers.error = None
        self._inflight.lease.confirm(process_identity.boottime())
        self._inflight.dispatch([claim], self._worker)
        self._inflight.inbox.get_nowait()
        return self._executor.runs_on_loop(claim)

    def record(self) -> Ran:
        """Record the outcome and publish its events, as a worker does."""
        writer = self._writer
        writer.gather()
        [outcome] = writer.batch
        try:
            with self._store.write() as connection:
                writer.write(connection)
        except Exception as error:
            if not writer.is_data_error(error):
                raise
            writer.one_by_one()
        else:
            writer.acknowledge()
        self._events.tick()
        return self._ran(outcome)

    def _ran(self, outcome: Outcome) -> Ran:
        claim, raised = outcome.claim, self._handlers.error
        record = self._jobs.get(claim.id)
        # None: it was deleted by a subscriber.
        state = State.CANCELLED if record is None else record.state
        what = outcome.outcome if isinstance(outcome, Unsuccessful) else OutcomeKind.SUCCEEDED
        error: BaseException | None = None
        if state is State.SUCCEEDED:
            # By finish_within, too, whatever was raised afterwards.
            what = OutcomeKind.SUCCEEDED
        elif state is State.CANCELLED:
            what = OutcomeKind.CANCELLED
        elif isinstance(outcome, Unsuccessful) and outcome.error is not None:
            steered = isinstance(raised, Signal)  # Not an error, unless it made the job fail.
            if raised is not None and not steered:
                error = raised
            elif not steered or state is State.FAILED:
                died = outcome.error
                why = f"job {claim.id} ({claim.task}) {what}: {died.type}: {died.message}"
                error = JobFailed(why, (died,))
        return Ran(claim.id, claim.task, claim.attempt, str(what), state, raised, error)


def explain(ran: Ran) -> BaseException:
    """Return the exception for the result of an attempt that did not succeed."""
    if (error := ran.error or ran.raised) is not None:
        return error
    name = f"job {ran.job} ({ran.task})"
    if ran.state is State.CANCELLED:
        return JobCancelled(f"{name} was cancelled while it ran")
    return JobQueueError(f"{name} did not run: {ran.outcome}, and now {ran.state}")


def run_here(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a new event loop, in this thread if no loop runs in it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(main)
    # A loop cannot run within another one: use a thread, and wait for its end.
    with ThreadPoolExecutor(1, "jobqueue-testing") as pool:
        return pool.submit(copy_context().run, _run, main).result()


def _run(main: Coroutine[Any, Any, Any]) -> Any:
    # With a factory, Runner does not replace the test's `asyncio.get_event_loop()`.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(main)
