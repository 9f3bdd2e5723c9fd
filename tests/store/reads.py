"""How much a transaction reads of the tables of jobs and lanes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text

from jobqueue.store.database import Store

STEPS = 50  # of SQLite's machine for a row that is looked at, at most


class Reads:
    """How many rows the transactions in it have looked at; on SQLite by the steps of its machine."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.most = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        with self._store.write() as connection:
            driver: Any = connection.connection.driver_connection
            if self._store.backend.single_writer:
                driver.set_progress_handler(count, STEPS)
                yield connection
                driver.set_progress_handler(None, 0)
            else:
                before = self._looked_at(connection)
                yield connection
                steps = self._looked_at(connection) - before
        self.most = max(self.most, steps)

    @staticmethod
    def _looked_at(connection: Connection) -> int:
        return connection.execute(text(
            "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
            " WHERE relname IN ('jobqueue_jobs', 'jobqueue_lanes')"
        )).scalar() or 0  # fmt: skip
