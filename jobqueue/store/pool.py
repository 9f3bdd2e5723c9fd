"""The connection pool: a fixed maximum, idle connections closed, retries on a full server."""

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from jobqueue.loggers import get_logger
from jobqueue.store import fork_safety

log = get_logger("jobqueue.store")

IDLE_SECONDS = 10.0
"""Seconds after which an unused connection is closed."""
WAIT_SECONDS = 30.0
"""Default seconds to wait for a connection."""
POLL_SECONDS = 0.25  # seconds between two checks whether to go on waiting
WARN_AFTER_SECONDS = 1.0  # seconds of waiting before a warning is logged
WARN_AGAIN_SECONDS = 60.0  # seconds until the next warning
FAIR_AFTER_SECONDS = 0.01
"""Seconds for which a later thread may overtake the first waiter, whose wake-up costs more than a
short use of the connection."""
RETRY_FIRST_SECONDS = 0.1  # seconds until a full server is tried again; doubled after each refusal
RETRY_MAX_SECONDS = 2.0


class WaitPolicy:
    """How long to wait for a connection while none is free. Pools that share it log one warning.

    `gives_up`: called several times a second; True ends the wait.
    """

    def __init__(
        self, seconds: float = WAIT_SECONDS, gives_up: Callable[[], bool] = lambda: False
    ) -> None:
        self._seconds = seconds
        self._gives_up = gives_up
        self._said_at = -math.inf
        self.after_fork_in_child()
        fork_safety.register(self)

    def after_fork_in_child(self) -> None:
        """Forget the parent's waiters and lock, whose threads a forked child does not have."""
        # Reentrant: a signal handler may interrupt this code and need a connection.
        self._lock = threading.RLock()
        self._waiting: dict[object, float] = {}

    def is_over(self, waited: float) -> bool:
        """Return whether a thread that has waited `waited` seconds should raise an error."""
        return waited >= self._seconds or self._gives_up()

    def wait(self, who: object, since: float, error: Exception) -> None:
        """Note that `who` waits since an instant of `time.monotonic()`; the first one warns."""
        with self._lock:
            is_news = not self._waiting and time.monotonic() - self._said_at > WARN_AGAIN_SECONDS
            if not (is_news or self._waiting):
                return  # An earlier wait, and its end, were logged just now.
            self._waiting.setdefault(who, since)
            self._said_at = time.monotonic() if is_news else self._said_at
        if is_news:
            text = str(error).strip().rpartition("\n")[2].rpartition("FATAL:")[2].strip()
            log.warning("the database has no connection free (%s): waiting for one", text[:300])

    def end(self, who: object) -> None:
        """Note that `who` no longer waits."""
        with self._lock:
            since = self._waiting.pop(who, None)
            if since is None or self._waiting:
                return
        log.info("no longer waiting for a connection, after %.0f s", time.monotonic() - since)


class Checks(NamedTuple):
    """Checks of a server and its connections."""

    is_full: Callable[[Exception], bool]
    """Whether an error says that the server has no free connection now, but may have one soon."""
    is_lost: Callable[[ConnectionPoolEntry], bool]
    """Whether an idle connection can no longer be used."""


class _Waiter:
    """A thread that waits for a connection: since when, and the condition, on the pool's lock."""

    __slots__ = ("condition", "since")

    def __init__(self, lock: "threading.RLock") -> None:
        self.since = time.monotonic()
        self.condition = threading.Condition(lock)


class BoundedPool(Pool):
    """At most `pool_size` connections; the most recently used one is handed out first.

    While a server is full, connecting is retried as long as `wait_policy` allows, and a connection
    that is returned meanwhile is used instead. SQLAlchemy's own pool keeps idle connections for
    ever, and reconnects lost ones without such a wait.
    """

    _sqla_logger_namespace = "sqlalchemy.pool.BoundedPool"  # not a logger of the worker

    def __init__(
        self,
        creator: Any,
        pool_size: int,  # Not keyword-only: `create_engine` would not pass it on.
        idle: float,
        wait_policy: WaitPolicy,
        checks: Checks,
        **given: Any,
    ) -> None:
        super().__init__(creator, **given)
        self._size = pool_size
        self._idle = idle
        self._wait_policy = wait_policy
        self._checks = checks
        # Reentrant: a signal handler or the garbage collector may interrupt this code, and take or
        # return a connection.
        self._lock = threading.RLock()
        self._waiters: dict[_Waiter, None] = {}
        """In the order of arrival."""
        self._free: list[tuple[float, ConnectionPoolEntry]] = []
        """Idle connections with the time of their last use, oldest first."""
        self._open = 0
        """Connections that are open, or being opened or closed."""
        self._refusal: Exception | None = None
        """The server's last error while it is full; None once a connection was made."""
        self._refusals = 0
        self._retry_at = -math.inf
        self._timer: threading.Timer | None = None
        self._disposed = False
        self._process = os.getpid()

    def recreate(self) -> "BoundedPool":
        """See `Pool.recreate`."""
        return BoundedPool(
            self._creator,
            pool_size=self._size,
            idle=self._idle,
            checks=self._checks,
            wait_policy=self._wait_policy,
            reset_on_return=self._reset_on_return,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def dispose(self) -> None:
        """See `Pool.dispose`: connections in use are closed when they are returned."""
        with self._lock:
            self._disposed = True
            free, self._free = self._free, []
            timer = self._timer
        if timer is not None:
            timer.cancel()
            timer.join(1.0)
        self._close([record for _, record in free])

    def status(self) -> str:
        """See `Pool.status`."""
        return f"{self._open} of {self._size} connections open, {len(self._free)} of them idle"

    def checkedout(self) -> int:
        """See `QueuePool.checkedout`: return the number of connections in use."""
        return self._open - len(self._free)

    @contextmanager
    def lend(self) -> Iterator[ConnectionPoolEntry]:
        """Lend a connection without SQLAlchemy's wrapper, its events and its rollback at the end.

        For the driver's autocommit only: the borrower leaves no transaction open.
        """
        record = self._do_get()
        try:
            yield record
        finally:
            self._do_return_conn(record)

    def _do_get(self) -> ConnectionPoolEntry:
        with self._lock:
            idle = self._free.pop()[1] if self._free and not self._waiters else None
        if idle is not None and (idle := self._connected(idle)) is not None:
            return idle
        return self._wait_for_one()

    def _wait_for_one(self) -> ConnectionPoolEntry:
        waiter = _Waiter(self._lock)
        try:
            while True:
                has_place, record = self._place(waiter, POLL_SECONDS)
                if has_place and (record := self._connected(record)) is not None:
                    return record
                waited, refusal = time.monotonic() - waiter.since, self._refusal
                if self._wait_policy.is_over(waited):
                    raise refusal or self._timeout(waited)
                if refusal is not None and waited > WARN_AFTER_SECONDS:
                    self._wait_policy.wait(waiter, waiter.since, refusal)
        finally:
            self._wait_policy.end(waiter)
            with self._lock:
                self._leave(waiter)

    def _timeout(self, waited: float) -> PoolTimeout:
        return PoolTimeout(
            f"all {self._size} connections of this pool were in use for {waited:.0f} s; "
            "pool_size is how many there may be"
        )

    def _place(self, waiter: _Waiter, seconds: float) -> tuple[bool, ConnectionPoolEntry | None]:
        """Wait for a place: (True, idle connection or None to open one); (False, None) if late."""
        until = time.monotonic() + seconds
        with self._lock:
            while True:
                present = time.monotonic()
                if self._has_place(waiter, present):
                    record = self._free.pop()[1] if self._free else None
                    self._open += record is None
                    self._leave(waiter)
                    return True, record
                if present >= until:
                    return False, None
                self._waiters.setdefault(waiter)
                wait = until - present
                if self._open < self._size and self._retry_at > present:
                    wait = min(wait, self._retry_at - present)
                waiter.condition.wait(wait)

    def _has_place(self, waiter: _Waiter, present: float) -> bool:
        first = next(iter(self._waiters), waiter)
        if first is not waiter and present - first.since > FAIR_AFTER_SECONDS:
            return False
        return bool(self._free) or (self._open < self._size and present >= self._retry_at)

    def _leave(self, waiter: _Waiter) -> None:
        """Remove a waiter, and wake the first of the others."""
        if waiter in self._waiters:
            del self._waiters[waiter]
            self._wake()

    def _wake(self) -> None:
        for first in self._waiters:
            first.condition.notify()
            return

    def _connected(self, record: ConnectionPoolEntry | None) -> ConnectionPoolEntry | None:
        """Return an open connection: the given one, reconnected if lost, or a new one for None.

        Return None if the server is full. SQLAlchemy would reconnect a lost one later, but without
        the retries.
        """
        made = record is None
        try:
            if record is None:
                record = self._create_connection()
            else:
                if self._checks.is_lost(record):
                    record.invalidate()
                    made = True
                record.get_connection()  # type: ignore[attr-defined]
        except BaseException as error:
            if record is not None:
                record.close()
            is_full = isinstance(error, Exception) and self._checks.is_full(error)
            with self._lock:
                self._open -= 1
                if isinstance(error, Exception) and is_full:
                    self._refused(error)
                self._wake()
            if is_full:
                return None
            raise
        if made and self._refusal is not None:  # An idle one proves nothing about the server.
            with self._lock:
                self._refusal, self._refusals, self._retry_at = None, 0, -math.inf
        return record

    def _refused(self, error: Exception) -> None:
        most = min(RETRY_MAX_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** min(self._refusals, 16))
        self._refusal = error
        self._refusals += 1
        # Jitter: all workers may be waiting.
        self._retry_at = time.monotonic() + most * random.uniform(0.5, 1.0)  # noqa: S311

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        with self._lock:
            if record.dbapi_connection is not None and self._idle and not self._disposed:
                self._free.append((time.monotonic(), record))
                self._close_later()
                self._wake()
                return
        self._close([record])

    def _close(self, records: list[ConnectionPoolEntry]) -> None:
        try:
            with fork_safety.gate:
                for record in records:
                    record.close()
        finally:
            with self._lock:
                self._open -= len(records)
                self._wake()

    def _close_later(self) -> None:
        """Start a timer that closes the oldest idle connection; call it with the lock held."""
        if self._timer is not None or self._idle == math.inf or os.getpid() != self._process:
            return  # A forked child must not close its parent's connections.
        due = self._free[0][0] + self._idle - time.monotonic()
        timer = threading.Timer(max(0.0, due), self._close_idle)
        timer.name, timer.daemon = "jobqueue-idle", True
        with suppress(RuntimeError):  # No thread left: the next returned connection retries.
            timer.start()
            self._timer = timer

    def _close_idle(self) -> None:
        with self._lock:
            self._timer = None
            limit = time.monotonic() - self._idle
            old = [record for used, record in self._free if used <= limit]
            del self._free[: len(old)]
            if self._free and not self._disposed:
                self._close_later()
        self._close(old)
