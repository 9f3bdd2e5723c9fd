"""The file of an engine: which one it is, and a connection kept for autocommit statements."""

import os
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, PoolProxiedConnection, event

from jobqueue.errors import ConfigurationError, DatabaseReplaced
from jobqueue.store import fork_safety
from jobqueue.store.schema import VERSION_TABLE

BUSY_TIMEOUT = 10  # seconds

SET_BUSY_TIMEOUT = f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000}"

# A file without our tables keeps its journal mode.
_OURS = f"PRAGMA table_info({VERSION_TABLE})"

# FULL: an acknowledged commit survives a loss of power (NORMAL may lose the last ones).
_PRAGMAS = (
    "PRAGMA synchronous=FULL",
    "PRAGMA journal_size_limit=67108864",
    # Jobs of one priority lie far apart: a batch of 500 changes more pages than the default keeps.
    "PRAGMA cache_size=-4000",  # KiB
    SET_BUSY_TIMEOUT,  # overrides an application's hook on all engines
)

# What undoes a statement: a copy of each page that it changes, by default in a file. Migrations
# keep the file: they sort whole tables.
_UNDO_IN_MEMORY = "PRAGMA temp_store=MEMORY"

_TEXT = partial(str, encoding="utf-8", errors="backslashreplace")
"""Decodes a text; bytes that are not UTF-8, which plain SQL may write, as backslash escapes: no row
may stop a worker. JSON has no such escape, so that no job runs with arguments that were changed."""


class Taken(NamedTuple):
    """A connection that `DatabaseFile` gave out, and what its pool would be asked for each time."""

    connection: PoolProxiedConnection
    driver: Any
    generation: int
    pid: int


class DatabaseFile:
    """The file of an engine, fixed from its first connection until the engine is disposed.

    A claim in one file must not be completed in another, where the same id is another job.
    """

    def __init__(self, path: Path, *, makes: bool, forbidden: bool) -> None:
        self._path = path
        self._name = str(path)
        self._makes = makes
        self._forbidden = forbidden
        self._first: tuple[int, int] | None = None
        self._generation = 0
        """How often all connections were closed. An older one may be to another file."""
        self._kept: dict[None, Taken] = {}
        """At most one entry. `pop` and `setdefault` are atomic: no lock for a fork to copy."""

    def listen(self, engine: Engine) -> None:
        """Open, configure and close the connections of an engine."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "connect", self._connected)
        engine.dialect.do_close = _close  # type: ignore[assignment, method-assign]

    def _connect(self, dialect: Any, _: object, args: Any, options: Any) -> Any:
        """Open a connection; create the file first, or check that it exists."""
        self.require_place()
        if self._makes and not self._forbidden:
            _make_file(self._path)
        elif not self._path.exists():
            why = ", and mode=rw in its URL says not to make it" if self._forbidden else ""
            raise ConfigurationError(
                f"the database file {self._path} does not exist{why}", field="url"
            )
        with fork_safety.gate:  # SQLite opens and closes under a process-wide lock.
            return dialect.connect(*args, **options)

    def _connected(self, connection: Any, record: Any) -> None:
        if self._first is None:
            self._first = self._identity()
        record.info["jobqueue_file"] = self
        record.info["jobqueue_generation"] = self._generation
        with fork_safety.gate:
            _set(connection, makes=self._makes)

    def reset(self) -> None:
        """Accept any file at the next connection; close the kept connection."""
        self._first = None
        self._generation += 1
        self._close_kept()

    def _close_kept(self) -> None:
        if kept := self._kept.pop(None, None):
            if kept.pid == os.getpid():
                _close_for_good(kept.connection)
            else:
                fork_safety.retain(kept.connection)

    def take_connection(self, engine: Engine) -> "Taken":
        """Take the kept connection, or one from the pool.

        The pool's checkout and reset cost 40 of the 270 µs of an enqueue.
        """
        if kept := self._kept.pop(None, None):
            if kept.pid != os.getpid():
                fork_safety.retain(kept.connection)
            elif kept.generation == self._generation:
                return kept
            else:
                _close_for_good(kept.connection)
        connection = engine.raw_connection()
        made = connection.info["jobqueue_generation"]
        return Taken(connection, connection.driver_connection, made, os.getpid())

    def keep_connection(self, taken: "Taken") -> None:
        """Keep a connection outside of a transaction; return a second one to the pool.

        Close one that `reset` met in use.
        """
        if taken.generation != self._generation:
            _close_for_good(taken.connection)
        elif self._kept.setdefault(None, taken) is not taken:
            taken.connection.close()
        elif taken.generation != self._generation:  # Another thread has closed all just now.
            self._close_kept()

    def require_place(self) -> None:
        """Like `require`, but raise nothing before the first connection."""
        if self._first is not None:
            self.require()

    def require(self) -> None:
        """Raise DatabaseReplaced if the path now has another file, or none."""
        if self._first != self._identity():
            raise DatabaseReplaced(
                f"the database file {self._path} was deleted or replaced while it was in use: "
                "stop all workers, put the right file there, and start again",
                field="url",
            )

    def _identity(self) -> tuple[int, int] | None:
        """Return (device, inode) of the file at the path; None if there is none."""
        try:
            there = os.stat(self._name)  # noqa: PTH116 - a third of the time of Path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # Unreadable for now, as on a network: treat the file as unchanged.
            return self._first
        return there.st_dev, there.st_ino


def _make_file(path: Path) -> None:
    """Create an empty database with mode 0600; never open an existing one.

    Closing any descriptor of a database file drops this process's SQLite locks on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _close_for_good(connection: PoolProxiedConnection) -> None:
    """Close a connection that may not go back to its pool."""
    connection.detach()
    connection.close()


def _close(connection: Any) -> None:
    with fork_safety.gate:
        connection.close()


def _set(connection: Any, *, makes: bool) -> None:
    """Configure a new driver connection, and undo what an application's hook has set."""
    connection.isolation_level = None  # We send BEGIN: pysqlite's is deferred and late.
    connection.row_factory, connection.text_factory = None, _TEXT
    with suppress(sqlite3.OperationalError):
        # Locked if another process writes to a new file just now: the next connection sets it.
        if makes or connection.execute(_OURS).fetchall():
            connection.execute("PRAGMA journal_mode=WAL").close()
    for pragma in _PRAGMAS if makes else (*_PRAGMAS, _UNDO_IN_MEMORY):
        connection.execute(pragma).close()
