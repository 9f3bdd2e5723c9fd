"""The database's clock: one type of instant, and the expressions that differ between databases.

Due times follow the database's wall clock, so that workers on many hosts agree. `clock_timestamp()`
and not `now()`, because `now()` is the start of the transaction, which may be a user's long one.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import DateTime, Dialect, Double, ScalarSelect, Text, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

SQLITE_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # Built in: works in views too.


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime: `timestamptz` on Postgres, sortable UTC text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write an aware datetime; a naive one is a bug in jobqueue."""
        if value is None:
            return None
        assert value.tzinfo is not None, "instants are aware"
        value = value.astimezone(UTC)
        if dialect.name != "sqlite":
            return value
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")

    def result_processor(self, dialect: Dialect, _type: object) -> Callable[[Any], Any] | None:
        """Read text as UTC, and Postgres' aware datetimes in UTC.

        Postgres sends the session's time zone. Python subtracts two instants of one zone as wall
        clocks, wrong by an hour across a daylight saving change.

        Not `process_result_value`, which costs several calls per value on the hot path.
        """
        return self.reader(dialect)

    def reader(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Return what reads the driver's form."""
        return _read_text if dialect.name == "sqlite" else _read_aware


@lru_cache(maxsize=64)  # The rows of one batch share most of their instants.
def _read_text(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value + "+00:00")
    except ValueError:
        return _read_foreign(value)
    # After a date without a time, Python reads the offset as a time of day.
    return instant if instant.tzinfo else _read_foreign(value)


def _read_aware(value: datetime | None) -> datetime | None:
    # Nearly all are UTC: our sessions are, and the driver then uses this zone object.
    return value if value is None or value.tzinfo is UTC else value.astimezone(UTC)


def read_text(value: str | None) -> datetime | None:
    """Read an instant that a database has written as text, in whatever form."""
    return None if value is None else _read_foreign(value)


def _read_foreign(value: str) -> datetime:
    """Read an instant that plain SQL wrote in another form: no row may stop a worker."""
    try:
        instant = datetime.fromisoformat(value)
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # Not an instant, or outside of the years 1 to 9999.
        return datetime(1970, 1, 1, tzinfo=UTC)


INSTANT = Instant()
"""The one instance of the type: columns of input rows are recognized by identity."""


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is.
    """The database's present instant."""

    type = INSTANT
    inherit_cache = True


class after(FunctionElement[datetime]):  # noqa: N801
    """The instant that lies a number of seconds from now; takes one numeric expression."""

    type = INSTANT
    inherit_cache = True


class plus(FunctionElement[datetime]):  # noqa: N801
    """The instant that lies a number of seconds after another; takes the instant and the number."""

    type = INSTANT
    inherit_cache = True


class this_minute(FunctionElement[datetime]):  # noqa: N801
    """The present minute, at its second 0."""

    type = INSTANT
    inherit_cache = True


class this_hour(FunctionElement[datetime]):  # noqa: N801
    """The present hour, at its minute 0."""

    type = INSTANT
    inherit_cache = True


class epoch(FunctionElement[float]):  # noqa: N801
    """The seconds since 1970."""

    type = Double()
    inherit_cache = True


def once(instant: FunctionElement[datetime]) -> ScalarSelect[datetime]:
    """Return a subquery that evaluates the instant once per statement, not once per row.

    Postgres uses an index only for such an instant: a volatile one may change between rows.
    """
    return select(instant).scalar_subquery()


class json_list(FunctionElement[str]):  # noqa: N801
    """The text of a JSON array of its arguments; instants are texts in it."""

    type = Text()
    inherit_cache = True


@compiles(json_list, "postgresql")
def _json_list_postgres(element: json_list, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST(json_build_array({compiler.process(element.clauses, **kw)}) AS TEXT)"


@compiles(json_list, "sqlite")
def _json_list_sqlite(element: json_list, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_array({compiler.process(element.clauses, **kw)})"


@compiles(now, "postgresql")
def _now_postgres(_element: now, _compiler: SQLCompiler, **_: Any) -> str:
    return "clock_timestamp()"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_: Any) -> str:
    return SQLITE_NOW


@compiles(after, "postgresql")
def _after_postgres(element: after, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"clock_timestamp() + CAST({seconds} AS DOUBLE PRECISION) * INTERVAL '1 second'"


@compiles(after, "sqlite")
def _after_sqlite(element: after, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {seconds}))"


@compiles(plus, "postgresql")
def _plus_postgres(element: plus, compiler: SQLCompiler, **kw: Any) -> str:
    instant, seconds = (compiler.process(part, **kw) for part in element.clauses)
    return f"{instant} + CAST({seconds} AS DOUBLE PRECISION) * INTERVAL '1 second'"


@compiles(plus, "sqlite")
def _plus_sqlite(element: plus, compiler: SQLCompiler, **kw: Any) -> str:
    instant, seconds = (compiler.process(part, **kw) for part in element.clauses)
    return f"strftime('%Y-%m-%d %H:%M:%f000', {instant}, printf('%+.3f seconds', {seconds}))"


@compiles(this_minute, "postgresql")
def _minute_postgres(_element: this_minute, _compiler: SQLCompiler, **_: Any) -> str:
    return "date_trunc('minute', clock_timestamp(), 'UTC')"  # A zone may be off by seconds.


@compiles(this_minute, "sqlite")
def _minute_sqlite(_element: this_minute, _compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:00.000000', 'now')"


@compiles(this_hour, "postgresql")
def _hour_postgres(_element: this_hour, _compiler: SQLCompiler, **_: Any) -> str:
    return "date_trunc('hour', clock_timestamp(), 'UTC')"


@compiles(this_hour, "sqlite")
def _hour_sqlite(_element: this_hour, _compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:00:00.000000', 'now')"


@compiles(epoch, "postgresql")
def _epoch_postgres(_element: epoch, _compiler: SQLCompiler, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(epoch, "sqlite")
def _epoch_sqlite(_element: epoch, _compiler: SQLCompiler, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"
