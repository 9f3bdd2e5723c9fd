"""Wake-ups on PostgreSQL: NOTIFY on one channel, with a connection of its own on either side."""

import contextlib
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from jobqueue.store import forks

CHANNEL = "jobqueue"
PROBE = 30.0  # seconds of silence until the connection is tried
_NOTIFY = text("SELECT pg_notify(:channel, '')").bindparams(channel=CHANNEL)


class NotifyRinger:
    """Sends a NOTIFY in a transaction of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ring(self) -> None:
        """See `Ringer.ring`."""
        with self._engine.begin() as connection:
            connection.execute(_NOTIFY)

    def close(self) -> None:
        """See `Ringer.close`."""
        self._engine.dispose()

    def forget(self) -> None:
        """See `Ringer.forget`."""
        forks.keep(self._engine.pool)
        self._engine.dispose(close=False)


class NotifyListener:
    """Listens on a connection that it makes again whenever it is lost."""

    address = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._silent = 0.0

    def wait(self, timeout: float) -> bool:
        """See `Listener.wait`. True also after a reconnect: something may have been missed."""
        if self._connection is None:
            self._connect()
            return True
        try:
            driver = self._driver()
            if self._silent >= PROBE:
                driver.execute("SELECT 1")
                self._silent = 0.0
            heard = any(True for _ in driver.notifies(timeout=timeout, stop_after=1))
        except Exception:
            self._drop()
            raise
        self._silent = 0.0 if heard else self._silent + timeout
        return heard

    def _connect(self) -> None:
        self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection.execute(text(f"LISTEN {CHANNEL}"))

    def _driver(self) -> Any:
        assert self._connection is not None
        return self._connection.connection.driver_connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.invalidate()
                connection.close()

    def wake(self) -> None:
        """See `Listener.wait`: it is bounded, and that has to do."""

    def close(self) -> None:
        """See `Listener.close`."""
        self._drop()
        self._engine.dispose()
