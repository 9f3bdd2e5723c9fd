"""Around a fork: the child lets go of its parent's connections without closing them.

Closing would end the parent's sessions on Postgres, and on SQLite a connection may not be used, nor
ended in order, in another process than the one that opened it. And no fork while a thread of ours
that nobody knows of is inside a driver: the child would inherit what it has locked there.
"""

import os
import threading
from typing import Protocol
from weakref import WeakSet

from sqlalchemy import Connection, Pool, PoolProxiedConnection


class ForkAware(Protocol):
    """What holds something that a child may not share."""

    def after_fork_in_child(self) -> None:
        """Let go of it, in the child."""
        ...


_holders: WeakSet[ForkAware] = WeakSet()
# For ever: one that is collected closes what it holds.
_kept: list[Pool | Connection | PoolProxiedConnection] = []
_locks: WeakSet["threading.RLock"] = WeakSet()
_own = threading.local()  # Two threads may fork at once.

FORK_WAIT_MAX = 1.0  # seconds that a fork waits for each guard, and for the transactions under way


class _Transactions:
    """Threads inside of transactions that a fork may not cut in two, and a gate before them.

    SQLite keeps a process's locks on a file in memory, which a child inherits: a write that was
    under way in another thread would never end there, and keep all others out.
    """

    def __init__(self) -> None:
        # Reentrant: a signal's handler may come in between, and enqueue, or fork.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside: dict[int, int] = {}  # by thread, how deep
        self._forking = False
        self._owner: int | None = None
        """The thread that forks; another one that forks too may not have got the gate."""

    def __enter__(self) -> None:
        """Begin one; waits while a fork is under way, unless this thread is in one already."""
        me = threading.get_ident()
        with self._lock:
            if self._forking and me not in self._inside:
                self._changed.wait_for(lambda: not self._forking, 2 * FORK_WAIT_MAX)
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        """End one."""
        me = threading.get_ident()
        with self._lock:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
                if self._forking:
                    self._changed.notify_all()

    def close_gate(self) -> None:
        """Let nobody in, and wait until all others are out, for a bounded time."""
        if self._changed.acquire(timeout=FORK_WAIT_MAX):
            self._forking = True
            me = self._owner = threading.get_ident()
            self._changed.wait_for(lambda: not (self._inside.keys() - {me}), FORK_WAIT_MAX)

    def open_gate(self) -> None:
        """In the parent, after a fork."""
        if self._owner == threading.get_ident():
            self._owner = None
            self._forking = False
            self._changed.notify_all()
            self._changed.release()

    def after_fork_in_child(self) -> None:
        """In the child: of all threads only this one is there, and it may be in a transaction."""
        me = threading.get_ident()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._forking = False
        self._owner = None


transaction = _Transactions()
"""Around a transaction that may not be under way in another thread when a process is forked."""


def register(holder: ForkAware) -> None:
    """Call `holder.after_fork_in_child()` in every child."""
    _holders.add(holder)


def retain(held: Pool | Connection | PoolProxiedConnection) -> None:
    """Keep a parent's pool, or a connection that is out of it, from being collected."""
    _kept.append(held)


def lock() -> "threading.RLock":
    """A lock to hold inside a driver, in a thread that the program did not start: forks wait.

    It is reentrant.
    """
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def _before() -> None:
    _own.taken = [lock for lock in list(_locks) if lock.acquire(timeout=FORK_WAIT_MAX)]
    transaction.close_gate()


def _after() -> None:
    transaction.open_gate()
    _release()


def _release() -> None:
    for lock in _own.__dict__.pop("taken", ()):
        lock.release()


def _in_child() -> None:
    transaction.after_fork_in_child()
    _release()
    for holder in list(_holders):
        holder.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
