"""COPY many rows at once, with ids reserved beforehand, since COPY returns no ids."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import REGCLASS

from jobqueue.store.schema import jobs

CHUNK = 32_768
"""Approximate characters per message: the server reads one while the next is formatted."""

_OPTION = "jobqueue_copy"
"""Marks a COPY. Its text does not: an application's hook may put a comment before statements."""

_sequence = (
    select(cast(func.pg_get_serial_sequence(jobs.name, "id"), REGCLASS).label("name"))
    .offset(0)  # Looked up once, not once per id.
    .subquery()
)
_RESERVE = select(func.nextval(_sequence.c.name)).select_from(
    _sequence, func.generate_series(1, bindparam("in_count"))
)


def install(engine: Engine) -> None:
    """Let `exec_driver_sql` run COPY with a list of rows, so that SQLAlchemy wraps its errors."""
    dialect: Any = engine.dialect
    executemany = dialect.do_executemany

    def copy_or_executemany(cursor: Any, statement: str, rows: Any, context: Any = None) -> None:
        if context is not None and _OPTION in context.execution_options:
            _copy_rows(cursor, statement, rows)
        else:
            executemany(cursor, statement, rows, context)

    dialect.do_executemany = copy_or_executemany


def insert(
    connection: Connection, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> Sequence[int]:
    """Insert at least two jobs; return their ids, which grow in the order of the rows.

    `install()` must have been called for the connection's engine. Fastest if only the first column
    differs between rows.
    """
    ids = sorted(connection.execute(_RESERVE, {"in_count": len(rows)}).scalars())
    numbered = [(id_, row[0], row[1:]) for id_, row in zip(ids, rows, strict=True)]
    connection.exec_driver_sql(_copy(tuple(columns)), numbered, {_OPTION: True})
    return ids


@lru_cache
def _copy(columns: tuple[str, ...]) -> str:
    return f"COPY {jobs.name} (id, {', '.join(columns)}) FROM STDIN"


def _copy_rows(cursor: Any, statement: str, rows: Sequence[Any]) -> None:
    with cursor.copy(statement) as copy:
        chunk: list[str] = []
        length = 0
        for line in _lines(rows):
            chunk.append(line)
            length += len(line)
            if length >= CHUNK:
                copy.write("".join(chunk))
                chunk.clear()
                length = 0
        copy.write("".join(chunk))


def _lines(rows: Sequence[tuple[int, Any, tuple[Any, ...]]]) -> Iterator[str]:
    written: dict[tuple[Any, ...], str] = {}
    for id_, first, others in rows:
        rest = written.get(others)
        if rest is None:
            rest = written[others] = "\t".join(map(_text, others))
        yield f"{id_}\t{_text(first)}\t{rest}\n"


def _text(value: Any) -> str:
    """Return a value in COPY's text format."""
    if value is None:
        return "\\N"
    text = str(value)
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text or "\t" in text or "\r" in text:
        text = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return text
