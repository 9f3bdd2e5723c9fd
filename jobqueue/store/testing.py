"""Support for tests: run the store in a test's transaction, and let time pass."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, func, select, update
from sqlalchemy.exc import OperationalError

from jobqueue.states import LIVE, State
from jobqueue.store.clock import now
from jobqueue.store.database import Store
from jobqueue.store.dialects.base import Parameters
from jobqueue.store.schema import jobs, workers
from jobqueue.store.sql.predicates import in_state
from jobqueue.store.user_transactions import UserTransactions

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")
_LOCKED = (
    "Has the test itself a transaction open? Then run jobs within it: drain(within=connection), or "
    "with jobqueue.within(connection): …"
)
_STEP = 0.001
"""Extra seconds that pass: the resolution of SQLite's clock."""


class BorrowingStore(Store):
    """A store that can run in a test's transaction, which the test then rolls back.

    Meanwhile each of the store's transactions is a savepoint in it, invisible to other connections.
    Like a connection, the store may then be used by one thread at a time.
    """

    def __init__(self, url: str | URL) -> None:
        super().__init__(url, idle=math.inf)  # without the thread that closes idle connections
        self.users = UserTransactions(self, follows=True)
        """For the application's connections, including the test's."""
        self._borrowed: Session | Connection | None = None

    @contextmanager
    def borrowing(self, transaction: "Session | Connection") -> Iterator[None]:
        """Run in this transaction for the block. Raises as `UserTransactions.using`."""
        before = self._borrowed
        with self.users.using(transaction):  # Checks the database before any statement runs.
            pass
        self._borrowed = transaction
        try:
            yield
        finally:
            self._borrowed = before

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """See `Store.write`."""
        if self._borrowed is None:
            try:
                with super().write() as connection:
                    yield connection
            except OperationalError as error:
                if self.backend.single_writer and self.backend.is_transient(error):
                    error.add_note(_LOCKED)
                raise
            return
        with self.users.using(self._borrowed) as connection:
            self.backend.begin(connection)
            with connection.begin_nested():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Store.read`."""
        if self._borrowed is None:
            with super().read() as connection:
                yield connection
            return
        with self.users.using(self._borrowed) as connection:
            yield connection

    def write_lock(self) -> AbstractContextManager[bool]:
        """See `Store.write_lock`: a test's transaction needs no write lock of ours."""
        return super().write_lock() if self._borrowed is None else nullcontext(False)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """See `Store.transact`."""
        if self._borrowed is None:
            return super().transact(work)
        with self.write() as connection:
            return work(connection)

    def execute_autocommit(
        self, statement: str, parameters: Parameters
    ) -> list[tuple[Any, ...]] | None:
        """See `Store.execute_autocommit`: impossible inside a test's transaction."""
        if self._borrowed is not None:
            return None
        return super().execute_autocommit(statement, parameters)


def seconds_to_next(store: Store, besides: Collection[int] = ()) -> float | None:
    """Return the seconds until the next scheduled job is due, negative if overdue, or None."""
    statement = select(func.min(jobs.c.run_at).label("due"), now().label("present")).where(
        in_state(State.SCHEDULED), jobs.c.awaited_key.is_(None), jobs.c.id.not_in(besides)
    )
    with store.read() as connection:
        due, present = connection.execute(statement).one()
    return None if due is None else float((due - present).total_seconds())


def pass_time(store: Store, seconds: float) -> None:
    """Move due times, deadlines and expiries of all live jobs `seconds` (and _STEP) back."""
    passed = timedelta(seconds=seconds + _STEP)

    def work(connection: Connection) -> None:
        instants = (jobs.c.run_at, jobs.c.deadline_at, jobs.c.expires_at)
        rows = connection.execute(select(jobs.c.id, *instants).where(in_state(*LIVE))).all()
        for id_, *given in rows:
            nearer = {
                column.name: None if instant is None else instant - passed
                for column, instant in zip(instants, given, strict=True)
            }
            connection.execute(update(jobs).where(jobs.c.id == id_).values(nearer))

    store.transact(work)


def make_due(store: Store, id_: int) -> None:
    """Make one scheduled job due now."""
    due = update(jobs).where(jobs.c.id == id_, in_state(State.SCHEDULED)).values(run_at=now())
    with store.write() as connection:
        connection.execute(due)


def has_worker(store: Store, *, besides: str) -> bool:
    """Return whether a worker with another name has a lease."""
    others = select(workers.c.id).where(workers.c.name != besides).limit(1)
    with store.read() as connection:
        return connection.execute(others).one_or_none() is not None
