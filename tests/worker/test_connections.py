"""A worker's connections on PostgreSQL: how many there are, who waits for whom, and what a full server changes."""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from jobqueue import JobQueue
from jobqueue.errors import InvalidOption
from jobqueue.worker import connections

pytestmark = pytest.mark.slow

on_postgres = pytest.mark.databases("postgres")
IDLE, BUSY = 3, 4


class Watch:
    """The server as an operator sees it, on a connection that is not counted."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def ask(self, question: str) -> Any:
        return self._connection.execute(question).fetchone()[0]

    def open(self) -> int:
        """Our connections to this database, without those that are being refused."""
        return int(
            self.ask(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'jobqueue' AND state <> 'starting'"
            )
        )

    def most(self, until: Callable[[], bool], timeout: float = 60.0) -> int:
        """The most that were open at once until something is true: each takes longer to come and go than the pause."""
        end, most, pause = monotonic() + timeout, self.open(), threading.Event()
        while not until():
            assert monotonic() < end
            most = max(most, self.open())
            pause.wait(0.005)
        return most

    def insert(self, task: str, count: int) -> None:
        self._connection.execute(
            f"INSERT INTO jobqueue_jobs (task) SELECT '{task}' FROM generate_series(1, {count})"
        )

    def succeeded(self, count: int) -> Callable[[], bool]:
        question = "SELECT count(*) FROM jobqueue_jobs WHERE state = 'succeeded'"
        return lambda: int(self.ask(question)) >= count

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def watch(url: str) -> Iterator[Watch]:
    watch = Watch(url)
    yield watch
    watch.close()


class Limited:
    """A role with the rights of a worker, and so many connections as it is allowed."""

    def __init__(self, url: str) -> None:
        self.role = make_url(url).database
        self._connection = psycopg.connect(url, autocommit=True)
        for statement in (
            f"CREATE ROLE {self.role} LOGIN",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {self.role}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {self.role}",
        ):
            self._connection.execute(statement)
        self.url = make_url(url).set(username=self.role).render_as_string()

    def allow(self, connections: int) -> None:
        self._connection.execute(f"ALTER ROLE {self.role} CONNECTION LIMIT {connections}")

    def close(self) -> None:
        for statement in (f"DROP OWNED BY {self.role}", f"DROP ROLE {self.role}"):
            self._connection.execute(statement)
        self._connection.close()


@pytest.fixture
def limited(url: str) -> Iterator[Limited]:
    limited = Limited(url)
    yield limited
    limited.close()


def passes(seconds: float) -> Callable[[], bool]:
    until = monotonic() + seconds
    return lambda: monotonic() > until


@on_postgres
@pytest.mark.parametrize("concurrency", [4, 64])
def test_a_worker_has_four_connections_at_work_and_three_while_it_is_idle(
    jobs: JobQueue, watch: Watch, wait_until: Any, monkeypatch: Any, concurrency: int
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 1.0)
    # On a busy machine claims and upkeep may wait for longer than this, and open a fourth.
    monkeypatch.setattr(connections, "TURN_SECONDS", 30.0)

    @jobs.task
    def nop() -> None: ...

    with jobs.worker(concurrency=concurrency, poll=0.1):
        wait_until(lambda: watch.open() >= 1)
        assert watch.most(passes(1.5)) <= IDLE
        watch.insert("nop", 3000)  # What the program itself opens would count.
        assert watch.most(watch.succeeded(3000)) <= BUSY
        wait_until(lambda: watch.open() <= IDLE)
        assert watch.most(passes(2.5)) <= IDLE
    jobs.close()
    wait_until(lambda: watch.open() == 0)


@on_postgres
def test_what_handlers_open_comes_on_top_and_is_bounded_by_the_pool_of_their_queue(
    url: str, watch: Watch
) -> None:
    with JobQueue(url, pool_size=2) as jobs:

        @jobs.task
        def child() -> None: ...

        @jobs.task
        def parent() -> None:
            child.options(unique_key=None).enqueue()

        for number in range(200):
            parent.options(unique_key=f"{number}", unique_until="started").enqueue()
        with jobs.worker(concurrency=32):
            assert watch.most(watch.succeeded(400)) <= BUSY + 2


@contextmanager
def locked(url: str, table: str, mode: str = "SHARE") -> Iterator[None]:
    """What CREATE INDEX does: others may read, and wait to write."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
        yield
        connection.rollback()


@on_postgres
def test_claims_and_outcomes_go_on_while_upkeep_waits_for_a_lock(
    jobs: JobQueue, url: str, watch: Watch, wait_until: Any
) -> None:
    @jobs.task
    def nop() -> None: ...

    old = nop.enqueue()
    with jobs.worker():
        old.result(timeout=60)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE jobqueue_jobs SET finished_at = now() - interval '8 days'")
    with locked(url, "jobqueue_attempts"), jobs.worker(concurrency=2):  # The pruner waits.
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: watch.ask(f"{blocked} AND datname = current_database()"))
        for _ in range(5):
            nop.enqueue().result(timeout=60)
            nop.options(delay=0.05).enqueue().result(timeout=60)  # The scheduler goes on too.
        assert old.done()  # It is still there: the pruner has not had its way meanwhile.


@on_postgres
def test_the_heartbeat_goes_on_while_claims_and_outcomes_wait_for_a_lock(
    jobs: JobQueue, url: str, watch: Watch, wait_until: Any
) -> None:
    ends = threading.Event()

    @jobs.task
    def nop(waits: bool = False) -> None:
        assert not waits or ends.wait(60)

    beats = "SELECT max(heartbeats) FROM jobqueue_workers"
    with jobs.worker(concurrency=2, lease=1):
        nop.enqueue().result(timeout=60)
        running = nop.enqueue(waits=True)
        wait_until(lambda: running.state == "running")
        nop.options(delay=0.5).enqueue()
        with locked(url, "jobqueue_jobs"):
            ends.set()  # Its outcome waits, and so does the scheduler: both connections are taken.
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: watch.ask(f"{blocked} AND datname = current_database()") >= 2)
            before = watch.ask(beats)
            wait_until(lambda: watch.ask(beats) > before + 5)
            assert watch.ask("SELECT count(*) FROM jobqueue_workers") == 1


@on_postgres
def test_a_worker_that_finds_no_connection_free_waits_says_so_once_and_begins(
    limited: Limited, wait_until: Any, lines: Any
) -> None:
    limited.allow(0)
    with JobQueue(limited.url) as jobs:

        @jobs.task
        def add(x: int, y: int) -> int:
            return x + y

        worker = jobs.worker()
        with ThreadPoolExecutor(1) as threads:
            started = threads.submit(worker.start)
            wait_until(lambda: lines(logging.WARNING))
            assert not started.done()
            limited.allow(10)
            started.result(60)
        try:
            assert add.enqueue(2, 3).result(timeout=60) == 5
        finally:
            assert worker.stop()
    assert len(lines(logging.WARNING)) == 1
    assert lines(logging.WARNING, "no connection free")


@on_postgres
def test_a_worker_works_with_two_connections_if_the_server_gives_it_no_more(
    limited: Limited, watch: Watch, wait_until: Any, lines: Any
) -> None:
    with JobQueue(limited.url) as jobs:

        @jobs.task
        def nop() -> None: ...

        jobs.enqueue_many([nop.call() for _ in range(1000)])
    limited.allow(2)
    with jobs.worker(concurrency=8):
        assert watch.most(watch.succeeded(1000)) <= 2
    assert len(lines(logging.WARNING)) <= 1  # It would like to listen.


@on_postgres
def test_a_stop_ends_the_wait_for_a_connection_in_order(
    limited: Limited, wait_until: Any, lines: Any
) -> None:
    limited.allow(0)
    with JobQueue(limited.url) as jobs:
        worker = jobs.worker()
        with ThreadPoolExecutor(1) as threads:
            started = threads.submit(worker.start)
            wait_until(lambda: lines(logging.WARNING))
            worker.request_stop()
            started.result(60)
        assert worker.wait(0)
        assert worker.stop()
    assert len(lines(logging.WARNING)) == 1


@on_postgres
def test_another_refusal_is_an_error_of_the_start(url: str) -> None:
    nowhere = make_url(url).set(database="nowhere").render_as_string()
    with (
        JobQueue(nowhere) as jobs,
        pytest.raises(OperationalError, match="does not exist"),
    ):
        jobs.worker().start()


def test_the_environment_says_how_many_connections_a_queue_has(url: str, monkeypatch: Any) -> None:
    def size(**given: Any) -> int:
        with JobQueue(url, **given) as queue:
            status = queue.store.engine.pool.status()
            kept = queue.store.backend.single_writer  # one more, for statements in autocommit
            return int(re.search(r"\d+(?=  Conn| connections)", status)[0]) - kept

    assert size() == 4
    assert size(pool_size=2) == 2
    monkeypatch.setenv("JOBQUEUE_POOL_SIZE", "3")
    assert size(pool_size=2) == 3
    monkeypatch.setenv("JOBQUEUE_POOL_SIZE", "")
    assert size() == 4
    for wrong in ("0", "many", "1" * 5000):
        monkeypatch.setenv("JOBQUEUE_POOL_SIZE", wrong)
        with pytest.raises(InvalidOption, match="JOBQUEUE_POOL_SIZE"):
            size()


@on_postgres
def test_an_outcome_is_written_while_all_of_upkeep_waits_for_a_lock_on_the_leases(
    jobs: JobQueue, url: str, watch: Watch, wait_until: Any, caplog: Any
) -> None:
    """Upkeep has two connections of the four; it may not keep both."""
    gate = threading.Event()

    @jobs.task
    def wait() -> None:
        gate.wait(60)

    wait.enqueue()
    running = "SELECT count(*) FROM jobqueue_jobs WHERE state = 'running'"
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with jobs.worker(concurrency=1):
        wait_until(lambda: watch.ask(running))
        with locked(url, "jobqueue_workers", "ACCESS EXCLUSIVE"):
            wait_until(
                lambda: (
                    {"reaper", "scheduler"} <= {line.partition(":")[0] for line in caplog.messages}
                    or watch.ask(f"{blocked} AND datname = current_database()") >= 3
                )
            )
            gate.set()
            wait_until(watch.succeeded(1))


@on_postgres
@pytest.mark.parametrize("runs", [False, True])
def test_a_stop_does_not_wait_for_a_lock_on_the_leases(
    jobs: JobQueue, url: str, wait_until: Any, lines: Any, runs: bool
) -> None:
    gate = threading.Event()

    @jobs.task
    def wait() -> None:
        gate.wait(60)

    worker = jobs.worker()
    worker.start()
    if runs:
        wait.enqueue()
        wait_until(lambda: worker.running)
    with locked(url, "jobqueue_workers"), ThreadPoolExecutor(1) as threads:
        stopped = threads.submit(worker.stop)
        if runs:  # It cannot say that it is draining.
            wait_until(lambda: any("heartbeat: failed" in line for line in lines(logging.WARNING)))
        gate.set()
        stopped.result(30)
