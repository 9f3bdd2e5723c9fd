"""A user's own transaction: checked to be on our database, and used without being steered."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event, select

from jobqueue.errors import ClaimLost, ConfigurationError, JobCancelled
from jobqueue.records import Claim
from jobqueue.schema import jobs
from jobqueue.store import migrate
from jobqueue.store.counts import Tally
from jobqueue.store.store import Store

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_RINGS = "jobqueue_rings"


class UserTransactions:
    """What we do on connections that are not ours. Never begins, commits or rolls back."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: WeakKeyDictionary[object, bool] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def connection(self, transaction: "Session | Connection") -> Connection:
        """The connection of a session on our database. Raises ConfigurationError for another."""
        connection = (
            transaction if isinstance(transaction, Connection) else transaction.connection()
        )
        with self._lock:
            known = connection.engine in self._known
            made_here = connection.get_transaction() in self._known
        if made_here and migrate.found(connection) is None:
            migrate.upgrade_on(connection)  # A savepoint has taken it back.
        elif not known and not made_here:
            made = self._meet(connection)
            with self._lock:
                # What was made in this transaction may yet be rolled back.
                self._known[connection.get_transaction() if made else connection.engine] = True
        return connection

    def _meet(self, connection: Connection) -> bool:
        """Check, once per engine, that it leads to the database that the workers use.

        A SQLite file without the schema gets it on this very connection: another one would wait
        for the lock that the caller's transaction may hold. True if it did.
        """
        if connection.dialect.name != self._store.backend.name:
            raise ConfigurationError(
                f"the given transaction is on {connection.dialect.name}, the job queue on "
                f"{self._store.backend.name}: one transaction needs one database"
            )
        if migrate.found(connection) is None:
            if not self._store.backend.can_make_on(connection, self._store.url):
                raise ConfigurationError(
                    f"the given transaction's database has no job queue (it is in {self._store!r})"
                )
            migrate.upgrade_on(connection)
            return True
        statement = self._store.statements.instance
        theirs = connection.execute(statement).scalar()
        with self._store.read() as own:
            ours = own.execute(statement).scalar()
        if theirs != ours:
            raise ConfigurationError(
                f"the given transaction is on another database than the job queue ({self._store!r})"
            )
        return False

    def after_commit(self, transaction: "Session | Connection", ring: Callable[[], None]) -> None:
        """Ring once the session has committed. A Connection only tells before: polling serves."""
        if isinstance(transaction, Connection):
            return
        if _RINGS not in transaction.info:
            event.listen(transaction, "after_commit", _committed)
        transaction.info.setdefault(_RINGS, set()).add(ring)

    def finish(
        self, transaction: "Session | Connection", claim: Claim, result: str, *, duration: float
    ) -> None:
        """Record success as part of the transaction; see `JobContext.finish_within`."""
        connection = self.connection(transaction)
        parameters = {
            "in_job": claim.id,
            "in_claimed": claim.fence,
            "in_worker": claim.worker_id,
            "in_result": result,
            "in_why": None,
        }
        done = connection.execute(self._store.statements.finish_within, parameters).one_or_none()
        if done is None:
            mine = select(jobs.c.id).where(
                jobs.c.id == claim.id,
                jobs.c.fence == claim.fence,
                jobs.c.worker_id == claim.worker_id,
            )
            if connection.execute(mine).one_or_none() is not None:
                raise JobCancelled(f"job {claim.id} was cancelled: roll back")
            raise ClaimLost(f"job {claim.id} is no longer this worker's: roll back")
        tally = Tally()
        wait = max(0.0, (claim.started_at - claim.run_at).total_seconds())
        tally.ran(claim.queue, claim.task, duration, wait, 1)
        tally.write(connection, self._store.statements)


def _committed(session: "Session") -> None:
    if session.in_nested_transaction():  # Only a savepoint was released.
        return
    rings = session.info[_RINGS]
    while rings:
        rings.pop()()
