"""A store on each database, and a kit with the few words that these tests need."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, select, text, update

from jobqueue.new_jobs import Inserted, NewJob
from jobqueue.records import (
    AttemptError,
    Claim,
    JobRecord,
    Outcome,
    Registration,
    Succeeded,
    Unsuccessful,
)
from jobqueue.states import State
from jobqueue.store.claims import START, Claims, Cursor, WorkerRef
from jobqueue.store.clock import after, now
from jobqueue.store.completion import Completion
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import (
    REVISION,
    VERSION_TABLE,
    CounterKind,
    PauseKind,
    counters,
    queues,
)
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.stats import Monitor, throughput

DATA = (
    "jobs",
    "attempts",
    "workers",
    "queues",
    "counters",
    "error_counts",
    "history",
    "audit",
    "pauses",
)
EMPTY_ARGS = '{"args":[],"kwargs":{}}'
ERROR = AttemptError("ValueError", "no good", "Traceback …", "app/shop.py:pay")


@pytest.fixture(scope="session")
def cleaned_databases() -> dict[str, str]:
    """On PostgreSQL the tests of the store share one database: making one takes a tenth of a second."""
    return {}


@pytest.fixture
def store_url(
    request: pytest.FixtureRequest, backend_name: str, cleaned_databases: dict[str, str]
) -> str:
    """A database with the schema and nothing in it."""
    if backend_name == "sqlite":
        return str(request.getfixturevalue("url"))
    server = request.getfixturevalue("postgres_server")
    if (
        backend_name not in cleaned_databases
    ):  # The server, and it with it, is gone after the session.
        cleaned_databases[backend_name] = server.url(server.create(template=server.template))
    url = cleaned_databases[backend_name]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        names = ", ".join(f"jobqueue_{name}" for name in DATA)
        connection.execute(f"TRUNCATE {names} RESTART IDENTITY")
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '{REVISION}'")
    request.node.user_properties.append(("database", f"postgres {server.version}"))
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    yield store
    store.close()


@pytest.fixture
def second_store(store_url: str) -> Iterator[Callable[..., Store]]:
    """A function that opens the same database once more; keywords are settings of PostgreSQL."""
    opened: list[Store] = []

    def second_store(**settings: str) -> Store:
        options = "".join(f"%20-c%20{name}%3D{value}" for name, value in settings.items())
        opened.append(Store(f"{store_url}&options={options}" if settings else store_url))
        return opened[-1]

    yield second_store
    for store in opened:
        store.close()


@pytest.fixture
def blocked(kit: "StoreKit", wait_until: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns as soon as so many transactions on PostgreSQL wait for another."""

    def blocked(transactions: int = 1) -> None:
        # Autocommit: within one transaction, statistics of activity stand still.
        engine = kit.store.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as watcher:
            waiting = text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
            wait_until(lambda: watcher.execute(waiting).scalar_one() >= transactions)

    return blocked


@pytest.fixture
def kit(store: Store) -> "StoreKit":
    return StoreKit(store)


class StoreKit:
    """One database with everything that the store can do to it, in short words."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.jobs = Jobs(store)
        self.claims = Claims(store)
        self.completion = Completion(store)
        self.leases = Leases(store)
        self.maintenance = Maintenance(store)

    # Jobs

    @staticmethod
    def new(task: str = "add", **given: Any) -> NewJob:
        fields: dict[str, Any] = dict.fromkeys(NewJob.__struct_fields__)
        fields |= {"task": task, "queue": "default", "priority": 0, "args": EMPTY_ARGS}
        fields |= {"max_attempts": 10} | given
        if fields["unique_key"] is not None and fields["unique_until"] is None:
            fields["unique_until"] = "finished"
        return NewJob(**fields)

    def insert(self, *new: NewJob) -> list[Inserted]:
        return self.jobs.insert(new)

    def add(self, **given: Any) -> int:
        """Insert one job and return its id."""
        return self.insert(self.new(**given))[0].id

    def add_many(self, count: int, **given: Any) -> list[int]:
        return [made.id for made in self.insert(*[self.new(**given)] * count)]

    def row(self, id_: int) -> JobRecord:
        found = self.jobs.get(id_)
        assert found is not None, f"job {id_} is gone"
        return found

    def state(self, id_: int) -> State:
        return self.row(id_).state

    def signatures(self) -> list[str | None]:
        """The error signatures of all attempts, in order."""
        with self.store.read() as connection:
            query = "SELECT error_signature FROM jobqueue_attempts ORDER BY job_id, fence"
            return list(connection.exec_driver_sql(query).scalars())

    def column(self, id_: int, name: str) -> Any:
        with self.store.read() as connection:
            return connection.execute(
                select(jobs_table.c[name]).where(jobs_table.c.id == id_)
            ).scalar_one()

    def change(self, *ids: int, **values: Any) -> None:
        """Write columns behind the store's back."""
        with self.store.write() as connection:
            statement = update(jobs_table).values(values)
            connection.execute(statement.where(jobs_table.c.id.in_(ids)))

    def make_due(self, *ids: int) -> None:
        self.change(*ids, run_at=after(-1.0))

    def outcomes(self, id_: int) -> list[str]:
        return [attempt.outcome for attempt in self.jobs.attempts(self.row(id_))]

    def pause(self, queue: str) -> None:
        with self.store.write() as connection:
            connection.execute(queues.insert().values(name=queue, paused_at=after(0.0)))

    def counters(self) -> dict[tuple[str, str], dict[str, float]]:
        """The totals of all that was counted, by (queue, task); zeros are left out."""

        sums: dict[tuple[str, str], dict[str, float]] = {}
        with self.store.read() as connection:
            for row in connection.execute(
                select(counters).where(counters.c.kind != CounterKind.PERIOD)
            ).mappings():
                total = sums.setdefault((row["queue"], row["task"]), {})
                for name, value in row.items():
                    if name in ("id", "minute", "queue", "task", "kind") or not value:
                        continue
                    greatest = name.endswith("_max")
                    total[name] = (
                        max(total.get(name, 0), value) if greatest else total.get(name, 0) + value
                    )
        return sums

    # Workers

    def worker(self, name: str = "w1", **given: Any) -> WorkerRef:
        fields: dict[str, Any] = {
            "name": name,
            "host": "here",
            "pid": 1,
            "boot_id": None,
            "pid_namespace": None,
            "process_started": None,
            "wakeup_address": None,
            "queues": None,
            "tasks": ("add",),
            "concurrency": 4,
            "lease": 30.0,
        }
        return WorkerRef(self.leases.register(Registration(**(fields | given))), name)

    def take(
        self,
        holder: WorkerRef,
        *,
        queue: str = "default",
        cursor: Cursor = START,
        limit: int = 100,
        free: int = 100,
    ) -> list[Claim]:
        with self.store.write() as connection:
            return self.claims.claim(connection, holder, queue, cursor, limit=limit, free=free)

    def take_one(self, holder: WorkerRef, **given: Any) -> Claim:
        claims = self.take(holder, limit=1, free=1, **given)
        assert len(claims) == 1
        return claims[0]

    def finish(self, holder: WorkerRef, *outcomes: Outcome) -> dict[int, State]:
        with self.store.write() as connection:
            return self.completion.complete(connection, holder, outcomes)

    # Ways to end a claim

    @staticmethod
    def succeeded(claim: Claim, result: str | None = "1") -> Succeeded:
        return Succeeded(claim, result, None, duration=0.5, wait=0.25)

    @staticmethod
    def errored(claim: Claim, delay: float | None = 60.0) -> Unsuccessful:
        return Unsuccessful(
            claim, "errored", State.SCHEDULED, delay=delay, error=ERROR, duration=0.5, wait=0.25
        )

    @staticmethod
    def failed(claim: Claim) -> Unsuccessful:
        return Unsuccessful(
            claim, "errored", State.FAILED, error=ERROR, duration=0.5, wait=0.25, reason="spent"
        )

    @staticmethod
    def snoozed(claim: Claim, delay: float = 60.0) -> Unsuccessful:
        return Unsuccessful(
            claim,
            "snoozed",
            State.SCHEDULED,
            delay=delay,
            refund=True,
            snooze=True,
            reason="later",
            duration=0.5,
            wait=0.25,
        )

    @staticmethod
    def released(claim: Claim) -> Unsuccessful:
        return Unsuccessful(claim, "released", State.AVAILABLE, refund=True)

    @staticmethod
    def cancelled(claim: Claim) -> Unsuccessful:
        return Unsuccessful(
            claim, "cancelled", State.CANCELLED, reason="told to", duration=0.5, wait=0.25
        )

    # Jobs in every state

    def put(self, state: State, holder: WorkerRef | None = None, **given: Any) -> int:
        """Insert a job and bring it into a state by the store's own verbs."""
        if state is State.SCHEDULED:
            return self.add(delay=3600.0, **given)
        queue = f"to-{state}-{threading.get_ident()}" if "queue" not in given else given["queue"]
        id_ = self.add(**{**given, "queue": queue})
        if state is State.AVAILABLE:
            return id_
        holder = holder or self.worker("putter")
        claim = self.take_one(holder, queue=queue)
        assert claim.id == id_
        if state is not State.RUNNING:
            ends = {
                State.SUCCEEDED: self.succeeded,
                State.FAILED: self.failed,
                State.CANCELLED: self.cancelled,
            }
            assert self.finish(holder, ends[state](claim)) == {id_: state}
        return id_


@pytest.fixture
def together() -> Callable[..., list[Any]]:
    """A function that runs calls at once, each in a thread, and returns what each gave or raised."""

    def together(*calls: Callable[[], Any]) -> list[Any]:
        barrier = threading.Barrier(len(calls))

        def run(call: Callable[[], Any]) -> Any:
            barrier.wait(30)
            try:
                return call()
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))

    return together


WAYS = ["succeeded", "errored", "failed", "snoozed", "released", "cancelled"]


@pytest.fixture
def holder(kit: StoreKit) -> WorkerRef:
    return kit.worker()


@pytest.fixture
def claim(kit: StoreKit, holder: WorkerRef) -> Claim:
    kit.add()
    return kit.take_one(holder)


ONLY_POSTGRES = pytest.mark.databases("postgres")
ONLY_SQLITE = pytest.mark.databases("sqlite")


def file_of(url: str) -> Path:
    return Path(make_url(url).database)


class StoreScenario:
    """A database with its stores, and the moves that the tests make."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.jobs = Jobs(self.store)
        self.claims = Claims(self.store)
        self.completion = Completion(self.store)
        self.leases = Leases(self.store)
        self.maintenance = Maintenance(self.store)
        self.monitor = Monitor(self.store)
        self.worker: WorkerRef | None = None

    def pause(self, queue: str = "default") -> bool:
        return Pauses(self.store).pause(PauseKind.QUEUE, queue)

    def resume(self, queue: str = "default") -> bool:
        return Pauses(self.store).resume(PauseKind.QUEUE, queue)

    def enqueue(self, count: int = 1, task: str = "add", queue: str = "default", *, delay: float | None = None,
                at: datetime | None = None) -> list[int]:  # fmt: skip
        new = NewJob(
            task, queue, 0, '{"args":[],"kwargs":{}}', None, delay, at, 10, None, None, None, None
        )
        return [job.id for job in self.jobs.insert([new] * count)]

    def register(self, name: str = "w1", tasks: tuple[str, ...] = ("add",), queues: tuple[str, ...] | None = None) -> WorkerRef:  # fmt: skip
        who = Registration(name, "host", 7, None, None, None, None, queues, tasks, 4, 30.0)
        return WorkerRef(self.leases.register(who), name)

    def claim(self, count: int, queue: str = "default") -> list[Claim]:
        if self.worker is None:
            self.worker = self.register()
        with self.store.write() as connection:
            return self.claims.claim(connection, self.worker, queue, limit=count, free=count)

    def finish(self, *outcomes: Succeeded | Unsuccessful) -> None:
        assert self.worker is not None
        with self.store.write() as connection:
            accepted = self.completion.complete(connection, self.worker, outcomes)
        assert len(accepted) == len(outcomes)

    def run(
        self, count: int, queue: str = "default", duration: float = 0.5, wait: float = 0.25
    ) -> None:
        self.finish(
            *(Succeeded(claim, None, None, duration, wait) for claim in self.claim(count, queue))
        )

    def fail(self, count: int, queue: str = "default", duration: float = 0.5) -> None:
        self.finish(
            *(
                Unsuccessful(claim, "errored", State.FAILED, duration=duration)
                for claim in self.claim(count, queue)
            )
        )

    def view(self, name: str) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [
                dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()
            ]

    def throughput(self) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [dict(row) for row in connection.execute(select(throughput)).mappings()]

    def queue(self, name: str = "default") -> dict[str, Any]:
        (row,) = (row for row in self.view("jobqueue_queue_stats") if row["queue"] == name)
        return row

    def task(self, name: str = "add") -> dict[str, Any]:
        (row,) = (row for row in self.view("jobqueue_task_stats") if row["task"] == name)
        return row

    def execute(self, statement: Any) -> None:
        with self.store.write() as connection:
            connection.execute(statement)

    def clock(self) -> datetime:
        with self.store.read() as connection:
            return connection.execute(select(now())).scalar_one()


@pytest.fixture
def scenario(url: str) -> Iterator[StoreScenario]:
    scenario = StoreScenario(url)
    yield scenario
    scenario.store.close()
