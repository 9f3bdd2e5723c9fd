"""What a test may ask of an application's queue: what was enqueued, and to run it here and now."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from unittest.mock import ANY

import pytest
from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from jobqueue import (
    Cancel,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobQueue,
    JobQueueError,
    QueueFull,
    ResultTimeout,
    Retry,
    Snooze,
    State,
    WrongState,
    current_job,
)
from jobqueue.errors import AttemptTimeout, ConfigurationError
from jobqueue.testing import Databases, QueueTester, bind


class App:
    """An application: its queue, which leads elsewhere, its tasks, and what they did."""

    def __init__(self, home: str) -> None:
        self.jobs = jobs = JobQueue(home)
        self.done: list[Any] = []

        @jobs.task
        def add(x: int, y: int = 1) -> int:
            self.done.append((x, y))
            return x + y

        @jobs.task
        def points(where: tuple[int, ...], more: Any) -> tuple[int, ...]:
            self.done.append((where, more))
            return where

        @jobs.task
        def outer(x: int) -> None:
            add.enqueue(x)
            self.done.append(f"outer {x}")

        @jobs.task(max_attempts=3)
        def flaky(succeeds_at: int) -> str:
            self.done.append(current_job().attempt)
            if current_job().attempt < succeeds_at:
                raise ValueError("not yet")
            return "at last"

        @jobs.task
        async def fetch(url: str) -> int:
            current_job().progress(0.5, "half")
            await asyncio.sleep(0)
            self.done.append(asyncio.get_running_loop())
            return len(url)

        @jobs.task(max_attempts=2)
        def steer(how: str) -> None:
            self.done.append(how)
            raise {"snooze": Snooze(60), "retry": Retry(60), "cancel": Cancel("no")}[how]

        self.add, self.points, self.outer, self.flaky = add, points, outer, flaky
        self.fetch, self.steer = fetch, steer


@pytest.fixture
def home(tmp_path: Any) -> str:
    """Where the application's queue leads when no test has bound it."""
    return f"sqlite:///{tmp_path / 'home.db'}"


@pytest.fixture
def app(home: str) -> App:
    return App(home)


Given = tuple[str | None, Databases]


@pytest.fixture(scope="module")
def on_sqlite() -> Iterator[Given]:
    with Databases() as databases:
        yield None, databases


@pytest.fixture(scope="module")
def on_postgres(postgres_server: Any) -> Iterator[Given]:
    name = postgres_server.create()
    with Databases() as databases:
        yield postgres_server.url(name), databases
    postgres_server.drop(name)


@pytest.fixture
def given(backend_name: str, request: pytest.FixtureRequest) -> Given:
    """The URL that a test run's configuration names, and what makes the schema once for all."""
    return request.getfixturevalue(f"on_{backend_name}")


@pytest.fixture
def tester(app: App, given: Given) -> Iterator[QueueTester]:
    with bind(app.jobs, given[0], databases=given[1]) as tester:
        yield tester


@pytest.fixture
def connection(tester: QueueTester) -> Iterator[Connection]:
    """A transaction of the test's own, with a table of the application's, rolled back at the end."""
    assert make_url(tester.url).drivername in ("sqlite", "postgresql+psycopg")
    engine = create_engine(tester.url)
    if engine.dialect.name == "sqlite":  # As SQLAlchemy's documentation has it, for savepoints.
        event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
        event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN"))
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER)"))
        yield connection
        connection.rollback()
    engine.dispose()


def rows(tester: QueueTester) -> list[Any]:
    return list(tester.jobs.list(limit=None))


# What was enqueued


def test_a_call_is_found_however_its_arguments_were_given(app: App, tester: QueueTester) -> None:
    job = app.add.enqueue(7)
    scheduled = app.add.options(delay=60).enqueue(8, 9)
    assert tester.enqueued(app.add, x=7, y=1) == tester.enqueued(app.add, 7) == [job]
    assert tester.enqueued(app.add, 8, y=ANY) == [scheduled]
    assert tester.enqueued(app.add) == [job, scheduled]
    assert not tester.enqueued(app.outer)
    points = app.points.enqueue((1, 2), more=[3])
    assert tester.enqueued(app.points, (1, 2), [3]) == [points]
    assert not tester.enqueued(app.points, (1, 2), [4])


def test_what_waits_instead_is_said_and_a_call_that_cannot_be_is_refused(
    app: App, tester: QueueTester
) -> None:
    assert repr(tester.enqueued(app.add)) == "[] (waiting: no job)"
    app.add.enqueue(7)
    found = tester.enqueued(app.add, 8)
    assert found == []
    assert repr(found) == '[] (waiting: 1 add{"args":[7],"kwargs":{}})'
    with pytest.raises(InvalidArguments, match="add: too many positional arguments"):
        tester.enqueued(app.add, 1, 2, 3)


def test_a_job_that_has_run_is_not_enqueued_any_more(app: App, tester: QueueTester) -> None:
    app.add.enqueue(7)
    tester.drain()
    assert tester.enqueued(app.add) == []


def test_the_jobs_that_a_block_makes_are_collected(app: App, tester: QueueTester) -> None:
    app.add.enqueue(1)
    keyed = app.add.options(unique_key="k")
    with tester.enqueues() as made:
        first = keyed.enqueue(2)
        assert made == [first]
        keyed.enqueue(2)
        more = app.jobs.enqueue_many([app.add.call(3), app.outer.call(4)])
    app.add.enqueue(5)
    assert made == [first, *more]


def test_jobs_that_were_rolled_back_were_not_made(
    app: App, tester: QueueTester, connection: Connection
) -> None:
    with tester.enqueues() as made:
        kept = app.add.within(connection).enqueue(1)
        with connection.begin_nested() as savepoint:
            app.add.within(connection).enqueue(2)
            savepoint.rollback()
    assert made == [kept]
    with tester.enqueues() as made:
        app.add.within(connection).enqueue(3)
        connection.rollback()
    assert made == []


# One job, here and now


def test_a_job_is_run_by_a_workers_code_and_recorded_so(app: App, tester: QueueTester) -> None:
    seen: list[Any] = []
    app.jobs.use(lambda context, run: (seen.append(("around", context.id)), run())[1])
    app.jobs.on("succeeded", lambda event: seen.append((event.name, event.job)))
    job = app.points.options(delay=3600).enqueue((1, 2), more={"a": [3]})
    assert tester.run(job) == (1, 2)
    assert app.done == [((1, 2), {"a": [3]})]
    assert seen == [("around", job.id), ("succeeded", job.id)]
    record = job.record()
    assert (record.state, record.attempt, record.fence) == (State.SUCCEEDED, 1, 2)
    assert record.worker == "jobqueue.testing"
    with tester._store.read() as connection:
        counted = "SELECT succeeded FROM jobqueue_task_stats WHERE task = 'points'"
        assert connection.execute(text(counted)).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM jobqueue_workers")).scalar_one() == 0


def test_a_call_can_be_run_at_once(app: App, tester: QueueTester) -> None:
    assert tester.run(app.add.call(2, 3)) == 5
    assert [row.state for row in rows(tester)] == [State.SUCCEEDED]


def test_what_the_handler_raised_is_raised_after_it_was_recorded(
    app: App, tester: QueueTester
) -> None:
    job = app.flaky.enqueue(9)
    with pytest.raises(ValueError, match="not yet"):
        tester.run(job)
    assert (job.state, job.record().error.message) == (State.SCHEDULED, "not yet")
    with pytest.raises(ValueError):
        tester.run(job)
    with pytest.raises(ValueError):
        tester.run(job)
    assert (job.state, job.record().attempt) == (State.FAILED, 3)
    with pytest.raises(WrongState, match=rf"job {job.id} \(flaky\) is failed"):
        tester.run(job)


@pytest.mark.parametrize(
    ("how", "signal", "state", "attempt"),
    [
        ("snooze", Snooze, State.SCHEDULED, 0),
        ("retry", Retry, State.SCHEDULED, 1),
        ("cancel", Cancel, State.CANCELLED, 1),
    ],
)
def test_a_signal_is_obeyed_and_raised(
    app: App, tester: QueueTester, how: str, signal: type[Exception], state: State, attempt: int
) -> None:
    job = app.steer.enqueue(how)
    with pytest.raises(signal):
        tester.run(job)
    assert (job.state, job.record().attempt) == (state, attempt)


def test_a_job_cancelled_by_its_own_handler_is_not_a_success(app: App, tester: QueueTester) -> None:
    @app.jobs.task
    def give_up() -> None:
        app.jobs.cancel(current_job().id)

    with pytest.raises(JobCancelled):
        tester.run(give_up.call())


def test_a_job_that_cannot_be_claimed_is_not_run(app: App, tester: QueueTester) -> None:
    first, second, third = (app.add.enqueue(x) for x in (1, 2, 3))
    assert tester.run(second) == 3
    with pytest.raises(WrongState):
        tester.run(second)
    assert (third.state, third.record().fence) == (State.AVAILABLE, 0)
    app.jobs.pause("default")
    with pytest.raises(JobQueueError, match="'default' paused"):
        tester.run(first)
    assert (first.state, first.record().attempt) == (State.AVAILABLE, 0)


def test_arguments_that_no_longer_fit_fail_the_job(app: App, tester: QueueTester) -> None:
    job = app.add.enqueue(1)
    with tester._store.write() as connection:
        connection.execute(text("""UPDATE jobqueue_jobs SET args = '{"args":["x"],"kwargs":{}}'"""))
    with pytest.raises(JobFailed, match="expected int, got str"):
        tester.run(job)
    assert job.state is State.FAILED


def test_what_a_handler_sets_is_seen_by_no_other(app: App, tester: QueueTester) -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    @app.jobs.task
    def count() -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    assert [tester.run(count.call()), tester.run(count.call())] == [1, 1]
    assert variable.get() == 0


# All of them


def test_a_drain_runs_what_handlers_enqueue_too_and_nothing_that_is_not_due(
    app: App, tester: QueueTester
) -> None:
    later = app.add.options(delay=3600).enqueue(9)
    app.outer.options(queue="b").enqueue(1)
    app.add.options(priority=-1, queue="c").enqueue(0)
    made = tester.drain()
    assert app.done == [(0, 1), "outer 1", (1, 1)]
    assert [(one.task, one.outcome, one.state) for one in made] == [
        ("add", "succeeded", State.SUCCEEDED),
        ("outer", "succeeded", State.SUCCEEDED),
        ("add", "succeeded", State.SUCCEEDED),
    ]
    assert later.state is State.SCHEDULED


def test_time_passes_for_scheduled_jobs_and_retries_without_waiting(
    app: App, tester: QueueTester
) -> None:
    flaky = app.flaky.options(delay=60).enqueue(3)
    app.add.options(delay=30).enqueue(1)
    made = tester.drain(with_scheduled=True)
    assert [(one.task, one.number, one.outcome) for one in made] == [
        ("add", 1, "succeeded"),
        ("flaky", 1, "errored"),
        ("flaky", 2, "errored"),
        ("flaky", 3, "succeeded"),
    ]
    assert flaky.result(timeout=0) == "at last"


def test_so_much_time_passes_as_is_said(app: App, tester: QueueTester) -> None:
    app.add.options(delay=3600).enqueue(1)
    snoozing = app.steer.enqueue("snooze")
    assert len(tester.drain(with_scheduled=170)) == 3  # now, and after 60 s and 120 s
    assert tester.drain(with_scheduled="5s") == []
    assert len(tester.drain(with_scheduled=10)) == 1  # after 180 s of all
    app.jobs.cancel(snoozing.id)
    assert tester.drain(with_scheduled=3300) == []
    assert len(tester.drain(with_scheduled=200)) == 1


def test_a_deadline_comes_nearer_as_time_passes(app: App, tester: QueueTester) -> None:
    job = app.add.options(deadline=60).enqueue(1)
    app.jobs.pause("default")
    assert tester.drain(with_scheduled=61) == []
    app.jobs.resume("default")
    with pytest.raises(JobFailed, match="deadline passed"):
        tester.drain()
    assert (job.state, app.done) == (State.FAILED, [])


def test_errors_are_raised_when_all_is_done(app: App, tester: QueueTester) -> None:
    bad = app.flaky.enqueue(9)
    app.add.enqueue(1)
    with pytest.raises(ValueError, match="not yet") as raised:
        tester.drain()
    assert raised.value.__notes__ == [
        f"job {bad.id} (flaky), attempt 1 errored; it is scheduled now"
    ]
    assert app.done == [1, (1, 1)]
    assert [one.number for one in tester.drain(with_scheduled=True, raises=False)] == [2, 3]
    assert bad.state is State.FAILED


def test_a_retry_is_asked_for_and_no_error_until_the_job_has_failed(
    app: App, tester: QueueTester
) -> None:
    app.steer.enqueue("retry")
    assert [one.outcome for one in tester.drain()] == ["errored"]
    with pytest.raises(JobFailed, match="Retry"):
        tester.drain(with_scheduled=True)


def test_what_is_no_exception_ends_the_test_at_once(app: App, tester: QueueTester) -> None:
    @app.jobs.task
    def interrupted() -> None:
        raise KeyboardInterrupt

    job = interrupted.enqueue()
    app.add.enqueue(1)
    with pytest.raises(KeyboardInterrupt):
        tester.drain()
    assert (app.done, job.state) == ([], State.SCHEDULED)
    with tester._store.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobqueue_workers")).scalar_one() == 0


def test_a_job_without_end_is_told_of(app: App, tester: QueueTester) -> None:
    @app.jobs.task
    def again() -> None:
        again.enqueue()

    again.enqueue()
    with pytest.raises(JobQueueError, match=r"5 attempts were made, and job 6 \(again\) still"):
        tester.drain(limit=5)
    assert [job.record().attempt for job in tester.enqueued(again)] == [0]


def test_a_task_that_nobody_knows_waits(app: App, tester: QueueTester) -> None:
    with tester._store.write() as connection:
        connection.execute(text("INSERT INTO jobqueue_jobs (task) VALUES ('stranger')"))
    app.add.options(delay=60).enqueue(1)
    outcomes = [one.outcome for one in tester.drain(with_scheduled=True)]
    assert outcomes[0] == "unknown task"
    assert app.done == [(1, 1)]


def test_a_key_is_free_once_its_job_begins(app: App, tester: QueueTester) -> None:
    @app.jobs.task(unique_key="one", unique_until="started")
    def once_more(times: int) -> None:
        if times:
            assert once_more.enqueue(times - 1).created

    once_more.enqueue(2)
    assert len(tester.drain()) == 3


# In a transaction that the test rolls back


def test_jobs_of_a_transaction_are_run_in_it_and_go_with_it(
    app: App, tester: QueueTester, connection: Connection
) -> None:
    session = Session(connection, join_transaction_mode="create_savepoint")

    @app.jobs.task
    def ship(order: int) -> None:
        with Session(connection, join_transaction_mode="create_savepoint") as own, own.begin():
            assert own.execute(text("SELECT id FROM orders")).scalar_one() == order
            current_job().finish_within(own, None)
        app.outer.enqueue(order)  # Plain, and yet in the test's transaction.

    with session:
        session.execute(text("INSERT INTO orders VALUES (7)"))
        job = ship.within(session).enqueue(7)
        session.commit()
    assert tester.drain() == []
    made = tester.drain(within=connection)
    assert [(one.task, one.outcome) for one in made] == [
        ("ship", "succeeded"),
        ("outer", "succeeded"),
        ("add", "succeeded"),
    ]
    with tester.within(connection):
        assert job.state is State.SUCCEEDED
    connection.rollback()
    assert rows(tester) == []


def test_a_whole_test_can_be_in_one_transaction(
    app: App, tester: QueueTester, connection: Connection
) -> None:
    with tester.within(connection):
        app.outer.enqueue(1)
        assert [job.id for job in tester.enqueued(app.outer, 1)] == [1]
        done = app.add.enqueue(1, 1)
        assert tester.run(done) == 2
        waits = app.add.enqueue(5)
        with pytest.raises(WrongState):
            tester.run(done)
        assert (waits.state, waits.record().fence) == (State.AVAILABLE, 0)
        waits.cancel()
        bad = app.flaky.options(delay=60).enqueue(9)
        tester.drain(with_scheduled=True, raises=False)
        assert bad.state is State.FAILED
        assert app.done == [(1, 1), "outer 1", (1, 1), 1, 2, 3]
    connection.rollback()
    assert rows(tester) == []


def test_jobs_of_an_async_transaction_are_run_in_it(app: App, tester: QueueTester) -> None:
    url = make_url(tester.url)
    on_sqlite = url.drivername == "sqlite"
    driver = "sqlite+aiosqlite" if on_sqlite else "postgresql+psycopg"

    async def test() -> None:
        engine = create_async_engine(url.set(drivername=driver))
        async with engine.connect() as connection:
            if on_sqlite:
                await connection.exec_driver_sql("BEGIN")
            await app.outer.within(connection).aenqueue(1)
            made = await connection.run_sync(lambda sync: tester.drain(within=sync))
            assert [one.task for one in made] == ["outer", "add"]
            await connection.rollback()
        await engine.dispose()

    asyncio.run(test())
    assert rows(tester) == []


def test_many_jobs_at_once_are_made_in_the_transaction_of_the_test(
    app: App, tester: QueueTester, connection: Connection
) -> None:
    with tester.within(connection):
        made = app.jobs.enqueue_many([app.add.call(x) for x in range(30)])
        assert [job.id for job in made] == list(range(1, 31))
        assert len(tester.drain()) == 30
    connection.rollback()
    assert rows(tester) == []


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_a_savepoint_commits_nothing_where_the_driver_begins_late(
    app: App, tester: QueueTester
) -> None:
    engine = create_engine(tester.url)  # With the driver's own BEGIN, before the first write.
    app.add.enqueue(1)
    with engine.connect() as connection:
        assert len(tester.drain(within=connection)) == 1
        connection.rollback()
    engine.dispose()
    assert [row.state for row in rows(tester)] == [State.AVAILABLE]


# Inline


def test_a_job_runs_before_enqueue_returns_with_arguments_that_went_through_json(
    app: App, tester: QueueTester
) -> None:
    with tester.enqueues() as made, tester.inline() as attempts:
        given = [3]
        job = app.points.enqueue((1, 2), more=given)
        assert app.done == [((1, 2), [3])]
        assert app.done[0][1] is not given
        assert job.result(timeout=0) == (1, 2)
        outer = app.outer.enqueue(4)
        assert app.done[1:] == ["outer 4", (4, 1)]
        later = app.add.options(delay=60).enqueue(5)
        with pytest.raises(InvalidArguments):
            app.add.enqueue("no")
    assert [one.task for one in attempts] == ["points", "outer", "add"]
    assert made == [job, outer, tester.jobs.get(3), later]
    assert later.state is State.SCHEDULED
    app.add.enqueue(6)
    assert (6, 1) not in app.done


def test_inline_a_job_of_a_transaction_runs_once_it_is_committed(
    app: App, tester: QueueTester
) -> None:
    engine = create_engine(tester.url)
    with tester.inline():
        with Session(engine) as session:
            app.add.within(session).enqueue(1)
            assert app.done == []
            session.commit()
            assert app.done == [(1, 1)]
            app.add.within(session).enqueue(2)
            session.rollback()
        with engine.begin() as connection:
            app.add.within(connection).enqueue(3)
        assert app.done == [(1, 1)]
    assert app.done == [(1, 1), (3, 1)]
    engine.dispose()


@pytest.mark.parametrize("how", ["run", "drain"])
def test_inline_what_a_handler_enqueues_runs_once_it_has_ended_whoever_runs_that(
    app: App, tester: QueueTester, how: str
) -> None:
    @app.jobs.task
    def calls() -> None:
        app.add.enqueue(1)
        app.done.append("calls has ended")

    with tester.inline():
        job = calls.options(delay=60).enqueue()
        if how == "run":
            tester.run(job)
        else:
            tester.drain(with_scheduled=True)
        assert app.done == ["calls has ended", (1, 1)]


def test_inline_an_error_is_raised_at_the_end_and_not_by_enqueue(
    app: App, tester: QueueTester
) -> None:
    with pytest.raises(ValueError, match="not yet"), tester.inline():
        job = app.flaky.enqueue(9)
        assert job.state is State.SCHEDULED
    job.cancel()
    with tester.inline(with_scheduled=True):
        app.flaky.enqueue(3)
    assert tester.jobs.get(2).state is State.SUCCEEDED


def test_inline_jobs_of_other_threads_and_of_coroutines_run_too(
    app: App, tester: QueueTester
) -> None:
    @app.jobs.task
    async def spread() -> None:
        await app.add.aenqueue(1)
        thread = threading.Thread(target=app.add.enqueue, args=(2,))
        thread.start()
        thread.join()

    with tester.inline():
        asyncio.run(spread.aenqueue())
    assert sorted(app.done) == [(1, 1), (2, 1)]


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
    monkeypatch.setattr("jobqueue.testing.lone_jobs.ALONE_MAX", 0.0)
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
    for _ in range(2):
        with bind(app.jobs) as tester:
            assert app.add.enqueue(1).id == 1
            with tester.jobs.worker() as worker:  # A real one is possible, too.
                assert app.jobs.get(1).result(timeout=20) == 2
            assert worker.processed == 1
            stale = app.add.enqueue(2)
        assert not [one.name for one in threading.enumerate() if "jobqueue" in one.name]
    with pytest.raises((JobNotFound, ConfigurationError, OSError)):
        stale.record()


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_a_database_that_is_in_use_is_refused(app: App, url: str) -> None:
    with JobQueue(url) as real:
        real.task(json.dumps, name="dumps").enqueue({})
    with pytest.raises(ConfigurationError, match=r"has 1 job\(s\): a test needs a database of its"):
        with bind(app.jobs, url):
            pass
    assert app.jobs.store.url.database.endswith("home.db")


@pytest.mark.parametrize("backend_name", ["postgres"])
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


@pytest.mark.parametrize("backend_name", ["postgres"])
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
