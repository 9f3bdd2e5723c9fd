"""The interface of a database backend: everything that differs between the databases."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple, Protocol

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Insert,
    Select,
    Table,
    tuple_,
)
from sqlalchemy.types import TypeEngine

from jobqueue.doctor_findings import Finding
from jobqueue.store.notify.notifier import NotificationSender, Subscription
from jobqueue.store.pool import IDLE_SECONDS, WaitPolicy
from jobqueue.store.schema import counters

Columns = Mapping[str, TypeEngine[Any]]
Parameters = Mapping[str, Any] | Sequence[Any]
"""The values of a statement in the driver's form, by name or in order."""


PLACE = ("priority", "run_at", "id")
"""The columns of a job's place in its queue."""

PLAIN_COLUMNS = ("args", "task", "queue", "priority", "tags", "max_attempts", "timeout", "backoff")
"""The columns of a new job that has no other, in the order in which a backend takes the values."""

COUNTED = tuple(column.name for column in counters.c if column.name not in ("id", "minute", "kind"))
"""The columns of a row of counts, in the order in which a backend takes the values."""

HealthCheck = Callable[[Engine, int], Iterable[Finding]]
"""Tells what is wrong with a database, given the number of worker processes that use it."""


PartsOf = Callable[[FromClause, FromClause], Sequence[Sequence[ColumnElement[bool]]]]
"""Returns the parts of a range of a queue's jobs: see `Backend.parts_of_range`."""


def behind(table: FromClause, given: FromClause) -> Sequence[Sequence[ColumnElement[bool]]]:
    """Return what is true for the jobs behind a cursor: in one part."""
    first = tuple_(*(given.c[name] for name in PLACE))
    return [[tuple_(*(table.c[name] for name in PLACE)) > first]]


def in_range(table: FromClause, given: FromClause) -> Sequence[Sequence[ColumnElement[bool]]]:
    """Return what is true for the jobs of a range: in one part, by the values of rows."""
    first, last = (tuple_(*(given.c[f"{of}{name}"] for name in PLACE)) for of in ("", "last_"))
    place = tuple_(*(table.c[name] for name in PLACE))
    return [[place > first, place <= last]]


class Identity(NamedTuple):
    """Which job queue a connection sees: equal for two connections to the same queue."""

    instance: str
    """A random id, made with the schema; a copy of the database has the same one."""
    place: str
    """The file, or the database and table, which differs in a copy."""
    schema: str | None
    """The schema that the tables are in, where a database can have several."""


class Backend(Protocol):
    """What the store needs from one database."""

    name: ClassVar[str]
    """SQLAlchemy's name of the dialect."""
    batch_max: ClassVar[int]
    """The most rows per claim and per completion."""
    batch_max_shared: ClassVar[int]
    """The batch size when other processes write too: they wait for the whole batch."""
    single_writer: ClassVar[bool]
    """One writer at a time: a completion and the next claim share a transaction."""
    reuses_ids: ClassVar[bool]
    """New jobs may get the ids of jobs that were rolled back."""
    insertion: ClassVar[str]
    """An INSERT of one plain job for `execute_autocommit`; the first value is its id."""
    notifying_insertion: ClassVar[str | None] = None
    """The same, whose commit wakes workers; None if the database cannot do that."""
    counting: ClassVar[str | None] = None
    """An INSERT of one row of counts; None where one statement of all rows is faster."""
    health_checks: ClassVar[Sequence[HealthCheck]]
    """What `doctor` asks of this database alone."""

    def __hash__(self) -> int:
        """Return a hash: statements are built once per backend."""
        return id(self)

    def engine(
        self,
        url: URL,
        connections: int,
        *,
        wait_policy: WaitPolicy | None = None,
        idle: float = IDLE_SECONDS,
        makes: bool = False,
    ) -> Engine:
        """Create an engine with our settings and at most `connections`; it does not connect yet.

        On a server, a connection is closed after `idle` seconds, and `wait_policy` says how long to
        wait for a free one. `makes`: the first connection creates a missing file.
        """

    def is_there(self, url: URL) -> bool:  # noqa: ARG002 - a server is not created.
        """Return False if a connection would have to create the database first."""
        return True

    def require_place(self, engine: Engine) -> None:  # noqa: ARG002 - a server tells connections.
        """Raise DatabaseReplaced if the database in use is no longer where the URL leads.

        Connections that are open go on there, and would notice nothing.
        """
        return

    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Open a write transaction under the write lock; commit at the end, roll back on error."""

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Open a transaction that reads one snapshot."""

    def execute_autocommit(
        self, engine: Engine, statement: str, parameters: Parameters
    ) -> list[tuple[Any, ...]] | None:
        """Run one statement in autocommit under the write lock, and return its rows.

        Of an INSERT of one row that returns none: its id, as if it had been returned.
        None means that it did nothing; the caller retries in a transaction, which raises the error.
        Raises SQLAlchemy's error if it is unknown whether it took effect.
        """

    def write_lock(self, engine: Engine) -> AbstractContextManager[bool]:  # noqa: ARG002
        """Hold the write lock; `writing` takes it by itself if this thread does not hold it.

        The context's value is whether the thread waited, so that another one has just written.
        """
        return nullcontext(False)

    def met_writer(self, connection: Connection) -> bool:  # noqa: ARG002
        """Return whether this write transaction waited for one that does not take our lock."""
        return False

    def limit_lock_wait(self, connection: Connection) -> None:  # noqa: ARG002
        """Set a short lock timeout for this transaction, where rows can be locked."""
        return

    def limit_stall(self, connection: Connection, seconds: float, *, lock_wait: float) -> None:  # noqa: ARG002
        """Let the server end this transaction, with its locks, if its client stalls that long.

        A statement of it fails that waits longer than `lock_wait` seconds for a lock.
        """
        return

    def is_lock_timeout(self, error: BaseException) -> bool:  # noqa: ARG002
        """Return whether a statement has waited for a lock as long as it may."""
        return False

    def prefer_indexes(self, connection: Connection) -> None:  # noqa: ARG002
        """Read by an index, in its order, where one fits: in this transaction's statements."""
        return

    def batch_table(self, columns: Columns) -> FromClause:
        """Return a table filled by `batch_parameters()`; its column `place` numbers the rows."""

    def batch_parameters(self, columns: Columns, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the parameters that fill `batch_table(columns)`."""

    def in_subquery(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        """Return `column IN (chosen)`, where the subquery is evaluated once."""

    def row_key(self, table: FromClause) -> ColumnElement[Any]:
        """Return, as `id`, what leads to rows that the same statement has locked."""

    def first_of_each(
        self, rows: FromClause, first: Select[Any], *, in_order: bool = False
    ) -> Select[Any]:
        """Return the ids that `first`, a SELECT of one id column with a LIMIT, finds for each row.

        `first` refers to columns of `rows`. `in_order`: that of the rows, then that of `first`, in
        which the caller may limit the whole.
        """

    @staticmethod
    def parts_of_range(
        table: FromClause, given: FromClause
    ) -> Sequence[Sequence[ColumnElement[bool]]]:
        """Return what is true for the jobs of a queue behind a place and up to a last one.

        In parts, in order, for each of which an index leads to its first job and to its last.
        """
        return in_range(table, given)

    def insert(self, table: Table) -> Insert:
        """Return an INSERT that skips the rows whose unique key is held."""

    def insert_rows(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> Sequence[int]:
        """Insert at least two plain jobs, on a connection of the store's engine.

        Return their ids, which grow in the order of the rows. Fastest if only the first column
        differs between rows.
        """

    def identity(self, connection: Connection) -> Identity | None:
        """Return which job queue this connection sees, by one SELECT; None without an id."""

    def is_autocommit(self, connection: Connection) -> bool:
        """Return whether the driver commits each statement; called in a transaction."""

    def keep_ids(self, connection: Connection, up_to: int) -> None:  # noqa: ARG002
        """Ensure that no new job of this transaction gets an id of `up_to` or less.

        By default nothing: a sequence is never rolled back.
        """
        return

    def can_create_schema_on(self, connection: Connection, url: URL) -> bool:  # noqa: ARG002
        """Return whether to create the schema for `url` on a user's connection.

        If so, the connection is in a transaction afterwards.
        """
        return False

    def begin(self, connection: Connection) -> None:  # noqa: ARG002
        """Ensure that a user's connection is in a transaction: a savepoint then commits nothing.

        By default nothing: a driver begins one before a savepoint.
        """
        return

    def notification_sender(self, engine: Engine) -> NotificationSender:
        """Return what wakes this database's workers."""

    def subscription(self, url: URL, wait_policy: WaitPolicy | None = None, /) -> Subscription:
        """Return what a worker waits on for wake-ups; it keeps its own connection."""

    def is_transient(self, error: BaseException) -> bool:
        """Return whether a retry of the same transaction may succeed."""

    def is_unavailable(self, error: BaseException) -> bool:
        """Return whether the whole database does not work for now, not only this statement."""

    def is_locked(self, error: BaseException) -> bool:
        """Return whether another program's write transaction has the whole database for itself."""
        return self.single_writer and "database is locked" in str(error)

    def is_forbidden(self, error: BaseException) -> bool:  # noqa: ARG002 - a file has no roles.
        """Return whether the role of this program lacks a right that the statement needs."""
        return False
