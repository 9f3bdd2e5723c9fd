"""Wake-ups on PostgreSQL: NOTIFY on one channel; each subscription has its own connection."""

import contextlib
import math
import secrets
import select
import socket
import time
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from jobqueue.loggers import get_logger
from jobqueue.store import postgres_session as session
from jobqueue.store.notify.notifier import NotificationSender, Wakeup

log = get_logger("jobqueue.store")

CHANNEL = "jobqueue"
# A listening connection is idle for long. Older servers do not have the setting.
_STAY = text(
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
)
PROBE_SECONDS = 30.0  # seconds of silence until the connection is tried
PROOF_SECONDS = 5.0  # seconds within which a first notification must arrive
_NOTIFY = f"NOTIFY {CHANNEL}"
_LISTEN = text(f"LISTEN {CHANNEL}")


class NotifySender(NotificationSender):
    """Sends a NOTIFY in one round trip, since every job waits for it.

    It bypasses SQLAlchemy, and needs no BEGIN and COMMIT around `SELECT pg_notify(…)`: 0.13 ms, not
    0.6. It uses a pooled connection, idle just after the enqueue, and keeps none for itself.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def notify(self) -> None:
        """See `NotificationSender.notify`."""
        with contextlib.closing(self._engine.raw_connection()) as connection:
            driver: Any = connection.driver_connection
            try:
                driver.autocommit = True
                driver.execute(_NOTIFY)
                # On a demoted server there are no workers: they use another one.
                session.require_writable(driver)
                driver.autocommit = False
            except BaseException:
                connection.invalidate()
                raise


class NotifySubscription:
    """Listens on a connection that it reopens whenever it is lost.

    A pooler in transaction mode accepts LISTEN, but delivers no notification. Behind a pooler, the
    subscription therefore first listens on a random channel and notifies itself. That needs two
    connections.
    """

    address = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._silent = 0.0
        self._proven_until: float | None = None
        """The time to give up, while it is unknown whether notifications arrive."""
        self._waker, self._wakened = socket.socketpair()
        self.must_poll = False

    def wait(self, timeout: float) -> Wakeup:
        """See `Subscription.wait`. A reconnect counts as a commit: one may have been missed."""
        if self.must_poll:
            self._sleep(timeout)
            return Wakeup.NOTHING
        try:
            if self._connection is None:
                self._connect()
                return Wakeup.COMMIT
            driver: Any = self._connection.connection.driver_connection
            if self._silent >= PROBE_SECONDS:
                driver.execute("SELECT 1")
                self._silent = 0.0
                session.require_writable(driver)
            notified = _has_notification(driver)
            if not notified:
                self._sleep(timeout, driver)
                notified = _has_notification(driver)
            if self._proven_until is not None:
                return self._prove(notified=notified)
        except Exception as error:
            self._drop()
            dialect: Any = self._engine.dialect
            if isinstance(error, dialect.loaded_dbapi.Error):  # Of the driver's own methods.
                lost = OperationalError(None, None, error, connection_invalidated=True)
                raise lost from error
            raise
        self._silent = 0.0 if notified else self._silent + timeout
        return Wakeup.NOTIFIED if notified else Wakeup.NOTHING

    def _sleep(self, timeout: float, *connections: Any) -> None:
        """Sleep for `timeout` seconds, until data arrives, or until `wake()`."""
        readable = select.poll()
        for one in (self._wakened, *connections):
            readable.register(one, select.POLLIN)
        readable.poll(math.ceil(timeout * 1000))

    def _connect(self) -> None:
        self._connection = _autocommit(self._engine)
        self._proven_until = None
        if session.is_direct(self._connection.connection):
            self._connection.execute(_STAY)
            self._connection.execute(_LISTEN)
            return
        own = f"{CHANNEL}_{secrets.token_hex(8)}"
        self._connection.execute(text(f"LISTEN {own}"))
        # From another session: a session receives its own notification in either mode.
        with _autocommit(self._engine) as other:
            other.execute(text(f"NOTIFY {own}"))
            other.detach()  # Close it instead of returning it to the pool.
        self._proven_until = time.monotonic() + PROOF_SECONDS

    def _prove(self, *, notified: bool) -> Wakeup:
        assert self._connection is not None
        assert self._proven_until is not None
        if notified:
            self._proven_until = None
            self._connection.execute(_LISTEN)
            return Wakeup.COMMIT
        if time.monotonic() >= self._proven_until:
            self.must_poll = True
            log.warning(
                "no notification arrives through the pooler of this URL, as in transaction mode: "
                "a job may wait until the next poll; give workers a URL that leads to the server "
                "itself, or a pool in session mode (docs/poolers.md)"
            )
            self._drop()
        return Wakeup.NOTHING

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):  # It may be lost.
                connection.invalidate()
                connection.close()

    def wake(self) -> None:
        """See `Subscription.wake`. It also ends every later `wait()`: its worker stops."""
        with contextlib.suppress(OSError):  # Closed already.
            self._waker.send(b"\0")

    def close(self) -> None:
        """See `Subscription.close`."""
        self._drop()
        self._engine.dispose()
        self._waker.close()
        self._wakened.close()


def _autocommit(engine: Engine) -> Connection:
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _has_notification(driver: Any) -> bool:
    return any(True for _ in driver.notifies(timeout=0, stop_after=1))
