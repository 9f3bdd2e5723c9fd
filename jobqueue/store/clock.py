"""The database's clock: one type of instant, and the expressions that differ between databases.

Due times follow the database's wall clock, so that workers on many hosts agree. `clock_timestamp()`
and not `now()`, because `now()` is the start of the transaction, which may be a user's long one.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, DateTime, Dialect, Double, ScalarSelect, Text, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

SQLITE_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # Built in: works in views too.

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)
"""The bounds of what is read: every time zone can show them."""

_BEYOND = re.compile(r"-?infinity|\d{5,}-.*|(0001|9999)-.*|.* BC")
"""PostgreSQL's text of an instant that Python cannot hold in UTC, in ISO form."""


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
        if isinstance(value, _AsWritten):
            return value.text
        assert value.tzinfo is not None, "instants are aware"
        value = value.astimezone(UTC)
        if dialect.name != "sqlite":
            return value
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")

    def result_processor(self, dialect: Dialect, _type: object) -> Callable[[Any], Any] | None:
        """Read text as UTC, and Postgres' instants in UTC.

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
    except (ValueError, TypeError):  # Bytes.
        return _read_foreign(value)
    # After a date without a time, Python reads the offset as a time of day.
    return instant if instant.tzinfo else _read_foreign(value)


@lru_cache(maxsize=64)
def _read_aware(value: str | datetime | None) -> datetime | None:
    """Read PostgreSQL's text in ISO form, or what a user's driver made of it."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else value
        # Nearly all are UTC: our sessions are, and Python then uses this zone object.
        return instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        if _BEYOND.fullmatch(str(value)):
            return bound(str(value))
        raise


def bound(text: str) -> datetime:
    """Return what stands for an instant of PostgreSQL that Python cannot hold in UTC."""
    is_early = text.startswith(("-", "0001-")) or text.endswith("BC")
    return EARLIEST if is_early else LATEST


def read_text(value: str | None) -> datetime | None:
    """Read an instant that a database has written as text, in whatever form."""
    return None if value is None else _read_foreign(value)


def _read_foreign(value: str) -> datetime:
    """Read an instant that plain SQL wrote in another form: no row may stop a worker."""
    try:
        instant = datetime.fromisoformat(value)
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except OverflowError:
        return bound(value)
    except (ValueError, TypeError):
        is_beyond = isinstance(value, str) and _BEYOND.fullmatch(value)
        return bound(value) if is_beyond else datetime(1970, 1, 1, tzinfo=UTC)


class _AsWritten(datetime):
    """An instant that plain SQL wrote in another form on SQLite, with its text."""

    text: str


class InstantAsWritten(Instant):
    """An instant for a place to go on from: it is written back in the form in which it was read.

    SQLite compares texts: '2026-01-31 23:59:59' is in front of '2026-01-31 23:59:59.000000'.
    """

    cache_ok = True

    def reader(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Return what reads the driver's form."""
        return _read_as_written if dialect.name == "sqlite" else _read_aware


def _read_as_written(value: str) -> datetime | None:
    instant = _read_text(value)
    if instant is None or instant.replace(tzinfo=None).isoformat(" ", "microseconds") == value:
        return instant
    foreign = _AsWritten.fromisoformat(instant.isoformat())
    foreign.text = value
    return foreign


INSTANT = Instant()


T = TypeVar("T")


def _function(type_: TypeEngine[T], sqlite: str, postgresql: str) -> type[FunctionElement[T]]:
    """Return a function in each database's SQL: {0}, {1} are its arguments, {all} is all."""

    class Function(FunctionElement[T]):
        type = type_
        inherit_cache = True

    for dialect, form in (("sqlite", sqlite), ("postgresql", postgresql)):

        def write(element: Function, compiler: SQLCompiler, form: str = form, **kw: Any) -> str:
            parts = [compiler.process(part, **kw) for part in element.clauses]
            return form.format(*parts, all=", ".join(parts))

        compiles(Function, dialect)(write)
    return Function


now = _function(INSTANT, SQLITE_NOW, "clock_timestamp()")
"""The database's present instant."""

after = _function(
    INSTANT,
    "strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {0}))",
    "clock_timestamp() + CAST({0} AS DOUBLE PRECISION) * INTERVAL '1 second'",
)
"""The instant that lies a number of seconds from now; takes one numeric expression."""

plus = _function(
    INSTANT,
    "strftime('%Y-%m-%d %H:%M:%f000', {0}, printf('%+.3f seconds', {1}))",
    "{0} + CAST({1} AS DOUBLE PRECISION) * INTERVAL '1 second'",
)
"""The instant that lies a number of seconds after another; takes the instant and the number."""

this_minute = _function(
    INSTANT,
    "strftime('%Y-%m-%d %H:%M:00.000000', 'now')",
    "date_trunc('minute', clock_timestamp(), 'UTC')",  # A zone may be off by seconds.
)
"""The present minute, at its second 0."""

this_hour = _function(
    INSTANT,
    "strftime('%Y-%m-%d %H:00:00.000000', 'now')",
    "date_trunc('hour', clock_timestamp(), 'UTC')",
)
"""The present hour, at its minute 0."""

epoch: type[FunctionElement[float]] = _function(
    Double(),
    "((julianday('now') - 2440587.5) * 86400.0)",
    "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)",
)
"""The seconds since 1970."""

json_list = _function(Text(), "json_array({all})", "CAST(json_build_array({all}) AS TEXT)")
"""The text of a JSON array of its arguments; instants are texts in it."""


def once(instant: FunctionElement[datetime]) -> ScalarSelect[datetime]:
    """Return a subquery that evaluates the instant once per statement, not once per row.

    Postgres uses an index only for such an instant: a volatile one may change between rows.
    """
    return select(instant).scalar_subquery()


def present_of(connection: Connection) -> datetime:
    """Return the database's present instant."""
    present: datetime = connection.execute(select(now())).scalar_one()
    return present
