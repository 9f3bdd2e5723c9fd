"""An application's queue, bound to a test's database."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, make_url, text

from jobqueue import (
    Cancel,
    JobQueue,
    Retry,
    Snooze,
    current_job,
)
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
