"""A user's transaction: checked to be on the queue's database, never begun, committed or ended."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Engine, Transaction, event, select
from sqlalchemy.exc import ProgrammingError

from jobqueue.errors import ClaimLost, ConfigurationError, InvalidOption, JobCancelled
from jobqueue.new_jobs import Inserted
from jobqueue.records import Claim
from jobqueue.states import State
from jobqueue.store import migrate, transaction_argument
from jobqueue.store.claims import parameters_of
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import Store
from jobqueue.store.dialects.base import Identity
from jobqueue.store.schema import jobs, meta
from jobqueue.store.sql.predicates import OF_CLAIM
from jobqueue.store.sql.rows import last_progress
from jobqueue.store.transaction_outcomes import TransactionFollower, TransactionOutcome

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_NOTIFICATIONS = "jobqueue_rings"
_TRANSLATION = "schema_translate_map"


class UserTransactions:
    """Statements on a user's connections. Never begins, commits or rolls back."""

    def __init__(self, store: Store, *, follows: bool = False) -> None:
        self._store = store
        self._follows = follows or store.backend.reuses_ids
        """Whether handles follow rollbacks, which is needed where ids of lost rows are reused."""
        self._own: Identity | None = None
        self._engines: WeakSet[Engine] = WeakSet()
        """Engines on which the queue's tables were found."""
        self._checked: WeakSet[Transaction] = WeakSet()
        self._made: WeakSet[Transaction] = WeakSet()
        """Transactions in which the schema was created: they may still roll back."""
        self._followers: WeakKeyDictionary[Connection, TransactionFollower] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @contextmanager
    def using(self, transaction: "Session | Connection") -> Iterator[Connection]:
        """Give the connection of a session, for statements on our tables in the block.

        They reach this queue's tables with any search_path or schema_translate_map of the caller.
        Raises ConfigurationError on another database, or one without a job queue; InvalidOption in
        autocommit.
        """
        connection = transaction_argument.connection_of(transaction)
        self._check(connection)
        with _in_schema(connection, self._own):
            yield connection

    def _check(self, connection: Connection) -> None:
        """Check, once per transaction, that it sees the tables that the workers use."""
        current = connection.get_transaction()
        with self._lock:
            checked, made = current in self._checked, current in self._made
        if made and migrate.found(connection) is None:
            migrate.upgrade_on(connection)  # Its savepoint was rolled back.
        if made or checked:
            return
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            raise _autocommit()
        if connection.dialect.name != self._store.backend.name:
            raise ConfigurationError(
                f"the given transaction is on {connection.dialect.name}, the job queue on "
                f"{self._store.backend.name}: one transaction needs one database"
            )
        made = self._meet(connection)
        current = connection.get_transaction()
        if current is not None:
            with self._lock:
                (self._made if made else self._checked).add(current)

    def _meet(self, connection: Connection) -> bool:
        """Check which database a transaction is on; return True if it has created the schema.

        A SQLite file without the schema gets it on the same connection: another one would wait for
        the lock that the caller's transaction may hold.
        """
        backend, engine = self._store.backend, connection.engine
        with self._lock:
            known = engine in self._engines
        if not known and backend.single_writer and migrate.found(connection) is None:
            if backend.is_autocommit(connection):
                raise _autocommit()
            if not backend.can_create_schema_on(connection, self._store.url):
                raise self._none()
            self._store.require_own(connection)
            migrate.upgrade_on(connection)
            return True
        own = self._own or self._identify()
        with _in_schema(connection, own):
            if (backend.single_writer or not known) and not connection.dialect.has_table(
                connection, meta.name, schema=own.schema
            ):
                raise self._none()  # Checked, since a failed SELECT would end the transaction.
            try:
                theirs = backend.identity(connection)
            except ProgrammingError as error:  # The table was dropped, or is not readable.
                raise ConfigurationError(
                    f"the given transaction cannot read the tables of {self._store}: "
                    f"{str(error.orig).splitlines()[0]}"
                ) from error
        if theirs != own and theirs != self._identify():  # Our database may have been recreated.
            raise ConfigurationError(
                f"the given transaction is on another database than the job queue ({self._store})"
            )
        if backend.is_autocommit(connection):
            raise _autocommit()
        with self._lock:
            self._engines.add(engine)
        return False

    def _identify(self) -> Identity:
        with self._store.read() as own:
            found = self._store.backend.identity(own)
        if found is None:
            raise ConfigurationError(f"{self._store} has lost its row in {meta.name}")
        self._own = found
        return found

    def _none(self) -> ConfigurationError:
        return ConfigurationError(
            f"the given transaction's database has no job queue (it is in {self._store})"
        )

    def outcome(self, connection: Connection, inserted: Iterable[Inserted]) -> TransactionOutcome:
        """Return what tells whether the jobs just enqueued in this transaction are rolled back."""
        root = connection.get_transaction()
        if not self._follows:
            return TransactionOutcome(root)
        with self._lock:
            follower = self._followers.get(connection)
            if follower is None:
                follower = self._followers[connection] = TransactionFollower(connection)
        outcome = follower.outcome(root)
        outcome.inserted.update(row.id for row in inserted if row.created)
        return outcome

    def after_commit(self, transaction: "Session | Connection", notify: Callable[[], None]) -> None:
        """Call `notify` after the session's commit.

        A Connection has an event before its commit only: workers then find the jobs by polling.
        """
        if isinstance(transaction, Connection):
            return
        if _NOTIFICATIONS not in transaction.info:
            event.listen(transaction, "after_commit", _committed)
        transaction.info.setdefault(_NOTIFICATIONS, set()).add(notify)

    def finish(
        self,
        transaction: "Session | Connection",
        claim: Claim,
        result: str,
        said: tuple[float | None, str | None] | None = None,
    ) -> None:
        """Record success as part of the transaction; see `JobContext.finish_within`.

        `said` is the job's last progress: a fraction and a message.
        """
        with self.using(transaction) as connection:
            self._finish(connection, claim, result)
            if said is not None:
                last = last_progress(self._store.backend, [(claim.id, claim.fence, *said)])
                connection.execute(self._store.statements.save_progress, last)

    def _finish(self, connection: Connection, claim: Claim, result: str) -> None:
        parameters = parameters_of(claim) | {"in_result": result}
        done = connection.execute(self._store.statements.finish_within, parameters).one_or_none()
        if done is None:
            mine = select(jobs.c.id).where(*OF_CLAIM)
            if connection.execute(mine, parameters_of(claim)).one_or_none() is not None:
                raise JobCancelled(f"job {claim.id} was cancelled: roll back")
            raise ClaimLost(f"job {claim.id} is no longer this worker's: roll back")
        counts = TransactionCounts()
        # The worker counts the duration later, since the user's commit is part of it.
        counts.ended(claim.queue, claim.task, State.SUCCEEDED)
        counts.write(connection, self._store)


@contextmanager
def _in_schema(connection: Connection, identity: Identity | None) -> Iterator[None]:
    """Map our tables to that queue's schema for the block; then restore the caller's map.

    Per connection, not per statement, so that no statement can miss it.
    """
    schema = None if identity is None else identity.schema
    before = connection.get_execution_options().get(_TRANSLATION)
    ours = None if schema is None else {None: schema}
    if before == ours:
        yield
        return
    connection.execution_options(**{_TRANSLATION: ours})
    try:
        yield
    finally:
        connection.execution_options(**{_TRANSLATION: before})


def _autocommit() -> InvalidOption:
    return InvalidOption(
        "this transaction is in AUTOCOMMIT, so each statement would be committed by "
        "itself and a rollback would take nothing back; give a session or connection without it",
        field="within",
    )


def _committed(session: "Session") -> None:
    if session.in_nested_transaction():  # Only a savepoint was released.
        return
    notifications = session.info[_NOTIFICATIONS]
    while notifications:
        notifications.pop()()
