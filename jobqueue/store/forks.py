"""Around a fork: the child lets go of its parent's connections without closing them.

Closing would end the parent's sessions on Postgres, and on SQLite a connection may not be used, nor
ended in order, in another process than the one that opened it. And no fork while a thread of ours
that nobody knows of is inside a driver: the child would inherit what it has locked there.
"""

import os
import threading
from typing import Protocol
from weakref import WeakSet

from sqlalchemy import Connection, Pool


class Forgetful(Protocol):
    """What holds something that a child may not share."""

    def forget(self) -> None:
        """Let go of it, in the child."""
        ...


_holders: WeakSet[Forgetful] = WeakSet()
_kept: list[Pool | Connection] = []  # For ever: one that is collected closes what it holds.
_guards: WeakSet[threading.Lock] = WeakSet()
_taken: list[threading.Lock] = []

PATIENCE = 1.0  # seconds that a fork waits for each guard


def watch(holder: Forgetful) -> None:
    """Call `holder.forget()` in every child."""
    _holders.add(holder)


def keep(held: Pool | Connection) -> None:
    """Keep a parent's pool, or a connection that is out of it, from being collected."""
    _kept.append(held)


def guard() -> threading.Lock:
    """A lock to hold inside a driver, in a thread that the program did not start: forks wait."""
    lock = threading.Lock()
    _guards.add(lock)
    return lock


def _before() -> None:
    _taken.extend(lock for lock in list(_guards) if lock.acquire(timeout=PATIENCE))


def _after() -> None:
    while _taken:
        _taken.pop().release()


def _in_child() -> None:
    _after()
    for holder in list(_holders):
        holder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
