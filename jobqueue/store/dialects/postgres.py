"""The PostgreSQL backend: arrays as parameters, READ COMMITTED, no state outside transactions.

The exception: statements of autocommit are prepared, if no pooler is in between.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    column,
    create_engine,
    func,
    literal_column,
    table,
    text,
    true,
)
from sqlalchemy import insert as sql_insert
from sqlalchemy import select as sql_select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError

from jobqueue.store import postgres_session as session
from jobqueue.store.clock import Instant
from jobqueue.store.dialects import postgres_copy, postgres_health, postgres_hooks
from jobqueue.store.dialects.base import PLAIN_COLUMNS, Backend, Columns, Identity, Parameters
from jobqueue.store.notify.postgres import CHANNEL, NotifySender, NotifySubscription
from jobqueue.store.pool import IDLE_SECONDS, BoundedPool, Checks, WaitPolicy
from jobqueue.store.schema import jobs, meta

CONNECT = {
    "application_name": "jobqueue",
    "connect_timeout": 10,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
    # No prepared statements: poolers in transaction mode need that. (Without one in between,
    # `execute_autocommit` prepares.)
    "prepare_threshold": None,
    "client_encoding": "utf8",  # A start-up parameter that every pooler takes.
}

# Insufficient resources; serialization failure, deadlock, lock not available, cancelled. SQLSTATEs
# that end the connection are in `postgres_session`.
_CONNECTION = "08"
_TOO_MANY = "53300"
_FORBIDDEN = "42501"
_LOCK_TIMEOUT = "55P03"
_RESOURCES = "53"
_TRANSIENT = ("40001", "40P01", "55P03", "57014")


# Messages of servers and poolers that have no free connection. The driver has no SQLSTATE for a
# connection that was refused.
_FULL = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
    "max client connections",
)

_QUOTED = (Text, Instant)

_POSITIONAL = psycopg_dialect(paramstyle="format")  # type: ignore[no-untyped-call]
_PREFER_INDEXES = text(
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true),"
    " set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true)"
)
_NOTIFICATION = func.pg_notify(literal_column(f"'{CHANNEL}'"), literal_column("''"))

_class = table("pg_class", column("oid"), column("relnamespace"), schema="pg_catalog")
_namespace = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")
_tableoid: ColumnElement[int] = literal_column(f"{meta.name}.tableoid")
# As text: a user's connection may have its own loaders for other types.
_IDENTITY = (
    sql_select(
        meta.c.value,
        func.concat(func.current_database(), ".", _tableoid),
        cast(_namespace.c.nspname, Text),
    )
    .join_from(meta, _class, _class.c.oid == _tableoid)
    .join(_namespace, _namespace.c.oid == _class.c.relnamespace)
    .where(meta.c.key == "instance")
)

# Not `jobs`, whose defaults SQLAlchemy would write too.
_plain = table(
    jobs.name, column("id"), *(column(name, jobs.c[name].type) for name in PLAIN_COLUMNS)
)
_INSERTION = (
    sql_insert(_plain)
    .values({name: bindparam(None, type_=jobs.c[name].type) for name in PLAIN_COLUMNS})
    .returning(_plain.c.id)
)


class Postgres(Backend):
    """The backend for PostgreSQL, through psycopg 3."""

    name = "postgresql"
    batch_max = 500
    batch_max_shared = 500
    single_writer = False
    reuses_ids = False
    insertion = str(_INSERTION.compile(dialect=_POSITIONAL))
    notifying_insertion = str(_INSERTION.returning(_NOTIFICATION).compile(dialect=_POSITIONAL))
    health_checks = postgres_health.CHECKS

    def engine(
        self,
        url: URL,
        connections: int,
        *,
        wait_policy: WaitPolicy | None = None,
        idle: float = IDLE_SECONDS,
        makes: bool = False,  # noqa: ARG002 - a server's databases are made by its owner.
    ) -> Engine:
        """See `Backend.engine`. The isolation level does not depend on the role's default."""
        given = {**CONNECT, **{key: value for key, value in url.query.items() if key in CONNECT}}
        given["client_encoding"] = "utf8"  # Also if the URL has another one.
        bare = url.set(drivername="postgresql+psycopg").difference_update_query(CONNECT)
        engine = create_engine(
            bare,
            connect_args={"context": postgres_hooks.adapters(), **given},
            isolation_level="READ COMMITTED",
            poolclass=BoundedPool,
            pool_size=connections,
            idle=idle,
            wait_policy=wait_policy or WaitPolicy(),
            checks=Checks(_is_full, session.is_lost),
            hide_parameters=True,
            use_native_hstore=False,  # We have no such column, and its type would be looked for.
        )
        postgres_hooks.undo(engine)
        session.prepare(engine)
        postgres_copy.install(engine)
        return engine

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """See `Backend.writing`."""
        with engine.begin() as connection:
            session.begun(connection)
            yield connection

    reading = writing
    """See `Backend.reading`. COMMIT, because psycopg drops prepared statements at ROLLBACK."""

    def execute_autocommit(
        self, engine: Engine, statement: str, parameters: Parameters
    ) -> list[tuple[Any, ...]] | None:
        """See `Backend.execute_autocommit`: one round trip instead of three."""
        lost = False
        pool: Any = engine.pool
        try:
            with pool.lend() as connection:
                driver: Any = connection.driver_connection
                if session.sets_per_transaction(connection):
                    return None
                try:
                    driver.autocommit = True
                    driver.prepare_threshold = 0 if session.is_direct(connection) else None
                    lost = True
                    rows: list[tuple[Any, ...]] = driver.execute(statement, parameters).fetchall()
                    driver.prepare_threshold = None
                    driver.autocommit = False
                except BaseException as error:
                    # A pooler may report that the server ended the session, and keep ours open.
                    code = getattr(error, "sqlstate", None) or ""
                    lost = lost and (driver.closed or code.startswith(_CONNECTION))
                    connection.invalidate()
                    raise
                return rows
        except engine.dialect.loaded_dbapi.Error as error:
            if lost:  # The statement may have been committed, and only the answer lost.
                raise OperationalError(
                    statement, None, error, hide_parameters=True, connection_invalidated=True
                ) from error
        return None

    def limit_lock_wait(self, connection: Connection) -> None:
        """See `Backend.limit_lock_wait`."""
        session.set_local(connection, "SET LOCAL lock_timeout = '500ms'")

    def limit_stall(self, connection: Connection, seconds: float, *, lock_wait: float) -> None:
        """See `Backend.limit_stall`."""
        settings = (  # Together, and not by set_config(): less than half the time.
            f"SET LOCAL idle_in_transaction_session_timeout = {1000 * seconds:.0f};"
            f" SET LOCAL lock_timeout = {1000 * lock_wait:.0f}"
        )
        session.set_local(connection, settings)

    def is_lock_timeout(self, error: BaseException) -> bool:
        """See `Backend.is_lock_timeout`."""
        found = getattr(error, "orig", None)
        return getattr(found, "sqlstate", None) == _LOCK_TIMEOUT

    def prefer_indexes(self, connection: Connection) -> None:
        """See `Backend.prefer_indexes`.

        Before the first ANALYZE the planner expects few rows, and would sort a million of them for
        the first 10,000, or read a million places in an index for a bitmap; and it expects that
        most jobs run, and would read them all. After it, a join for the first 5,000 of a million
        errors would read all of both sides. Starting a parallel worker takes longer than a page.
        Before 18, the planner adds 1e10 for what is off, and would compile each statement for 1 s.
        """
        connection.execute(_PREFER_INDEXES)

    def batch_table(self, columns: Columns) -> FromClause:
        """See `Backend.batch_table`: one array per column.

        Each array is wrapped in a SELECT, so that the planner cannot count its elements, assumes
        ten rows and uses the primary key. With a known 500 rows it scanned every table whose
        statistics say that it is small, as before the first ANALYZE (measured: 66 ms per batch
        instead of 9).
        """
        arrays = (
            sql_select(
                cast(bindparam(f"in_{name}", type_=Text()), postgresql.ARRAY(type_))
            ).scalar_subquery()
            for name, type_ in columns.items()
        )
        table = func.unnest(*arrays).table_valued(*columns, with_ordinality="place", name="input")
        return table.render_derived()

    def batch_parameters(self, columns: Columns, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `Backend.batch_parameters`.

        Arrays are sent as text: drivers convert a list value by value in Python (measured: a tenth
        of the interpreter's time in a drain).
        """
        values = zip(*rows, strict=True) if rows else [()] * len(columns)
        return {
            f"in_{name}": _array(column, quoted=isinstance(type_, _QUOTED))
            for (name, type_), column in zip(columns.items(), values, strict=True)
        }

    def in_subquery(self, column: ColumnElement[Any], chosen: Select[Any]) -> ColumnElement[bool]:
        """See `Backend.in_subquery`: an array of a size unknown to the planner (`batch_table`)."""
        result: ColumnElement[bool] = column == any_(func.array(chosen.scalar_subquery()))
        return result

    def row_key(self, table: FromClause) -> ColumnElement[Any]:
        """See `Backend.row_key`: the place of the row, for which no index is read.

        A row that was changed between the statement's snapshot and its lock is not found.
        """
        return column("ctid", _selectable=table).label("id")

    def first_of_each(
        self,
        rows: FromClause,
        first: Select[Any],
        *,
        in_order: bool = False,  # noqa: ARG002 - a nested loop keeps both orders.
    ) -> Select[Any]:
        """See `Backend.first_of_each`."""
        each = first.lateral("each")
        return sql_select(each.c.id).select_from(rows.join(each, true()))

    def insert(self, table: Table) -> Insert:
        """See `Backend.insert`."""
        return postgresql.insert(table).on_conflict_do_nothing()

    insert_rows = staticmethod(postgres_copy.insert)

    def identity(self, connection: Connection) -> Identity | None:
        """See `Backend.identity`: by the table's oid, which does not depend on the search_path."""
        row = connection.execute(_IDENTITY).one_or_none()
        return None if row is None else Identity(*row)

    def is_autocommit(self, connection: Connection) -> bool:
        """See `Backend.is_autocommit`."""
        return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))

    def notification_sender(self, engine: Engine) -> NotifySender:
        """See `Backend.notification_sender`."""
        return NotifySender(engine)

    def subscription(
        self, url: URL, wait_policy: WaitPolicy | None = None, /
    ) -> NotifySubscription:
        """See `Backend.subscription`."""
        return NotifySubscription(self.engine(url, 2, wait_policy=wait_policy))

    def is_transient(self, error: BaseException) -> bool:
        """See `Backend.is_transient`."""
        code = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
        return self.is_unavailable(error) or (code or "").startswith(_TRANSIENT)

    def is_unavailable(self, error: BaseException) -> bool:
        """See `Backend.is_unavailable`."""
        if not isinstance(error, DBAPIError):
            return isinstance(error, DisconnectionError)
        code = getattr(error.orig, "sqlstate", None)
        if code is None:  # The server is unreachable, or still starting.
            return error.connection_invalidated or isinstance(error, OperationalError)
        return error.connection_invalidated or session.is_over(code) or code.startswith(_RESOURCES)

    def is_forbidden(self, error: BaseException) -> bool:
        """See `Backend.is_forbidden`."""
        of_driver = error.orig if isinstance(error, DBAPIError) else None
        return getattr(of_driver, "sqlstate", None) == _FORBIDDEN


def _is_full(error: Exception) -> bool:
    """Return whether the server, or a pooler, has no free connection now, but may have one soon."""
    code = getattr(error, "sqlstate", None)
    text = str(error).lower()
    return code == _TOO_MANY if code else any(words in text for words in _FULL)


def _array(values: Sequence[Any], *, quoted: bool) -> session.ArrayText:
    """Return the values as PostgreSQL's text form of an array."""
    if quoted:
        written = [
            "NULL"
            if value is None
            else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
            for value in values
        ]
    else:
        written = ["NULL" if value is None else str(value) for value in values]
    return session.ArrayText("{" + ",".join(written) + "}")
