"""The file of an engine: which one it is, and a connection kept for autocommit statements."""

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine, PoolProxiedConnection

from jobqueue.errors import ConfigurationError, DatabaseReplaced
from jobqueue.store import fork_safety


class DatabaseFile:
    """The file of an engine: the first one that it opened, until all connections are closed.

    What was claimed in it may not be finished in another one, where the same ids are other jobs.
    """

    def __init__(self, path: Path, *, makes: bool, forbidden: bool) -> None:
        self._path = path
        self._name = str(path)
        self._makes = makes
        self._forbidden = forbidden
        self._first: tuple[int, int] | None = None
        self._kept: dict[None, tuple[int, PoolProxiedConnection]] = {}
        """At most one entry. `pop` and `setdefault` are atomic: no lock for a fork to copy."""

    def opens(self) -> None:
        """Before a connection: make the file if that is wanted, or see that it is there."""
        if self._first is not None:
            self.require()
        if self._makes and not self._forbidden:
            _make_file(self._path)
        elif not self._path.exists():
            why = ", and mode=rw in its URL says not to make it" if self._forbidden else ""
            raise ConfigurationError(
                f"the database file {self._path} does not exist{why}", field="url"
            )

    def opened(self) -> None:
        """After a connection."""
        if self._first is None:
            self._first = self._identity()

    def after_fork_in_child(self) -> None:
        """Accept whichever file is there at the next connection; close the kept connection."""
        self._first = None
        if kept := self._kept.pop(None, None):
            pid, connection = kept
            if pid == os.getpid():
                connection.detach()
                connection.close()
            else:
                fork_safety.retain(connection)

    def take_connection(self, engine: Engine) -> PoolProxiedConnection:
        """Return the kept connection, or one of the pool.

        The pool's checkout and reset cost 40 of the 270 µs of an enqueue.
        """
        if kept := self._kept.pop(None, None):
            pid, connection = kept
            if pid == os.getpid():
                return connection
            fork_safety.retain(connection)
        return engine.raw_connection()

    def keep_connection(self, connection: PoolProxiedConnection) -> None:
        """Keep a connection that is in no transaction; a second one goes back to the pool."""
        mine = os.getpid(), connection
        if self._kept.setdefault(None, mine) is not mine:
            connection.close()

    def require(self) -> None:
        """Raise DatabaseReplaced if another file is there now, or none."""
        if self._first != self._identity():
            raise DatabaseReplaced(
                f"the database file {self._path} was deleted or replaced while it was in use: "
                "stop all workers, put the right file there, and start again",
                field="url",
            )

    def _identity(self) -> tuple[int, int] | None:
        """Which file is there now; None if there is none."""
        try:
            there = os.stat(self._name)  # noqa: PTH116 - a third of the time of Path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # Nobody can tell now, such as for a moment on a network.
            return self._first
        return there.st_dev, there.st_ino


def _make_file(path: Path) -> None:
    """Make an empty database that only its owner reads; never opens one that is there.

    Closing any descriptor of a database file drops this process's SQLite locks on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
