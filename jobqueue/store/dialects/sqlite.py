"""The SQLite backend: WAL, every commit synced, one writer at a time under a fair write lock."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Insert,
    Integer,
    PoolProxiedConnection,
    Select,
    Table,
    bindparam,
    column,
    create_engine,
    event,
    exists,
    func,
    insert,
    literal,
    select,
    table,
    true,
    type_coerce,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, OperationalError

from jobqueue.errors import ConfigurationError, DatabaseReplaced
from jobqueue.store import fork_safety
from jobqueue.store.clock import INSTANT, Instant, this_minute
from jobqueue.store.dialects import sqlite_health, sqlite_ranges
from jobqueue.store.dialects.base import (
    COUNTED,
    PLAIN_COLUMNS,
    Backend,
    Columns,
    Identity,
    Parameters,
)
from jobqueue.store.dialects.sqlite_file import BUSY_TIMEOUT, SET_BUSY_TIMEOUT, DatabaseFile
from jobqueue.store.dialects.sqlite_url import database_path
from jobqueue.store.dialects.sqlite_write_lock import WriteLock
from jobqueue.store.notify.sqlite import DatagramSender, DatagramSubscription
from jobqueue.store.pool import WaitPolicy
from jobqueue.store.schema import counters, jobs, meta

OLDEST = (3, 35, 0)  # RETURNING
TRY_WITHOUT_LOCK = 1000  # milliseconds

_TRANSIENT = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")
_MET_WRITER = "jobqueue_met_writer"
_DIALECT = sqlite.dialect()

_files = func.pragma_database_list().table_valued("name", "file")
_IDENTITY = select(
    meta.c.value, select(_files.c.file).where(_files.c.name == "main").scalar_subquery()
).where(meta.c.key == "instance")
_sequence = table("sqlite_sequence", column("name"), column("seq"))
_KEEP_IDS = (
    update(_sequence)
    .where(_sequence.c.name == jobs.name, _sequence.c.seq < bindparam("in_id"))
    .values(seq=bindparam("in_id")),
    # The table's row is missing if its very first job was rolled back.
    insert(_sequence).from_select(
        ["name", "seq"],
        select(literal(jobs.name), bindparam("in_id", type_=Integer)).where(
            ~exists().where(_sequence.c.name == jobs.name)
        ),
    ),
)

# Not last_insert_rowid(): an application's hook or trigger may have inserted a row since.
_LAST_ID = select(func.max(jobs.c.id))


class Sqlite(Backend):
    """The backend for a SQLite file, through the standard library's module."""

    name = "sqlite"
    batch_max = 500
    batch_max_shared = 200  # Other writers wait for the whole transaction: 3 to 6 ms.
    single_writer = True
    reuses_ids = True
    # Without RETURNING, for which SQLite fills a table: 7 µs.
    insertion = str(insert(table(jobs.name, *map(column, PLAIN_COLUMNS))).compile(dialect=_DIALECT))
    # A row of JSON takes twice the time, as each of its values is looked up in the text.
    counting = str(
        insert(counters)
        .values(minute=this_minute())
        .compile(dialect=_DIALECT, column_keys=list(COUNTED))
    )
    health_checks = sqlite_health.CHECKS

    def engine(
        self, url: URL, connections: int, *, makes: bool = False, **_of_servers: Any
    ) -> Engine:
        """See `Backend.engine`. A missing file is created with mode 0600."""
        path = database_path(url)
        if sqlite3.sqlite_version_info < OLDEST:
            raise ConfigurationError(
                f"this Python has SQLite {sqlite3.sqlite_version}; jobqueue needs 3.35 or newer"
            )
        lock = WriteLock(f"{path}-jobqueue-lock")
        file = DatabaseFile(path, makes=makes, forbidden=url.query.get("mode") == "rw")
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False},
            pool_size=connections + 1,  # and the kept one
            max_overflow=0,
            pool_timeout=30,
            pool_use_lifo=True,  # The last one used need not read again what it has changed.
            hide_parameters=True,
            paramstyle="named",  # as the driver takes them in `execute_autocommit`
            execution_options={"jobqueue_lock": lock, "jobqueue_file": file},
        )

        file.listen(engine)

        @event.listens_for(engine, "engine_disposed")
        def _disposed(_: Engine) -> None:
            file.reset()
            lock.close()

        event.listen(engine, "begin", _begin)
        return engine

    def is_there(self, url: URL) -> bool:
        """See `Backend.is_there`."""
        return database_path(url).exists()

    def require_place(self, engine: Engine) -> None:
        """See `Backend.require_place`: one stat()."""
        file: DatabaseFile = engine.get_execution_options()["jobqueue_file"]
        file.require_place()

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """See `Backend.writing`."""
        lock: WriteLock = engine.get_execution_options()["jobqueue_lock"]
        with (
            engine.connect().execution_options(jobqueue_write=True) as connection,
            lock.held(),
            fork_safety.gate,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """See `Backend.reading`."""
        with engine.connect() as connection, fork_safety.gate, connection.begin():
            yield connection

    def execute_autocommit(
        self, engine: Engine, statement: str, parameters: Parameters
    ) -> list[tuple[Any, ...]] | None:
        """See `Backend.execute_autocommit`: a failure is rolled back before it is raised."""
        options = engine.get_execution_options()
        file: DatabaseFile = options["jobqueue_file"]
        lock: WriteLock = options["jobqueue_lock"]
        try:
            taken = file.take_connection(engine)
            try:
                with lock.held(), fork_safety.gate:
                    if lock.gave_up:  # A transaction can queue for it again.
                        file.keep_connection(taken)
                        return None
                    _end_a_hooks_transaction(taken.driver)
                    _refuse_replaced(taken.connection, file)
                    cursor = taken.driver.execute(statement, parameters)
                    rows: list[tuple[Any, ...]]
                    if cursor.description is None:
                        rows = [(cursor.lastrowid,)] if cursor.rowcount == 1 else []
                    else:  # Fetch all rows: the step after the last one commits.
                        rows = cursor.fetchall()
            except BaseException:
                taken.connection.close()
                raise
        except sqlite3.Error:
            return None
        file.keep_connection(taken)
        return rows

    @contextmanager
    def write_lock(self, engine: Engine) -> Iterator[bool]:
        """See `Backend.write_lock`."""
        lock: WriteLock = engine.get_execution_options()["jobqueue_lock"]
        with lock.held():
            yield lock.waited

    def met_writer(self, connection: Connection) -> bool:
        """See `Backend.met_writer`."""
        return bool(connection.info[_MET_WRITER])

    def batch_table(self, columns: Columns) -> FromClause:
        """See `Backend.batch_table`: one JSON text with all rows, or with the only column."""
        given = func.json_each(bindparam("in_rows")).table_valued("key", "value")
        value: Any = given.c.value
        values = [value]
        if len(columns) > 1:
            values = [func.json_extract(value, f"$[{place}]") for place in range(len(columns))]
        return select(
            given.c.key.label("place"),
            *(
                type_coerce(value, type_).label(name)
                for value, (name, type_) in zip(values, columns.items(), strict=True)
            ),
        ).subquery("input")

    def batch_parameters(self, columns: Columns, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `Backend.batch_parameters`."""
        types = enumerate(columns.values())
        instants = [place for place, type_ in types if isinstance(type_, Instant)]
        if instants:
            written = [list(row) for row in rows]
            for row in written:
                for place in instants:
                    row[place] = INSTANT.process_bind_param(row[place], _DIALECT)
            rows = written
        if len(columns) == 1:
            rows = [row[0] for row in rows]
        return {"in_rows": msgspec.json.encode(rows).decode()}

    def in_subquery(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        """See `Backend.in_subquery`."""
        return column.in_(chosen)

    def row_key(self, table: FromClause) -> ColumnElement[Any]:
        """See `Backend.row_key`."""
        return table.c.id

    def first_of_each(
        self, rows: FromClause, first: Select[Any], *, in_order: bool = False
    ) -> Select[Any]:
        """See `Backend.first_of_each`: SQLite has no LATERAL, but finds rows by `IN (…)`.

        It finds them in the order of their ids. In the order of `first` it finds them by a function
        of tables, whose arguments may refer to those before it, and no further than to the limit.
        """
        if in_order:
            each = first.subquery("first_of_each")
            ids = select(func.json_group_array(each.c.id)).scalar_subquery()
            listed = func.json_each(ids).table_valued("value", name="listed")
            return select(listed.c.value.label("id")).select_from(rows.join(listed, true()))
        found = jobs.alias("found")
        return select(found.c.id).select_from(rows.join(found, found.c.id.in_(first)))

    parts_of_range = staticmethod(sqlite_ranges.parts)

    def insert(self, table: Table) -> Insert:
        """See `Backend.insert`."""
        return sqlite.insert(table).on_conflict_do_nothing()

    def insert_rows(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> Sequence[int]:
        """See `Backend.insert_rows`: there is one writer, so the new ids are the greatest ones."""
        connection.exec_driver_sql(self.insertion, list(rows))
        last: int = connection.execute(_LAST_ID).scalar_one()
        return range(last - len(rows) + 1, last + 1)

    def identity(self, connection: Connection) -> Identity | None:
        """See `Backend.identity`: by the file, since a copy has the same instance id."""
        row = connection.execute(_IDENTITY).one_or_none()
        return None if row is None else Identity(row[0], os.path.realpath(row[1]), None)

    def is_autocommit(self, connection: Connection) -> bool:
        """See `Backend.is_autocommit`: neither the module nor the engine sends BEGIN."""
        driver: Any = connection.connection.driver_connection
        if getattr(driver, "autocommit", None) is True:  # from Python 3.12 on; -1 is the default
            return True
        return driver.isolation_level is None and not driver.in_transaction

    def keep_ids(self, connection: Connection, up_to: int) -> None:
        """See `Backend.keep_ids`: a rollback also resets the sequence."""
        for statement in _KEEP_IDS:
            connection.execute(statement, {"in_id": up_to})

    def can_create_schema_on(self, connection: Connection, url: URL) -> bool:
        """See `Backend.can_create_schema_on`: only if it has the same file open."""
        file = connection.exec_driver_sql("PRAGMA database_list").all()[0][2]
        if not file or Path(file).resolve() != database_path(url):
            return False
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction and driver.isolation_level is not None:
            # The module begins a transaction before INSERT, UPDATE and DELETE only, not before DDL:
            # a rollback would leave half a schema.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        return True

    def begin(self, connection: Connection) -> None:
        """See `Backend.begin`: the module does so before INSERT, UPDATE and DELETE only."""
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN")

    def notification_sender(self, engine: Engine) -> DatagramSender:
        """See `Backend.notification_sender`."""
        return DatagramSender(engine)

    def subscription(
        self, url: URL, _wait_policy: WaitPolicy | None = None, /
    ) -> DatagramSubscription:
        """See `Backend.subscription`."""
        return DatagramSubscription(self.engine(url, 1))

    def is_transient(self, error: BaseException) -> bool:
        """See `Backend.is_transient`; extended error codes share the prefix."""
        return _name_of(error).startswith(_TRANSIENT)

    def is_unavailable(self, error: BaseException) -> bool:
        """See `Backend.is_unavailable`."""
        return _name_of(error).startswith((*_TRANSIENT, "SQLITE_READONLY"))


def _name_of(error: BaseException) -> str:
    """Return SQLite's name of an error, such as SQLITE_BUSY_SNAPSHOT; empty if it is not its."""
    of_driver = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(of_driver, "sqlite_errorname", ""))


def _begin(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    _end_a_hooks_transaction(driver)
    options = connection.get_execution_options()
    if not options.get("jobqueue_write", False):
        connection.exec_driver_sql("BEGIN")
        return
    _refuse_replaced(connection, connection.info["jobqueue_file"])
    # IMMEDIATE: a deferred transaction that reads before it writes fails at once, without the busy
    # timeout, if another one has written meanwhile.
    met_writer = connection.info[_MET_WRITER] = not _begin_at_once(driver)
    lock: WriteLock = options["jobqueue_lock"]
    if met_writer and not (lock.gave_up and _begin_without_lock(connection, lock)):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_at_once(driver: Any) -> bool:
    """Begin a write transaction if no other one is open: SQLite does not tell that it has waited.

    The time that it took would not tell either: on a busy machine a thread waits for the processor.
    """
    driver.execute("PRAGMA busy_timeout=0").close()
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    finally:
        driver.execute(SET_BUSY_TIMEOUT).close()
    return True


def _begin_without_lock(connection: Connection, lock: WriteLock) -> bool:
    """Begin while the holder of the write lock seems stopped; return False if the lock is held.

    Queue again between tries: a holder that the machine let wait may have gone on, and then those
    who take turns would leave this transaction no gap in which to begin.
    """
    left = 1000 * BUSY_TIMEOUT
    connection.exec_driver_sql(f"PRAGMA busy_timeout={TRY_WITHOUT_LOCK}")
    try:
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except OperationalError as error:
                left -= TRY_WITHOUT_LOCK
                is_busy = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
                if is_busy and lock.take_again():
                    return False
                if not is_busy or left <= 0:
                    raise
            else:
                return True
    finally:
        connection.exec_driver_sql(SET_BUSY_TIMEOUT)


def _end_a_hooks_transaction(driver: Any) -> None:
    """Roll back a transaction that an application's hook on all engines or pools has begun."""
    if driver.in_transaction:
        driver.rollback()


def _refuse_replaced(connection: Connection | PoolProxiedConnection, file: DatabaseFile) -> None:
    """Raise DatabaseReplaced if the connection's open file is no longer the one at its path."""
    try:
        file.require()
    except DatabaseReplaced:
        connection.invalidate()  # Its writes would vanish with the old file.
        raise
