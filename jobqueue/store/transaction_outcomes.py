"""The outcomes of users' transactions in which jobs were enqueued.

Needed where a rollback frees ids for reuse: a handle must not refer to another job with its id.
"""

from typing import Any
from weakref import ref

from sqlalchemy import Connection, Transaction, event


class TransactionOutcome:
    """The outcome of the transaction, or savepoint, in which some jobs were enqueued."""

    def __init__(self, root: Transaction | None) -> None:
        self._root = None if root is None else ref(root)
        self.rolled_back = False
        """True after a rollback."""
        self.inserted: set[int] = set()
        """The ids of the jobs that were enqueued in it."""

    @property
    def is_open(self) -> bool:
        """Return whether the transaction is still open, so that no worker can see its jobs."""
        root = None if self._root is None else self._root()
        return not self.rolled_back and root is not None and root.is_active


class TransactionFollower:
    """Follows the transactions of one connection by its events."""

    def __init__(self, connection: Connection) -> None:
        self._log: list[TransactionOutcome | None] = []
        """In order: the outcomes of this transaction, and None for each open savepoint."""
        event.listen(connection, "savepoint", lambda *_: self._log.append(None))
        event.listen(connection, "release_savepoint", self._released)
        event.listen(connection, "rollback_savepoint", self._returned)
        event.listen(connection, "rollback", self._rolled_back)
        event.listen(connection, "commit", lambda _: self._log.clear())

    def outcome(self, root: Transaction | None) -> TransactionOutcome:
        """Return the outcome for jobs that are enqueued now."""
        last = self._log[-1] if self._log else None
        if last is not None:
            return last
        made = TransactionOutcome(root)
        self._log.append(made)
        return made

    def _released(self, *_: Any) -> None:
        if None in self._log:
            del self._log[self._last_savepoint()]

    def _returned(self, *_: Any) -> None:
        # Savepoints end in reverse order; one that is not in the log is older than the whole log.
        self._undo(self._last_savepoint() if None in self._log else 0)

    def _last_savepoint(self) -> int:
        return len(self._log) - 1 - self._log[::-1].index(None)

    def _rolled_back(self, connection: Connection) -> None:
        if connection.invalidated or _is_begun(connection):
            self._undo(0)
        self._log.clear()

    def _undo(self, start: int) -> None:
        for outcome in self._log[start:]:
            if outcome is not None:
                outcome.rolled_back = True
        del self._log[start:]


def _is_begun(connection: Connection) -> bool:
    """Return False if the driver's transaction has ended already, for example by a text COMMIT."""
    return bool(getattr(connection.connection.driver_connection, "in_transaction", True))
