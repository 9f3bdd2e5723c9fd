"""The store: an engine with its backend, transactions, and the schema that they need."""

import copy
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

from sqlalchemy import URL, Connection, CursorResult, Engine, Executable, event, inspect
from sqlalchemy.exc import DBAPIError

from jobqueue.errors import ConfigurationError, SchemaOutdated
from jobqueue.store import fork_safety, migrate
from jobqueue.store.clock import INSTANT
from jobqueue.store.dialects.base import Parameters
from jobqueue.store.pool import IDLE_SECONDS, WaitPolicy
from jobqueue.store.schema import REVISION
from jobqueue.store.sql.statements import Statements, statements
from jobqueue.store.urls import DRIVER_MISSING, backend_of, masked, parse

T = TypeVar("T")

POOL_SIZE = 4
"""Default number of connections per process."""


class Store:
    """One database as one process sees it. Thread-safe.

    `named`: the URL was given, not defaulted. Only then may a file that has another program's
    tables get ours too.

    `connections`: the most that are open at once. A thread that finds none free waits according to
    `wait_policy`. `idle`: seconds after which an unused connection to a server is closed.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        named: bool = True,
        connections: int = POOL_SIZE,
        wait_policy: WaitPolicy | None = None,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.url = parse(url)
        self.named = named
        self.backend = backend_of(self.url)
        self.statements: Statements = statements(self.backend)
        try:
            self.engine: Engine = self.backend.engine(
                self.url, connections, wait_policy=wait_policy, idle=idle
            )
        except ModuleNotFoundError:
            raise ConfigurationError(DRIVER_MISSING, field="url") from None
        self.read_instant = INSTANT.reader(self.engine.dialect)
        """Reads an instant as the driver has it."""
        self.write_instant = partial(INSTANT.process_bind_param, dialect=self.engine.dialect)
        """Writes an instant for the driver."""
        self.connects = 0
        """Connections made so far: each may lead to a server that has lost commits."""
        event.listen(self.engine, "connect", self._connected)
        fork_safety.register(self)
        self.pause: Callable[[float], object] = _pause
        """Sleeps for the given seconds until a full queue is tried again, outside a transaction."""
        self._checked = False
        self._checking = threading.Lock()
        self._entry: Callable[[], AbstractContextManager[object]] = nullcontext

    def __repr__(self) -> str:
        return f"Store({self})"

    def __str__(self) -> str:
        return masked(self.url)

    def _connected(self, *_: object) -> None:
        self.connects += 1

    def through(self, entry: Callable[[], AbstractContextManager[object]]) -> Self:
        """Return a store on the same connections that uses each one only inside `entry()`."""
        other = copy.copy(self)
        other._entry = entry  # noqa: SLF001 - a Store too.
        return other

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction."""
        self.require_schema(makes=False)
        with self._entry(), self.backend.writing(self.engine) as connection:
            yield connection

    def write_lock(self) -> AbstractContextManager[bool]:
        """Hold the write lock, where the database has one; open transactions inside of it.

        The context's value is whether the thread had to wait for the lock.
        """
        return self.backend.write_lock(self.engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot for reading."""
        self.require_schema(makes=False)
        with self._entry(), self.backend.reading(self.engine) as connection:
            yield connection

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a write transaction; retry once after a lost connection or a deadlock.

        Failures of the commit itself are not retried: it is unknown whether it took effect.
        """
        done = False
        result: T
        try:
            with self.write() as connection:
                result = work(connection)
                done = True
        except DBAPIError as error:
            if done or not self.backend.is_transient(error):
                raise
            # The deadlock's other transaction goes first; a retry at once may meet it again.
            _pause(random.uniform(0.01, 0.05))  # noqa: S311 - jitter, not a secret.
            with self.write() as connection:
                result = work(connection)
        return result

    def transact_at_once(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a write transaction with a short lock timeout."""

        def hurried(connection: Connection) -> T:
            self.backend.limit_lock_wait(connection)
            return work(connection)

        return self.transact(hurried)

    def execute_autocommit(
        self, statement: str, parameters: Parameters
    ) -> list[tuple[Any, ...]] | None:
        """Run one statement in autocommit; return its rows. See `Backend.execute_autocommit`."""
        self.require_schema(makes=False)
        with self._entry():
            return self.backend.execute_autocommit(self.engine, statement, parameters)

    def require_place(self) -> None:
        """Raise DatabaseReplaced if the SQLite file in use was moved, deleted or replaced."""
        self.backend.require_place(self.engine)

    def require_schema(self, *, makes: bool = True, beside_others: bool = True) -> None:
        """Check the schema once; create it in a SQLite file that has none, if `makes`.

        `beside_others`: create it also beside another program's tables, if the database was named.
        Raises SchemaOutdated or SchemaNewer, with what to do.
        """
        if self._checked:
            return
        with self._checking:
            if self._checked:
                return
            found = self.revision()
            if found is None:
                self.engine.dispose()  # Settings of a connection depend on the file's tables.
            if found is None and makes and self.backend.single_writer:
                self._make(beside_others=beside_others)
                found = self.revision()
            if found is None:
                raise SchemaOutdated(
                    f"there is no queue in {masked(self.url)}: check the URL, or run "
                    "jobqueue db upgrade",
                    field="url",
                )
            migrate.refuse_newer(found)
            if found != REVISION:
                raise SchemaOutdated(
                    f"the database has schema {found}, this jobqueue needs {REVISION}: "
                    "run jobqueue db upgrade"
                )
            self._checked = True

    def _make(self, *, beside_others: bool) -> None:
        if self.backend.is_there(self.url):
            with self._entry(), self.backend.reading(self.engine) as connection:
                self.require_own(connection, beside_others=beside_others)
        migrate.upgrade(self.url)

    def require_own(self, connection: Connection, *, beside_others: bool = True) -> None:
        """Raise SchemaOutdated if our tables may not be created beside those in the database."""
        if (beside_others and self.named) or not inspect(connection).get_table_names():
            return
        remedy = "" if self.named else "name it, with --url or as JobQueue(url), or "
        raise SchemaOutdated(
            f"{masked(self.url)} has the tables of another program, and no queue: {remedy}run "
            "jobqueue db upgrade, if they are to be in one file",
            field="url",
        )

    @property
    def answered(self) -> bool:
        """Return whether the schema was found: the URL leads to a queue."""
        return self._checked

    def revision(self) -> str | None:
        """Return the schema revision in the database, or None."""
        if not self.backend.is_there(self.url):
            return None
        with self._entry(), self.backend.reading(self.engine) as connection:
            return migrate.found(connection)

    def after_fork_in_child(self) -> None:
        """Leave the connections to the parent; the child opens its own when needed."""
        fork_safety.retain(self.engine.pool)
        self.engine.dispose(close=False)
        self._checking = threading.Lock()

    def close(self) -> None:
        """Close the idle connections. The store may be used again, and checks the schema again."""
        self.engine.dispose()
        self._checked = False


class CompiledStatement:
    """A Core statement whose parts SQLAlchemy visits once, and not at each execution.

    Its values are the driver's.
    """

    _texts: ClassVar[dict[tuple[str, Executable], tuple[str, dict[str, Any]]]] = {}
    """The text and the constants of each statement, for all stores of the process."""

    def __init__(self, store: Store, statement: Executable) -> None:
        self._store = store
        key = (store.backend.name, statement)
        if key not in self._texts:
            core: Any = statement
            compiled = core.compile(store.engine)
            constants = {
                name: value
                for name, value in compiled.params.items()
                if not compiled.binds[name].required
            }
            self._texts[key] = (str(compiled), constants)
        self.text, self.constants = self._texts[key]

    def execute(self, connection: Connection, parameters: dict[str, Any]) -> CursorResult[Any]:
        """Run the statement in a transaction."""
        write = self._store.write_instant
        given = {
            name: write(value) if isinstance(value, datetime) else value
            for name, value in parameters.items()
        }
        return connection.exec_driver_sql(self.text, self.constants | given)

    def in_autocommit(self, parameters: dict[str, Any]) -> list[tuple[Any, ...]] | None:
        """Run the statement in autocommit, on the driver's own connection (ADR 0012).

        Return its rows; None if it did nothing: retry in a transaction. Raises if the outcome is
        unknown. Parameters are the driver's too.
        """
        return self._store.execute_autocommit(self.text, self.constants | parameters)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
