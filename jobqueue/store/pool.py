"""The pool: a bound on connections, no idle ones, and patience with a server that is full."""

import math
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from jobqueue.loggers import get_logger
from jobqueue.store import fork_safety

log = get_logger("jobqueue.store")

IDLE = 10.0
"""Seconds after which a connection that nobody has used is closed."""
WAIT = 30.0
"""Seconds to wait for a connection, unless somebody says otherwise."""
LOOK = 0.25  # seconds between two looks whether to go on waiting
SILENT = 1.0  # seconds of waiting before it is worth a line
AGAIN = 60.0  # seconds until it is worth another one
UNFAIR = 0.01
"""Seconds for which one who comes later may go first: waking up costs more than its turn."""
RETRY_FIRST = 0.1  # seconds until a server that was full is tried again; then twice as long
RETRY_MAX = 2.0


class Patience:
    """How long to wait for a connection while none is free. Pools may share one; it says so once.

    `gives_up`: asked several times a second; True ends the waiting.
    """

    def __init__(self, seconds: float = WAIT, gives_up: Callable[[], bool] = lambda: False) -> None:
        self._seconds = seconds
        self._gives_up = gives_up
        self._said_at = -math.inf
        self.after_fork_in_child()
        fork_safety.register(self)

    def after_fork_in_child(self) -> None:
        """In a forked child: of those that wait, none is there, nor whoever held the lock."""
        # Reentrant: a signal's handler may want a connection in the midst of this.
        self._lock = threading.RLock()
        self._waiting: dict[object, float] = {}

    def is_over(self, waited: float) -> bool:
        """True once whoever has waited so many seconds is to raise an error."""
        return waited >= self._seconds or self._gives_up()

    def wait(self, who: object, since: float, error: Exception) -> None:
        """Somebody waits, since an instant of `time.monotonic()`: say so if nobody did before."""
        with self._lock:
            is_news = not self._waiting and time.monotonic() - self._said_at > AGAIN
            if not (is_news or self._waiting):
                return  # It was said a moment ago; so was its end.
            self._waiting.setdefault(who, since)
            self._said_at = time.monotonic() if is_news else self._said_at
        if is_news:
            text = str(error).strip().rpartition("\n")[2].rpartition("FATAL:")[2].strip()
            log.warning("the database has no connection free (%s): waiting for one", text[:300])

    def end(self, who: object) -> None:
        """That one waits no more."""
        with self._lock:
            since = self._waiting.pop(who, None)
            if since is None or self._waiting:
                return
        log.info("waits for no connection any more, after %.0f s", time.monotonic() - since)


class Checks(NamedTuple):
    """How a server and its connections fare."""

    is_full: Callable[[Exception], bool]
    """Whether an error says that the server has no connection to give, but may soon."""
    is_lost: Callable[[ConnectionPoolEntry], bool]
    """Whether an idle connection is of no more use."""


class _Waiter:
    """Somebody who wants a connection, since when, and how to wake him; the pool's lock is held."""

    __slots__ = ("condition", "since")

    def __init__(self, lock: "threading.RLock") -> None:
        self.since = time.monotonic()
        self.condition = threading.Condition(lock)


class BoundedPool(Pool):
    """At most `pool_size` connections, the last one that was used first.

    A server that has none free is tried again while there is patience; meanwhile one of ours may
    come back, and serves as well. SQLAlchemy's own pool keeps idle ones for ever, and makes those
    that were lost anew where nobody could wait.
    """

    _sqla_logger_namespace = "sqlalchemy.pool.BoundedPool"  # Its lines are not a worker's.

    def __init__(
        self,
        creator: Any,
        pool_size: int,  # `create_engine` passes on what is not a keyword-only argument.
        idle: float,
        patience: Patience,
        checks: Checks,
        **given: Any,
    ) -> None:
        super().__init__(creator, **given)
        self._size = pool_size
        self._idle = idle
        self._patience = patience
        self._checks = checks
        # Reentrant: a signal's handler, or the collection of garbage, may give or take one back in
        # the midst of this.
        self._lock = threading.RLock()
        self._waiters: dict[_Waiter, None] = {}
        """In the order in which they came."""
        self._closing = fork_safety.lock()
        self._free: list[tuple[float, ConnectionPoolEntry]] = []
        """With the time when each was used, in that order."""
        self._open = 0
        """Connections that are open, or being opened or closed."""
        self._refusal: Exception | None = None
        """What the server said when it had none free, until it had one."""
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
            patience=self._patience,
            reset_on_return=self._reset_on_return,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def dispose(self) -> None:
        """See `Pool.dispose`: those in use are closed when they come back."""
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
        """See `QueuePool.checkedout`: how many are in use."""
        return self._open - len(self._free)

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
                has_place, record = self._place(waiter, LOOK)
                if has_place and (record := self._connected(record)) is not None:
                    return record
                waited, refusal = time.monotonic() - waiter.since, self._refusal
                if self._patience.is_over(waited):
                    raise refusal or self._timeout(waited)
                if refusal is not None and waited > SILENT:
                    self._patience.wait(waiter, waiter.since, refusal)
        finally:
            self._patience.end(waiter)
            with self._lock:
                self._leave(waiter)

    def _timeout(self, waited: float) -> PoolTimeout:
        return PoolTimeout(
            f"all {self._size} connections of this pool were in use for {waited:.0f} s; "
            "pool_size is how many there may be"
        )

    def _place(self, waiter: _Waiter, seconds: float) -> tuple[bool, ConnectionPoolEntry | None]:
        """(True, an idle connection), or (True, None): make one; (False, None): not in time."""
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
        if first is not waiter and present - first.since > UNFAIR:
            return False
        return bool(self._free) or (self._open < self._size and present >= self._retry_at)

    def _leave(self, waiter: _Waiter) -> None:
        """Wait no more; whoever is the first now looks whether there is something for him."""
        if waiter in self._waiters:
            del self._waiters[waiter]
            self._wake()

    def _wake(self) -> None:
        for first in self._waiters:
            first.condition.notify()
            return

    def _connected(self, record: ConnectionPoolEntry | None) -> ConnectionPoolEntry | None:
        """The same, open, or None: the server is full.

        Here, because later SQLAlchemy would make a lost one anew by itself, without patience.
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
        if made and self._refusal is not None:  # An idle one says nothing about the server.
            with self._lock:
                self._refusal, self._refusals, self._retry_at = None, 0, -math.inf
        return record

    def _refused(self, error: Exception) -> None:
        most = min(RETRY_MAX, RETRY_FIRST * 2.0 ** min(self._refusals, 16))
        self._refusal = error
        self._refusals += 1
        # Jitter: a whole fleet may be waiting.
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
            with self._closing:
                for record in records:
                    record.close()
        finally:
            with self._lock:
                self._open -= len(records)
                self._wake()

    def _close_later(self) -> None:
        """Have the first of the idle ones closed when it is time; the lock is held."""
        if self._timer is not None or self._idle == math.inf or os.getpid() != self._process:
            return  # What a forked child gives back is its parent's to close.
        due = self._free[0][0] + self._idle - time.monotonic()
        timer = threading.Timer(max(0.0, due), self._close_idle)
        timer.name, timer.daemon = "jobqueue-idle", True
        with suppress(RuntimeError):  # No thread to be had: the next one that comes back tries.
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
