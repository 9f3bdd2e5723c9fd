"""After a fork: the child lets go of its parent's connections without closing them.

Closing would end the parent's sessions on Postgres, and on SQLite a connection may not be used, nor
ended in order, in another process than the one that opened it.
"""

import os
from typing import Protocol
from weakref import WeakSet

from sqlalchemy import Pool


class Forgetful(Protocol):
    """What holds something that a child may not share."""

    def forget(self) -> None:
        """Let go of it, in the child."""
        ...


_holders: WeakSet[Forgetful] = WeakSet()
_kept: list[Pool] = []  # For ever: a pool that is collected closes its connections.


def watch(holder: Forgetful) -> None:
    """Call `holder.forget()` in every child."""
    _holders.add(holder)


def keep(pool: Pool) -> None:
    """Keep a parent's pool from being collected."""
    _kept.append(pool)


def _in_child() -> None:
    for holder in list(_holders):
        holder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
