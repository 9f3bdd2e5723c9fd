"""Async jobs, waiting, and how a test's queue is bound and left."""

import asyncio
import json
import threading
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from jobqueue import (
    JobNotFound,
    JobQueue,
    QueueFull,
    ResultTimeout,
    State,
)
from jobqueue.errors import AttemptTimeout, ConfigurationError
from jobqueue.testing import Databases, QueueTester, bind
from tests.testing.conftest import App, Given, rows

# Coroutines


def test_an_async_job_runs_on_a_loop_of_its_own_and_leaves_nothing(
    app: App, tester: QueueTester
) -> None:
    job = app.fetch.enqueue("abc")
    assert tester.run(job) == 3
    assert (job.record().progress, job.record().progress_message) == (0.5, "half")

    async def within_a_loop() -> int:
        return tester.run(app.fetch.call("abcd"))

    assert asyncio.run(within_a_loop()) == 4
    assert [loop.is_closed() for loop in app.done] == [True, True]
    assert not [one.name for one in threading.enumerate() if "testing" in one.name]


def test_an_async_test_runs_async_jobs_on_its_own_loop(app: App, tester: QueueTester) -> None:
    async def test() -> None:
        here = asyncio.get_running_loop()
        assert await tester.arun(app.fetch.call("abc")) == 3
        app.fetch.enqueue("abcd")
        app.outer.enqueue(1)
        made = await tester.adrain()
        assert [one.task for one in made] == ["fetch", "outer", "add"]
        assert app.done == [here, here, "outer 1", (1, 1)]
        with pytest.raises(ValueError):
            await tester.arun(app.flaky.call(9))

    asyncio.run(test())


def test_an_async_job_runs_out_of_its_time(app: App, tester: QueueTester) -> None:
    @app.jobs.task(timeout=0.01)
    async def endless() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AttemptTimeout):
        tester.run(endless.call())

    async def test() -> None:
        with pytest.raises(AttemptTimeout):
            await tester.arun(endless.call())
        assert asyncio.current_task().cancelling() == 0  # The handler was cancelled, not the test.

    asyncio.run(test())


def test_a_coroutine_that_a_plain_wrapper_returns_is_awaited(app: App, tester: QueueTester) -> None:
    import functools

    def wrapped(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    @app.jobs.task(name="late")
    @wrapped
    async def late(x: int) -> int:
        await asyncio.sleep(0)
        return x

    assert tester.run(late.call(5)) == 5
    assert not [one.name for one in threading.enumerate() if "loop" in one.name]


# Waiting


def test_a_handler_that_waits_for_what_nobody_runs_is_told_so(
    app: App, tester: QueueTester
) -> None:
    @app.jobs.task
    def wait() -> int:
        return app.add.enqueue(1).result(timeout=5)

    with pytest.raises(ResultTimeout, match="nothing runs it meanwhile"):
        tester.run(wait.call())


def test_a_test_that_waits_for_what_nobody_runs_is_told_so(
    app: App, tester: QueueTester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobqueue.testing.workerless_jobs.WORKER_WAIT_MAX", 0.0)
    job = app.add.enqueue(1)
    with pytest.raises(ResultTimeout, match="call run"):
        job.result()
    tester.drain()
    assert job.result() == 2


# The binding


def test_the_queue_leads_back_home_and_what_was_declared_holds_in_both(
    app: App, given: Given, home: str
) -> None:
    app.jobs.queue("small", max_pending=2, when_full="wait")
    with bind(app.jobs, given[0], databases=given[1]) as tester:
        small = app.add.options(queue="small")
        small.enqueue(1)
        small.enqueue(2)
        with pytest.raises(QueueFull):  # At once: nobody would make room.
            small.enqueue(3)
        assert len(tester.drain()) == 2
        app.jobs.queue("tiny", max_pending=1, when_full="reject")
    job = app.add.options(queue="tiny").enqueue(1)
    with pytest.raises(QueueFull):
        app.add.options(queue="tiny").enqueue(2)
    assert app.jobs.store.url.database == home.removeprefix("sqlite:///")
    assert (job.id, [row.queue for row in app.jobs.list()]) == (1, ["tiny"])
    app.jobs.close()


def test_each_binding_is_fresh_and_no_thread_stays(app: App) -> None:
    before = set(threading.enumerate())
    for _ in range(2):
        with bind(app.jobs) as tester:
            assert app.add.enqueue(1).id == 1
            with tester.jobs.worker() as worker:  # A real one is possible, too.
                assert app.jobs.get(1).result(timeout=60) == 2
            assert worker.processed == 1
            stale = app.add.enqueue(2)
        left = set(threading.enumerate()) - before
        assert not [one.name for one in left if "jobqueue" in one.name]
    with pytest.raises((JobNotFound, ConfigurationError, OSError)):
        stale.record()


@pytest.mark.databases("sqlite")
def test_a_database_that_is_in_use_is_refused(app: App, url: str) -> None:
    with JobQueue(url) as real:
        real.task(json.dumps, name="dumps").enqueue({})
    with pytest.raises(ConfigurationError, match=r"has 1 job\(s\): a test needs a database of its"):
        with bind(app.jobs, url):
            pass
    assert app.jobs.store.url.database.endswith("home.db")


@pytest.mark.databases("postgres")
def test_a_servers_tables_are_left_alone_and_nothing_stays_there(app: App, url: str) -> None:
    with JobQueue(url) as real, Databases() as databases:
        job = real.task(json.dumps, name="dumps").enqueue({})
        for _ in range(2):
            with bind(app.jobs, url, databases=databases) as tester:
                app.add.enqueue(1)
                assert len(rows(tester)) == 1
        assert job.state is State.AVAILABLE
        with real.store.read() as connection:
            schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'jobqueue_test%'"
            assert len(connection.execute(text(schemas)).all()) == 1
            databases.close()
            assert connection.execute(text(schemas)).all() == []


@pytest.mark.databases("postgres")
def test_a_transaction_that_a_test_left_open_is_told_of(app: App, url: str) -> None:
    with Databases() as databases:
        with bind(app.jobs, url, databases=databases) as tester:
            engine = create_engine(tester.url)
            left_open = engine.connect()
            app.add.enqueue(1)
            left_open.execute(text("UPDATE jobqueue_jobs SET priority = 1"))
        with pytest.raises(OperationalError) as raised:
            with bind(app.jobs, url, databases=databases):
                pass
        assert "left a transaction open" in raised.value.__notes__[0]
        left_open.close()
        engine.dispose()
