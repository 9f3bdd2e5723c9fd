"""Column types that read what plain SQL has left on SQLite, whose columns take any type.

No row may stop a worker or a page: a value of another type is read as one of the column's. On
PostgreSQL, whose types refuse it, SQLAlchemy takes its own in their place, at no cost.
"""

import math
from collections.abc import Callable
from typing import Any

import sqlalchemy
from sqlalchemy import Dialect

Processor = Callable[[Any], Any] | None


class Text(sqlalchemy.Text):
    """A text: bytes are decoded, and numbers as written."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor:
        """Read the driver's form."""
        own: Processor = super().result_processor(dialect, coltype)
        return _text if dialect.name == "sqlite" else own


class _Whole(sqlalchemy.Integer):
    def result_processor(self, dialect: Dialect, coltype: object) -> Processor:
        """Read the driver's form."""
        own: Processor = super().result_processor(dialect, coltype)
        return _whole if dialect.name == "sqlite" else own


class Integer(_Whole):
    """An integer: other numbers are cut, and 0 stands for what is not one."""


class BigInteger(_Whole, sqlalchemy.BigInteger):
    """The same with 64 bits."""


class SmallInteger(_Whole, sqlalchemy.SmallInteger):
    """The same with 16 bits."""


class Double(sqlalchemy.Double[float]):
    """A finite number: 0 stands for what is not one."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor:
        """Read the driver's form."""
        own: Processor = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        return _number if dialect.name == "sqlite" else own


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _whole(value: Any) -> int | None:
    if value is None or type(value) is int:
        return value
    return int(value) if isinstance(value, float) and math.isfinite(value) else 0


def _number(value: Any) -> float | None:
    if value is None:
        return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
