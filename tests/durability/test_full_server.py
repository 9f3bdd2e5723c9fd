"""More workers than a PostgreSQL server has connections for: they wait for each other, and none ends."""

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from jobqueue import JobQueue
from jobqueue.worker import connections
from tests import process_factory

pytestmark = pytest.mark.slow

CONNECTIONS = 100  # a server's own default
WORKERS, IDLE = 40, 30
JOBS = 10_000


@pytest.fixture
def jobs(own_postgres: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    # Forty workers that stop at once on a busy machine may need longer for their last commits.
    monkeypatch.setattr("jobqueue.worker.shutdown.FLUSH_TIMEOUT", 60.0)
    with JobQueue(own_postgres.url, pool_size=1) as jobs:

        @jobs.task
        def nop() -> None: ...

        yield jobs


@contextmanager
def at_work(jobs: JobQueue, count: int) -> Iterator[list[Any]]:
    """So many workers. A process of its own for each would make it the same, and a minute longer."""
    workers = [jobs.worker(name=f"worker-{number}") for number in range(count)]
    with ThreadPoolExecutor(count) as threads:
        started = [threads.submit(worker.start) for worker in workers]
        yield workers
        for worker in workers:
            worker.request_stop()  # Some may be waiting still, to begin.
        for each in started:
            each.result(60)
        assert all(threads.map(lambda worker: worker.stop(), workers))


def test_forty_workers_on_a_hundred_connections_run_ten_thousand_jobs_and_none_ends(
    jobs: JobQueue, own_postgres: Any, wait_until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobqueue")
    nop = jobs.registry["nop"]
    with psycopg.connect(own_postgres.url, autocommit=True) as watch:

        def ask(question: str) -> Any:
            return watch.execute(question).fetchone()[0]

        assert ask("SHOW max_connections") == str(CONNECTIONS)
        jobs.enqueue_many([nop.call() for _ in range(JOBS)])
        ended = "SELECT count(*) FROM jobqueue_jobs WHERE state = 'succeeded' AND fence = 2"
        with at_work(jobs, WORKERS) as workers:
            wait_until(lambda: ask(ended) == JOBS, 60)
            assert not any(worker.wait(0) for worker in workers)
        assert ask("SELECT count(*) FROM jobqueue_attempts") == 0
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line for line in lines if "no connection free" not in line] == []
    assert len(lines) < WORKERS  # Each says so once, and most had what they needed.


def test_beside_thirty_idle_workers_others_find_a_connection(
    jobs: JobQueue, own_postgres: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 1.0)
    # On a busy machine claims and upkeep may wait for longer than this, and open a fourth.
    monkeypatch.setattr(connections, "TURN_SECONDS", 30.0)
    with psycopg.connect(own_postgres.url, autocommit=True) as watch, at_work(jobs, IDLE):
        open_ = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobqueue'"
        ready = "SELECT count(*) FROM jobqueue_workers"
        wait_until(lambda: watch.execute(ready).fetchone() == (IDLE,), 60)
        wait_until(lambda: watch.execute(open_).fetchone()[0] <= 3 * IDLE)
        enqueue = ["enqueue", "nop", f"--url={own_postgres.url}"]
        done = process_factory.run([sys.executable, "-m", "jobqueue", *enqueue])
        assert done.returncode == 0, done.stderr
        with psycopg.connect(own_postgres.url) as another:
            assert another.execute("SELECT 1").fetchone() == (1,)
