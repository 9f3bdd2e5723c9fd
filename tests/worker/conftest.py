"""A worker taken apart: the real services on a real database, ticked by hand instead of by threads."""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select, text, update

from jobqueue import JobQueue, State
from jobqueue.store.clock import after, now
from jobqueue.errors import JobNotFound
from jobqueue.records import Claim, JobRecord, Outcome
from jobqueue.store.schema import attempts as attempts_table
from jobqueue.store.schema import CounterKind, counters, workers
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.claims import Claims
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.store.database import Store
from jobqueue.worker.assembly import Assembly, WorkerParts
from jobqueue.worker.claim.planner import ClaimPlanner
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker.complete.outcome_writer import OutcomeWriter
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import name_worker
from jobqueue.worker.upkeep.heartbeat import Heartbeat
from jobqueue.worker.upkeep.listener import Listener

LONG_AGO = float("-inf")


@pytest.fixture
def jobs(url: str) -> Iterator[JobQueue]:
    """A queue on the test's database."""
    with JobQueue(url) as queue:
        yield queue


class SteppedWorker:
    """One worker without its threads, built of the parts of its assembly. Each method is one thing that a thread would do."""

    def __init__(self, queue: JobQueue, **settings: Any) -> None:
        self.queue = queue
        # Nothing renews its lease, and on a busy machine a test may take longer than usual ones.
        self.worker = queue.worker(**{"lease": 600, **settings})
        self.assembly: Assembly = self.worker._assembly
        self.store.require_schema()
        self.parts: WorkerParts = self.assembly.build()
        self.heartbeat.register()
        self.executor = self.parts.thread_pool._executor

    # Parts

    @property
    def store(self) -> Store:
        return self.assembly.store

    @property
    def inflight(self) -> InFlight:
        return self.assembly.inflight

    @property
    def planner(self) -> ClaimPlanner:
        return self.parts.planner

    @property
    def cursors(self) -> Any:
        return self.planner._cursors

    @property
    def writer(self) -> OutcomeWriter:
        return self.parts.outcome_writer

    @property
    def heartbeat(self) -> Heartbeat:
        return self.parts.heartbeat

    def service(self, kind: type) -> Any:
        return next(service for service in self.parts.services if type(service) is kind)

    # What threads would do

    def claim(self, *, sweep: bool = True) -> list[Claim]:
        """One round of claiming, after a sweep; returns what is in the inbox then."""
        if sweep:
            self.cursors._rescanned_at = LONG_AGO
        self.parts.claimer.tick()
        return self.inbox()

    def inbox(self) -> list[Claim]:
        return self._peek(self.inflight.inbox)

    def outbox(self) -> list[Outcome]:
        return self._peek(self.inflight.outbox)

    @staticmethod
    def _peek(queue: Any) -> list[Any]:
        items = [queue.get_nowait() for _ in range(queue.qsize())]
        for item in items:
            queue.put(item)
        return items

    def execute(self) -> list[Outcome]:
        """Run all that is in the inbox, one after another; returns what is in the outbox then."""
        self.inflight.inbox.put(None)
        self.executor.loop()
        return self.outbox()

    def complete(self) -> None:
        """Write every outcome down; claim nothing."""
        closed, self.planner.closed = self.planner.closed, True
        try:
            while self.inflight.outbox.qsize() or self.writer.batch:
                self.parts.completer.tick()
        finally:
            self.planner.closed = closed

    def announce(self) -> None:
        self.service(EventDispatcher).tick()

    def step(self) -> list[Outcome]:
        """Claim, run, write down; returns the outcomes."""
        self.claim()
        outcomes = self.execute()
        self.complete()
        return outcomes

    def finish(self, id_: int, *, rounds: int = 50) -> JobRecord:
        """Run one job through all its attempts, without waiting between them."""
        for _ in range(rounds):
            self.step()
            row = self.row(id_)
            if row.final:
                return row
            if row.state is State.SCHEDULED:
                self.queue.retry(id_)
        raise AssertionError(f"job {id_} is {row.state} after {rounds} rounds")

    def close(self) -> None:
        self.service(Listener).drain()
        self.parts.notifier.close()
        self.store.close()
        self.assembly.connections.heartbeat.close()
        name_worker(None)  # Other tests log from this thread too.

    # What the database says

    def row(self, id_: int) -> JobRecord:
        return self.queue.get(id_).record()

    def state(self, id_: int) -> State:
        return self.row(id_).state

    def column(self, id_: int, name: str) -> Any:
        with self.store.read() as connection:
            statement = select(jobs_table.c[name]).where(jobs_table.c.id == id_)
            return connection.execute(statement).scalar_one()

    def database_time(self) -> datetime:
        with self.store.read() as connection:
            return connection.execute(select(now())).scalar_one()

    def due_in(self, id_: int) -> float:
        """Seconds from the end of the last attempt until the job is due."""
        with self.store.read() as connection:
            ended = select(attempts_table.c.finished_at).where(attempts_table.c.job_id == id_)
            times = list(connection.execute(ended).scalars())
        return (self.row(id_).run_at - max(times)).total_seconds()

    def attempts(self, id_: int) -> list[tuple[int, str, str | None]]:
        """(attempt, outcome, type of the error) of each that was recorded."""
        return [
            (attempt.attempt, attempt.outcome, attempt.error and attempt.error.type)
            for attempt in self.queue._jobs.attempts(self.row(id_))
        ]

    def change(self, *ids: int, **values: Any) -> None:
        """Write columns behind the store's back."""
        with self.store.write() as connection:
            where = jobs_table.c.id.in_(ids)
            connection.execute(update(jobs_table).where(where).values(values))

    def make_old(self, *ids: int, seconds: float) -> None:
        self.change(*ids, finished_at=after(-seconds))

    def counted(self, name: str) -> float:
        with self.store.read() as connection:
            totals = select(counters.c[name]).where(counters.c.kind != CounterKind.PERIOD)
            return sum(connection.execute(totals).scalars())

    def workers(self) -> dict[int, Any]:
        with self.store.read() as connection:
            return {row.id: row for row in connection.execute(select(workers))}

    def execute_sql(self, *statements: str) -> None:
        with self.store.write() as connection:
            for statement in statements:
                connection.execute(text(statement))


Stepped = Callable[..., SteppedWorker]


@pytest.fixture
def stepped(jobs: JobQueue) -> Iterator[Stepped]:
    """A function that makes a worker without threads; keywords are its settings."""
    made: list[SteppedWorker] = []

    def stepped(queue: JobQueue = jobs, **settings: Any) -> SteppedWorker:
        made.append(SteppedWorker(queue, **settings))
        return made[-1]

    yield stepped
    for one in made:
        one.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """The clock of leases, which stands still until it is told."""
    return Clock(monkeypatch)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.present = 1_000_000.0
        for module in (
            "lease_state",
            "outage",
            "shared_poll",
            "upkeep.heartbeat",
            "upkeep.reaper",
            "upkeep.scheduler",
            "upkeep.ticker",
        ):
            monkeypatch.setattr(f"jobqueue.worker.{module}.boottime", lambda: self.present)

    def pass_(self, seconds: float) -> None:
        self.present += seconds


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """A function that lists the log's lines of a level and above."""
    caplog.set_level(logging.DEBUG, "jobqueue")

    def lines(level: int = logging.DEBUG, part: str = "") -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.levelno >= level and part in record.getMessage()
        ]

    return lines


def gone(queue: JobQueue, id_: int) -> bool:
    try:
        queue.get(id_)
    except JobNotFound:
        return True
    return False
