"""Jobs of a test in the transaction that the test rolls back, and jobs that run inline."""

import asyncio
import threading

import pytest
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from jobqueue import (
    InvalidArguments,
    State,
    WrongState,
    current_job,
)
from jobqueue.testing import QueueTester
from tests.testing.conftest import App, rows

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


@pytest.mark.databases("sqlite")
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
