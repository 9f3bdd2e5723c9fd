"""Wake-ups on SQLite: a datagram to each worker's socket; for other writers, `data_version`.

inotify on the WAL does not work: it fires before the commit is visible (58 of 60 were missed).
"""

import contextlib
import os
import secrets
import select
import socket
import sys
import time
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy import select as sql_select

from jobqueue.store import fork_safety
from jobqueue.store.notify.notifier import Wakeup
from jobqueue.store.schema import workers

POLL_SECONDS = 0.05  # seconds between polls of data_version: 0.4 % of a core
ADDRESSES_SECONDS = 1.0  # seconds for which the list of addresses is reused
_ADDRESSES = sql_select(workers.c.wakeup_address).where(workers.c.wakeup_address.is_not(None))
# Linux's abstract sockets leave no files behind; other systems poll.
_ABSTRACT = sys.platform == "linux"


class DatagramSender:
    """Sends an empty datagram to each worker on this host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._addresses: list[str] = []
        self._read_at = -ADDRESSES_SECONDS
        self._socket: socket.socket | None = None

    def notify(self) -> float | None:
        """See `NotificationSender.notify`: without addresses, until they are read again."""
        if not _ABSTRACT:
            return None
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if time.monotonic() - self._read_at >= ADDRESSES_SECONDS:
            with self._engine.connect() as connection:
                rows = connection.execute(_ADDRESSES)
                self._addresses = list(rows.scalars())
            self._read_at = time.monotonic()
        for address in self._addresses:
            with contextlib.suppress(OSError):  # The worker is gone, or its buffer is full.
                self._socket.sendto(b"", "\0" + address)
        return None if self._addresses else ADDRESSES_SECONDS

    def close(self) -> None:
        """See `NotificationSender.close`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def after_fork_in_child(self) -> None:
        """Close the child's copy of the socket; the store drops its connections."""
        self.close()


class DatagramSubscription:
    """Receives datagrams, and polls `data_version` in between for commits of other writers."""

    must_poll = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._version: int | None = None
        self.address: str | None = None
        self._socket: socket.socket | None = None
        if _ABSTRACT:
            self.address = f"jobqueue-{os.getpid()}-{secrets.token_hex(8)}"
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.bind("\0" + self.address)

    def wait(self, timeout: float) -> Wakeup:
        """See `Subscription.wait`."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            if self._received(min(left, POLL_SECONDS)):
                return Wakeup.NOTIFIED
            if self._changed():
                return Wakeup.COMMIT
        return Wakeup.NOTHING

    def _received(self, timeout: float) -> bool:
        if self._socket is None:
            select.select([], [], [], timeout)
            return False
        ready, _, _ = select.select([self._socket], [], [], timeout)
        if not ready:
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        return True

    def _changed(self) -> bool:
        """Return whether another connection has committed since the last call."""
        driver: Any
        if self._connection is None:
            self._connection = self._engine.connect()
            driver = self._connection.connection.driver_connection
            if driver.in_transaction:  # An application's hook on all pools has begun it.
                driver.rollback()
        # Not through SQLAlchemy: after its BEGIN the connection would see one snapshot for ever,
        # and block every checkpoint of the WAL.
        driver = self._connection.connection.driver_connection
        with fork_safety.gate:
            version: int = driver.execute("PRAGMA data_version").fetchone()[0]
        changed = version != self._version
        self._version = version
        return changed

    def wake(self) -> None:
        """See `Subscription.wake`."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"", "\0" + str(self.address))

    def close(self) -> None:
        """See `Subscription.close`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._socket is not None:
            self._socket.close()
        self._engine.dispose()
