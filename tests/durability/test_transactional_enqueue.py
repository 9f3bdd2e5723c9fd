"""within: a job is part of the user's own transaction, on every driver that SQLAlchemy offers for the two databases."""

import asyncio
import sqlite3
import threading
from contextlib import asynccontextmanager, closing, contextmanager

import pytest
from processes import ProcessScenario, app
from sqlalchemy import Engine, create_engine, insert, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from jobqueue import JobQueue
from jobqueue.errors import ConfigurationError, InvalidOption, JobQueueError
from jobqueue.records import JobFilter

SYNC = {"sqlite": ["sqlite"], "postgres": ["postgresql+psycopg", "postgresql+psycopg2"]}
ASYNC = {"sqlite": ["sqlite+aiosqlite"], "postgres": ["postgresql+asyncpg", "postgresql+psycopg"]}
each_sync = pytest.mark.parametrize(
    ("backend_name", "driver"), [(name, driver) for name in SYNC for driver in SYNC[name]]
)
each_async = pytest.mark.parametrize(
    ("backend_name", "driver"), [(name, driver) for name in ASYNC for driver in ASYNC[name]]
)
kinds = pytest.mark.parametrize("kind", ["session", "connection"])

WAKES = 3
ONLY_WOKEN = {"poll": 3600, "tune": {"claim.cursors.RESCAN_INTERVAL": 3600}}
"""A worker that asks for jobs only when a wake-up tells it to."""


def on_driver(url: str, driver: str):
    return make_url(url).set(drivername=driver)


@contextmanager
def engine_of(url: str, driver: str = ""):
    engine = create_engine(on_driver(url, driver) if driver else url)
    yield engine
    engine.dispose()


def opened(engine: Engine, kind: str):
    """A session or a connection of the user's."""
    return Session(engine) if kind == "session" else engine.connect()


@kinds
@each_sync
def test_a_job_is_committed_or_rolled_back_with_the_users_transaction(
    scenario: ProcessScenario, driver: str, kind: str
) -> None:
    task = scenario.task("nop")
    app.METADATA.create_all(scenario.engine)
    with engine_of(scenario.url, driver) as engine:
        for fate in ("rollback", "commit"):
            with opened(engine, kind) as transaction:
                transaction.execute(insert(app.PAYMENTS), {"job": 7, "fence": 0})
                job = task.within(transaction).enqueue()
                assert scenario.states() == {}  # Nobody else sees it yet.
                getattr(transaction, fate)()
        with opened(engine, kind) as transaction:
            with pytest.raises(ZeroDivisionError), transaction.begin():
                task.within(transaction).enqueue()
                1 / 0
    assert scenario.states() == {"available": 1}
    assert scenario.record(job.id).state == "available"
    assert [row.job for row in scenario.rows("SELECT job FROM payments")] == [7]


@kinds
@each_async
def test_a_job_is_committed_or_rolled_back_with_an_async_transaction(
    scenario: ProcessScenario, driver: str, kind: str
) -> None:
    task = scenario.task("nop")
    app.METADATA.create_all(scenario.engine)

    @asynccontextmanager
    async def opened(engine):
        async with AsyncSession(engine) if kind == "session" else engine.connect() as transaction:
            yield transaction

    async def main():
        engine = create_async_engine(on_driver(scenario.url, driver))
        try:
            for fate in ("rollback", "commit"):
                async with opened(engine) as transaction:
                    assert isinstance(transaction, AsyncSession | AsyncConnection)
                    await transaction.execute(insert(app.PAYMENTS), {"job": 7, "fence": 0})
                    with pytest.raises(InvalidOption, match="aenqueue"):
                        task.within(transaction).enqueue()
                    job = await task.within(transaction).aenqueue()
                    assert await asyncio.to_thread(scenario.states) == {}
                    with pytest.raises(JobQueueError, match="not been committed"):
                        await job
                    await getattr(transaction, fate)()
            return job
        finally:
            await engine.dispose()

    job = asyncio.run(main())
    assert scenario.states() == {"available": 1}
    assert scenario.record(job.id).state == "available"
    assert [row.job for row in scenario.rows("SELECT job FROM payments")] == [7]


@kinds
def test_waiting_for_a_result_inside_the_uncommitted_transaction_raises(
    scenario: ProcessScenario, kind: str
) -> None:
    with opened(scenario.engine, kind) as transaction:
        job = scenario.task("pid").within(transaction).enqueue()
        with pytest.raises(JobQueueError, match="not been committed"):
            job.result(timeout=1)
        transaction.commit()
        with scenario.jobs.worker():
            assert job.result(timeout=10)


def test_a_session_on_another_database_is_refused(
    scenario: ProcessScenario, empty_url: str, tmp_path
) -> None:
    from jobqueue.store import migrate

    migrate.upgrade(empty_url)  # A job queue too, and yet another one.
    # And one of the other kind.
    other_kind = (
        f"sqlite:///{tmp_path / 'other.db'}"
        if not scenario.on_sqlite
        else "postgresql+psycopg://nobody@127.0.0.1:1/none"
    )
    with engine_of(
        *([empty_url] if scenario.on_sqlite else [empty_url, "postgresql+psycopg"])
    ) as engine:
        with (
            Session(engine) as session,
            # By its URL, not by the repr of one of our objects.
            pytest.raises(ConfigurationError, match=r"another .* queue \((sqlite|postgresql):"),
        ):
            scenario.task("nop").within(session).enqueue()
    if not scenario.on_sqlite:
        with engine_of(other_kind) as engine, Session(engine) as session:
            with pytest.raises(ConfigurationError, match="sqlite"):
                scenario.task("nop").within(session).enqueue()
    assert scenario.states() == {}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("fate", ["rollback", "commit"])
def test_a_schema_that_a_savepoint_takes_back_is_made_again(empty_url: str, fate: str) -> None:
    """A fresh file gets it in the user's own transaction, wherever in it that begins."""
    with JobQueue(empty_url) as jobs, engine_of(empty_url) as engine:

        @jobs.task
        def nop() -> None: ...

        with Session(engine) as session:
            session.execute(text("CREATE TABLE theirs (id INTEGER)"))
            savepoint = session.begin_nested()
            nop.within(session).enqueue()
            getattr(savepoint, fate)()
            nop.within(session).enqueue()
            session.commit()
            nop.within(session).enqueue()
            session.commit()
        assert jobs._jobs.count(JobFilter()) == (2 if fate == "rollback" else 3)


def wakes(scenario: ProcessScenario, commit, wait_until) -> None:
    """Each commit starts its job, in a worker process that has nothing else to do and asks for nothing by itself."""
    scenario.worker(**ONLY_WOKEN)
    for number in range(WAKES):
        commit()
        wait_until(scenario.ended(number + 1))


@pytest.mark.parametrize("how", ["no transaction", "session", "session with a savepoint"])
def test_a_commit_wakes_an_idle_worker(scenario: ProcessScenario, how: str, wait_until) -> None:
    task = scenario.task("work")
    app.METADATA.create_all(scenario.engine)

    def commit() -> None:
        if how == "no transaction":
            task.enqueue(0)
            return
        with Session(scenario.engine) as session:
            if how == "session":
                task.within(session).enqueue(0)
            else:
                # A write first: on SQLite the module lets a savepoint that begins by reading fail.
                session.execute(insert(app.PAYMENTS), {"job": 7, "fence": 0})
                with session.begin_nested():
                    task.within(session).enqueue(0)
                # Between the savepoint and the commit: whoever is woken now finds nothing.
                threading.Event().wait(0.1)
            session.commit()

    wakes(scenario, commit, wait_until)


@each_async
def test_an_async_commit_wakes_an_idle_worker(
    scenario: ProcessScenario, driver: str, wait_until
) -> None:
    async def main() -> None:
        engine = create_async_engine(on_driver(scenario.url, driver))
        try:
            async with AsyncSession(engine) as session, session.begin():
                await scenario.task("work").within(session).aenqueue(0)
        finally:
            await engine.dispose()

    wakes(scenario, lambda: asyncio.run(main()), wait_until)


@pytest.mark.databases("sqlite")
def test_a_commit_that_rings_no_bell_is_seen_soon(scenario: ProcessScenario, wait_until) -> None:
    """A bare Connection, or plain SQL: the worker looks at the file's own counter."""

    def commit() -> None:
        with scenario.engine.connect() as connection:
            scenario.task("work").within(connection).enqueue(0)
            connection.commit()

    wakes(scenario, commit, wait_until)


@pytest.mark.databases("sqlite")
def test_a_worker_at_rest_holds_no_snapshot(scenario: ProcessScenario, wait_until) -> None:
    """Else the WAL would grow for as long as the worker lives."""
    scenario.worker()
    scenario.many("nop", [()] * 50)
    wait_until(scenario.ended(50))

    def written_back() -> bool:
        with closing(sqlite3.connect(scenario.engine.url.database)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    wait_until(written_back)


# A file that has no schema yet


@pytest.fixture
def fresh(tmp_path):
    """A queue on a file that does not exist, a task, and an engine of the user's on it."""
    url = f"sqlite:///{tmp_path / 'fresh.db'}"
    with JobQueue(url) as jobs, engine_of(url) as engine:

        @jobs.task
        def nop() -> None: ...

        yield jobs, nop, engine


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "locked", [False, True], ids=["first thing", "after a write of the user's"]
)
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_the_schema_is_made_through_the_given_session_without_waiting(
    fresh, backend_name: str, locked: bool, journal: str, wait_until
) -> None:
    jobs, nop, engine = fresh
    app.METADATA.create_all(engine)
    with closing(sqlite3.connect(engine.url.database)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
    with Session(
        engine
    ) as session:  # Waiting for that lock would end in an error after ten seconds.
        if locked:
            session.execute(insert(app.PAYMENTS), {"job": 7, "fence": 0})
        job = nop.within(session).enqueue()
        session.commit()
    with jobs.worker():
        wait_until(job.done)
    assert job.state == "succeeded"


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "locked", [False, True], ids=["first thing", "after a write of the user's"]
)
def test_a_first_transaction_that_is_rolled_back_spoils_nothing(
    fresh, backend_name: str, locked: bool
) -> None:
    jobs, nop, engine = fresh
    app.METADATA.create_all(engine)
    with Session(engine) as session:
        if locked:
            session.execute(insert(app.PAYMENTS), {"job": 7, "fence": 0})
        nop.within(session).enqueue()
        nop.within(session).enqueue()
        session.rollback()
    with Session(engine) as session, session.begin():
        job = nop.within(session).enqueue()
    assert job.state == "available"
    assert [found.id for found in jobs.list()] == [job.id]
    with Session(engine) as session:
        assert session.execute(select(app.PAYMENTS)).all() == []
