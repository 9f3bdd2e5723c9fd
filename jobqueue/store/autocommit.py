"""A statement that is a transaction of its own, run on the driver's own connection (ADR 0012)."""

from typing import Any

from sqlalchemy import Boolean, Update

from jobqueue.store.clock import Instant
from jobqueue.store.database import Store

_NOT_EVERYWHERE = (Boolean, Instant)  # Drivers give all other types as Python has them.


class Alone:
    """One statement of Core's, compiled once, past SQLAlchemy from then on."""

    def __init__(self, store: Store, statement: Update) -> None:
        self._store = store
        compiled = statement.compile(store.engine)
        self._text = str(compiled)
        self._constants = {
            name: value for name, value in compiled.params.items() if value is not None
        }
        dialect = store.engine.dialect
        readers = {
            place: column.type.dialect_impl(dialect).result_processor(dialect, None)
            for place, column in enumerate(statement.exported_columns)
            if isinstance(column.type, _NOT_EVERYWHERE)
        }
        self._readers = [(place, reader) for place, reader in readers.items() if reader]

    def rows(self, parameters: dict[str, Any]) -> list[list[Any]] | None:
        """The rows that it returns; None if nothing was done, and a transaction may tell why.

        What cannot be known is raised. Parameters are passed to the driver as they are.
        """
        found = self._store.alone(self._text, self._constants | parameters)
        if found is None:
            return None
        rows = [list(row) for row in found]
        for row in rows:
            for place, read in self._readers:
                row[place] = read(row[place])
        return rows
