"""docs/monitoring.md is true: its columns exist, and its SQL runs and answers, on both databases."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from jobqueue.store.clock import after, this_minute
from jobqueue.new_jobs import NewJob
from jobqueue.records import AttemptError, Claim, Unsuccessful, JobFilter, Registration, Succeeded
from jobqueue.store.schema import counters, workers
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.states import State
from jobqueue.store.claims import Claims, WorkerRef
from jobqueue.store.jobs import Jobs
from jobqueue.store.database import Store
from jobqueue.store.leases import Leases
from jobqueue.store.completion import Completion
from jobqueue.store.maintenance import Maintenance

PAGE = (Path(__file__).parents[1] / "docs" / "monitoring.md").read_text("utf-8")
TAGS = {"sqlite": "sqlite", "postgres": "postgresql"}

Row = dict[str, Any]


def sections() -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(section: str, backend_name: str) -> list[str]:
    """A section's SQL for one database."""
    found = re.findall(r"^```sql ?(\w*)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return [sql for tag, sql in found if tag in ("", TAGS[backend_name])]


# What each question answers about the sample below: the columns, and the first row.
ANSWERS: dict[str, tuple[str, Row]] = {
    "The job that has waited longest in each queue": (
        "queue id task run_at waited",
        {"queue": "default", "task": "crasher"},
    ),
    "Which tasks fail, and what the last error was": (
        "task failed errored_attempts job_id error_type error_message finished_at",
        {"task": "flaky", "failed": 1, "errored_attempts": 2, "error_message": "spent"},
    ),
    "Throughput in each minute of the last hour": (
        "minute succeeded failed cancelled errored_attempts",
        {"succeeded": 3, "failed": 1, "cancelled": 1, "errored_attempts": 2},
    ),
    "Running jobs, their workers, and their running time": (
        "worker host pid id task attempt seconds progress progress_message",
        {"worker": "w1", "host": "here", "pid": 1, "task": "slow", "attempt": 1},
    ),
    "Which unfinished jobs were retried most": (
        "id task state attempt max_attempts run_at error_type error_message",
        {"task": "flaky", "state": "scheduled", "attempt": 1, "error_type": "ValueError"},
    ),
    "What is due next": (
        "id task queue run_at attempt reason",
        {"task": "flaky", "attempt": 1},
    ),
    "Which workers' heartbeat is late": (
        "worker host pid heartbeat_age_seconds lease running",
        {"worker": "late", "lease": 30.0},
    ),
    "How long a task takes: median, 95th percentile, maximum of the last day": (
        "task jobs p50 p95 longest",
        {"task": "add", "jobs": 3, "p50": 20, "p95": 30, "longest": 30},
    ),
    "When a backlog will be done, at the rate of the last ten minutes": (
        "queue available per_second eta_seconds",
        {"queue": "default", "available": 3, "eta_seconds": 360},
    ),
    "Which jobs wait for a task that no live worker knows": (
        "task waiting oldest reason",
        {"task": "unknown", "waiting": 2, "reason": "no such task here"},
    ),
    "Which jobs crashed their worker, or were lost with it": (
        "id task state crashes attempt worker noticed_at error_message",
        {"task": "crasher", "state": "available", "crashes": 1, "attempt": 1, "worker": "lost"},
    ),
}


class Sample:
    """A database with jobs in every state, and workers that live, are late, and are gone."""

    def __init__(self, store: Store) -> None:
        self.jobs, self.claims, self.leases = Jobs(store), Claims(store), Leases(store)
        self.completion = Completion(store)
        self.store = store
        known = ("add", "flaky", "slow", "crasher")
        w1 = self.register("w1", known)
        late = self.register("late", known)
        lost = self.register("lost", known)
        gone = self.register("gone", ("unknown",))
        self.change(workers, late.id, heartbeat_at=after(-20.0))
        self.change(workers, gone.id, heartbeat_at=after(-12.0), lease=10.0)

        self.enqueue("add", 3)
        claims = self.claim(w1, 3)
        self.finish(w1, *(Succeeded(claim, "1", None, 0.5, 0.25) for claim in claims))
        for claim, seconds in zip(claims, (10.0, 20.0, 30.0), strict=True):
            self.change(jobs_table, claim.id, started_at=after(-seconds), finished_at=after(0.0))
            self.take_exactly(claim.id, seconds)
        self.enqueue("flaky", 2)
        retried, failed = self.claim(w1, 2)
        error = AttemptError("ValueError", "no good", "Traceback …")
        self.finish(
            w1, Unsuccessful(retried, "errored", State.SCHEDULED, 60.0, error=error, duration=0.1)
        )
        error = error._replace(message="spent")
        self.finish(w1, Unsuccessful(failed, "errored", State.FAILED, error=error, duration=0.1))
        self.enqueue("slow")
        self.claim(w1, 1)
        (cancelled,) = self.enqueue("add")
        self.jobs.cancel(JobFilter(ids=(cancelled,)))
        self.enqueue("crasher")
        self.claim(lost, 1)
        self.leases.deregister(lost.id)
        assert [job.task for job in self.leases.reap()] == ["crasher"]
        self.enqueue("unknown", 2)
        self.enqueue("add", delay=3600.0)
        with store.write() as connection:
            connection.execute(
                update(jobs_table)
                .where(jobs_table.c.task == "unknown")
                .values(reason="no such task here")
            )
            # All of it in one minute, also when a minute ended meanwhile.
            connection.execute(update(counters).values(minute=this_minute()))

    def register(self, name: str, tasks: tuple[str, ...]) -> WorkerRef:
        who = Registration(name, "here", 1, None, None, None, None, None, tasks, 4, 30.0)
        return WorkerRef(self.leases.register(who), name)

    def enqueue(self, task: str, count: int = 1, delay: float | None = None) -> list[int]:
        arguments = '{"args":[],"kwargs":{}}'
        new = NewJob(task, "default", 0, arguments, None, delay, None, 10, None, None, None, None)
        return [job.id for job in self.jobs.insert([new] * count)]

    def claim(self, holder: WorkerRef, count: int) -> list[Claim]:
        with self.store.write() as connection:
            claims = self.claims.claim(connection, holder, "default", limit=count, free=count)
        assert len(claims) == count
        return claims

    def finish(self, worker: WorkerRef, *outcomes: Succeeded | Unsuccessful) -> None:
        with self.store.write() as connection:
            assert len(self.completion.complete(connection, worker, outcomes)) == len(outcomes)

    def change(self, table: Any, id_: int, **values: Any) -> None:
        with self.store.write() as connection:
            connection.execute(update(table).where(table.c.id == id_).values(values))

    def take_exactly(self, id_: int, seconds: float) -> None:
        """Make a finished job's two instants so many seconds apart, to the microsecond."""
        job = self.jobs.get(id_)
        assert job is not None and job.finished_at is not None
        self.change(jobs_table, id_, started_at=job.finished_at - timedelta(seconds=seconds))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def run(store: Store, sql: str) -> tuple[list[str], list[Row]]:
    """Run one statement as written; returns its columns and rows."""
    with store.write() as connection:
        result = connection.exec_driver_sql(sql)
        columns = list(result.keys())
        return columns, [dict(row) for row in result.mappings()]


def test_every_block_of_sql_on_the_page_is_run_by_these_tests() -> None:
    assert set(re.findall(r"^```(.*\S)$", PAGE, flags=re.MULTILINE)) == {
        "sql",
        "sql sqlite",
        "sql postgresql",
    }
    with_sql = [title for title, body in sections().items() if "```sql" in body]
    assert with_sql == ["Enqueueing from SQL", *ANSWERS]


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_of_the_page_is_answered(store: Store, backend_name: str, question: str) -> None:
    columns, first = ANSWERS[question]
    Sample(store)
    (sql,) = blocks(sections()[question], backend_name)
    names, rows = run(store, sql)
    assert names == columns.split()
    assert rows
    assert {name: rounded(rows[0][name]) for name in first} == first


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_has_no_answer_in_an_empty_database_and_no_error(
    store: Store, backend_name: str, question: str
) -> None:
    (sql,) = blocks(sections()[question], backend_name)
    assert run(store, sql) == (ANSWERS[question][0].split(), [])


def rounded(value: Any) -> Any:
    return value if isinstance(value, str | int) or value is None else round(float(value), 3)


# Enqueueing


def test_the_documented_insert_makes_a_claimable_job_with_the_defaults(
    store: Store, backend_name: str
) -> None:
    now, *_ = blocks(sections()["Enqueueing from SQL"], backend_name)
    _, [made] = run(store, now)
    jobs, leases = Jobs(store), Leases(store)
    job = jobs.get(made["id"])
    assert job is not None
    assert job.to_json() | {"run_at": None, "created_at": None} == {
        "id": made["id"],
        "task": "add",
        "queue": "default",
        "state": "available",
        "priority": 0,
        "args": [2],
        "kwargs": {"y": 3},
        "tags": [],
        "attempt": 0,
        "max_attempts": 10,
        "run_at": None,
        "created_at": None,
        "started_at": None,
        "finished_at": None,
        "deadline_at": None,
        "scheduled_for": None,
        "expires_at": None,
        "lane": None,
        "worker": None,
        "unique_key": None,
        "headers": {},
        "fence": 0,
        "timeout": None,
        "progress": None,
        "result": None,
        "error": None,
        "reason": None,
        "cancel_requested_at": None,
    }
    who = Registration("w", "here", 1, None, None, None, None, None, ("add",), 4, 30.0)
    holder = WorkerRef(leases.register(who), "w")
    with store.write() as connection:
        (claim,) = Claims(store).claim(connection, holder, "default", limit=9, free=9)
    assert (claim.id, claim.attempt, claim.fence, claim.at_most_once) == (made["id"], 1, 1, False)
    assert json.loads(claim.args) == {"args": [2], "kwargs": {"y": 3}}
    assert abs((claim.started_at - claim.run_at).total_seconds()) < 60


def test_the_documented_insert_for_later_makes_a_job_that_is_promoted_when_it_is_due(
    store: Store, backend_name: str
) -> None:
    _, later, *_ = blocks(sections()["Enqueueing from SQL"], backend_name)
    _, [made] = run(store, later)
    leases, maintenance = Leases(store), Maintenance(store)
    job = Jobs(store).get(made["id"])
    assert job is not None
    assert (job.state, job.queue, job.priority, job.max_attempts) == ("scheduled", "mail", -1, 3)
    assert job.to_json()["headers"] == {"tenant": "7"}
    with store.read() as connection:
        assert 3500 < (leases.poll(connection, None, None, None).due.job or 0) <= 3600
    assert maintenance.promote() == []
    with store.write() as connection:
        connection.execute(update(jobs_table).values(run_at=after(-1.0)))
    assert maintenance.promote() == ["mail"]


def test_the_documented_insert_is_committed_with_a_librarys_own_rows_or_neither_is(
    store: Store, backend_name: str
) -> None:
    """Through a cursor of the driver, as Django's: `within` knows nothing of its transaction."""
    now, *_ = blocks(sections()["Enqueueing from SQL"], backend_name)
    library = store.engine.raw_connection()
    with closing(library), closing(library.cursor()) as cursor:
        cursor.execute("CREATE TABLE orders (id integer)")
        library.commit()
        for end, kept in ((library.rollback, 0), (library.commit, 1)):
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO orders VALUES (1)")
            cursor.execute(now)
            assert len(cursor.fetchall()) == 1  # Else SQLite does not commit.
            end()
            cursor.execute("SELECT count(*) FROM orders")
            assert cursor.fetchone() == (kept,)
            assert Jobs(store).count(JobFilter()) == kept
            library.rollback()


def test_the_documented_insert_with_a_key_makes_one_job(store: Store, backend_name: str) -> None:
    *_, keyed, _ = blocks(sections()["Enqueueing from SQL"], backend_name)
    _, [made] = run(store, keyed)
    assert run(store, keyed)[1] == []
    jobs = Jobs(store)
    jobs.cancel(JobFilter(ids=(made["id"],)))
    assert len(run(store, keyed)[1]) == 1


def test_the_documented_insert_with_a_concurrency_key_makes_a_job_in_its_lane(
    store: Store, backend_name: str
) -> None:
    *_, in_lane = blocks(sections()["Enqueueing from SQL"], backend_name)
    _, [made] = run(store, in_lane)
    job = Jobs(store).get(made["id"])
    assert job is not None and (job.lane, job.state) == ("tenant-7", State.AVAILABLE)


# Columns


DOCUMENTED = [title.strip("`") for title in sections() if title.startswith("`jobqueue_")]


def test_the_tables_and_views_of_the_contract_are_documented() -> None:
    views = ["queue_stats", "task_stats", "worker_stats", "throughput"]
    views += ["worker_minutes", "task_minutes"]
    tables = ["jobs", "attempts", "workers", "schedules", "pauses", "error_counts", "audit"]
    assert [f"jobqueue_{name}" for name in views + tables] == DOCUMENTED


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_columns_are_those_of_the_database_in_their_order(
    store: Store, name: str
) -> None:
    documented = re.findall(r"^\| `(\w+)` \| .+ \|$", sections()[f"`{name}`"], flags=re.MULTILINE)
    with store.read() as connection:
        assert list(connection.execute(text(f"SELECT * FROM {name}")).keys()) == documented
