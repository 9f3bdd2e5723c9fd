"""Fork safety: a forked child drops its parent's connections without closing them.

Closing would end the parent's sessions on Postgres; on SQLite a connection must be neither used nor
closed in another process than the one that opened it. os.fork() waits until our background threads
have left the database driver, so that the child inherits no locked driver state.
"""

import threading
from typing import Protocol
from weakref import WeakSet

from sqlalchemy import Connection, Pool, PoolProxiedConnection

from jobqueue import fork_guard


class ForkAware(Protocol):
    """Holds something that a forked child must not share."""

    def after_fork_in_child(self) -> None:
        """Drop it; called in the child."""


_holders: WeakSet[ForkAware] = WeakSet()
# Never emptied: a pool or connection that is garbage collected closes its sockets or files.
_kept: list[Pool | Connection | PoolProxiedConnection] = []

FORK_WAIT_MAX = 1.0  # seconds that a fork waits for other threads to leave the gate


class _Gate:
    """Counts threads that a fork has to wait for, and lets none enter during the fork.

    SQLite keeps a process's file locks in memory, which a child inherits: another thread's open
    write would never end in the child, and block every other writer. A background thread inside a
    driver holds locks of the driver.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may interrupt this code, and enqueue or fork.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside: dict[int, int] = {}  # thread: how often it has entered
        self._forking = 0  # the thread that forks, or 0
        self._without: dict[int, int] = {}
        """Threads that fork without the gate, which another fork has held for too long."""

    def __enter__(self) -> None:
        """Enter; wait for a running fork, unless this thread is inside already."""
        # Without the lock, which costs a single enqueue 3 %: each thread writes its own entry, and
        # looks for a fork after it, while a fork says so before it looks at the entries.
        me = threading.get_ident()
        depth = self._inside.get(me, 0)
        self._inside[me] = depth + 1
        if self._forking and not depth:
            self._enter_after_fork(me)

    def _enter_after_fork(self, me: int) -> None:
        del self._inside[me]
        with self._lock:
            self._changed.notify_all()  # The fork may have waited for this thread.
            self._changed.wait_for(lambda: not self._forking, 2 * FORK_WAIT_MAX)
            self._inside[me] = 1

    def __exit__(self, *_: object) -> None:
        """Leave."""
        me = threading.get_ident()
        depth = self._inside[me] - 1
        if depth:
            self._inside[me] = depth
            return
        del self._inside[me]
        if self._forking:
            with self._lock:
                self._changed.notify_all()

    def close(self) -> None:
        """Admit no thread, and wait up to FORK_WAIT_MAX until all other threads have left.

        A fork that comes during another one waits for it as long, and then proceeds without.
        """
        me = threading.get_ident()
        if self._changed.acquire(timeout=FORK_WAIT_MAX):
            free = False
            try:
                # The other fork may be waiting, which lets go of the lock.
                free = self._changed.wait_for(lambda: not self._forking, FORK_WAIT_MAX)
            finally:
                if not free:
                    self._changed.release()
            if free:
                self._forking = me
                self._changed.wait_for(lambda: not (self._inside.keys() - {me}), FORK_WAIT_MAX)
                return
        self._without[me] = self._without.get(me, 0) + 1

    def open(self) -> None:
        """Admit threads again if this one has closed it; called in the parent after the fork."""
        me = threading.get_ident()
        if me in self._without:
            self._without[me] -= 1
            if not self._without[me]:
                del self._without[me]
        elif self._forking == me:
            self._changed.notify_all()
            self._forking = 0
            self._changed.release()

    def after_fork_in_child(self) -> None:
        """Keep only the forking thread, which may be inside; called in the child."""
        me = threading.get_ident()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._forking = 0
        self._without = {}


gate = _Gate()
"""The context of each transaction on SQLite, and of each background thread inside a driver."""


def register(holder: ForkAware) -> None:
    """Call `holder.after_fork_in_child()` in every child."""
    _holders.add(holder)


def retain(held: Pool | Connection | PoolProxiedConnection) -> None:
    """Keep a parent's pool, or a connection that left its pool, from garbage collection."""
    _kept.append(held)


def _in_child() -> None:
    gate.after_fork_in_child()
    for holder in list(_holders):
        holder.after_fork_in_child()


fork_guard.around(fork_guard.Hooks(gate.close, gate.open, _in_child))
