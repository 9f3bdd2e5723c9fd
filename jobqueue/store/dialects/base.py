"""The seam between the databases: what each must say for itself, and nothing more."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Insert,
    Select,
    Table,
)
from sqlalchemy.types import TypeEngine

from jobqueue.store.notify.notifier import NotificationSender, Subscription
from jobqueue.store.pool import IDLE, Patience

Columns = Mapping[str, TypeEngine[Any]]


class Identity(NamedTuple):
    """Which job queue a connection sees: equal for two connections that see the same one."""

    instance: str
    """Drawn at random when the schema was made; a copy of the database has it too."""
    place: str
    """What tells the tables from those of a copy: of another file, database or schema."""
    schema: str | None
    """The schema that the tables are in, where a database can have several."""


class Backend(Hashable, Protocol):
    """One database's ways."""

    @property
    def name(self) -> str:
        """SQLAlchemy's name of the dialect."""
        ...

    @property
    def batch_max(self) -> int:
        """Rows per claim and per completion."""
        ...

    @property
    def batch_max_shared(self) -> int:
        """The same where other workers write too, and wait as long as a batch takes."""
        ...

    @property
    def single_writer(self) -> bool:
        """True where a completion and the next claim had better share one transaction."""
        ...

    def engine(
        self,
        url: URL,
        connections: int,
        *,
        patience: Patience | None = None,
        idle: float = IDLE,
        makes: bool = False,
    ) -> Engine:
        """Make an engine with our settings and at most so many connections; does not connect.

        On a server, one that was `idle` for so many seconds is closed, and who finds none free,
        here or there, has patience. `makes`: its first connection makes a file that is missing.
        """
        ...

    def is_there(self, url: URL) -> bool:
        """False where a connection would have to make the database first."""
        ...

    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """One write transaction, in its turn; commits at the end, rolls back on an error."""
        ...

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """One snapshot for reading."""
        ...

    def execute_autocommit(
        self, engine: Engine, statement: str, parameters: dict[str, Any], *, prepared: bool
    ) -> list[tuple[Any, ...]] | None:
        """Run one statement as a transaction of its own, in its turn, and return its rows.

        `prepared`: it has one plan, whatever the values and whatever the table has become.
        None: nothing was done, and a transaction may try and tell why. An error of SQLAlchemy's:
        nobody can tell whether it was done.
        """
        ...

    @property
    def reuses_ids(self) -> bool:
        """True where a rollback gives the ids of new jobs back, to be used for other ones."""
        ...

    def turn(self, engine: Engine) -> AbstractContextManager[bool]:
        """This thread's turn among our writers; `writing` takes it by itself if need be.

        Gives whether it had to wait, so that another has written just now.
        """
        ...

    def limit_lock_wait(self, connection: Connection) -> None:
        """Let the transaction fail rather than wait long for what others hold."""
        ...

    def batch_table(self, columns: Columns) -> FromClause:
        """A table that one execution's `pack()` fills; its column `place` counts the rows."""
        ...

    def batch_parameters(self, columns: Columns, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The parameters that fill `rows(columns)`."""
        ...

    def in_subquery(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        """`column` is one of the values that `chosen` yields; the choice is made once."""
        ...

    def insert(self, table: Table) -> Insert:
        """An INSERT that leaves out the rows whose unique key is held."""
        ...

    def insert_rows(
        self, connection: Connection, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> Sequence[int]:
        """Insert at least two jobs that cannot conflict, on a connection of ours.

        Returns their ids, which grow in the order of the rows. It is quickest where only the first
        column differs from row to row.
        """
        ...

    def identity(self, connection: Connection) -> Identity | None:
        """Which job queue this connection sees, in one SELECT; None without an instance id."""
        ...

    def is_autocommit(self, connection: Connection) -> bool:
        """True if the driver commits each statement by itself; asked in a transaction."""
        ...

    def keep_ids(self, connection: Connection, up_to: int) -> None:
        """See that no new job of this transaction gets an id of up to `up_to`."""
        ...

    def can_create_schema_on(self, connection: Connection, url: URL) -> bool:
        """True if a user's connection may get the schema for `url`; it then is in a transaction."""
        ...

    def begin(self, connection: Connection) -> None:
        """See that the driver of a user's connection has begun: a savepoint commits nothing."""
        ...

    @property
    def notification(self) -> ColumnElement[Any] | None:
        """An expression that wakes workers when its transaction is committed, if there is one."""
        ...

    def notification_sender(self, engine: Engine) -> NotificationSender:
        """How to wake this database's workers."""
        ...

    def subscription(self, url: URL, patience: Patience | None = None, /) -> Subscription:
        """How a worker is woken; it keeps a connection of its own."""
        ...

    def is_transient(self, error: BaseException) -> bool:
        """True when the same transaction may well succeed if it is tried again."""
        ...
