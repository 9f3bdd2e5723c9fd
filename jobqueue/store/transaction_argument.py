"""The transaction that a caller passes, resolved to its session or connection.

The classes are looked up only if the application has imported them: without the ORM or asyncio,
neither is imported.
"""

import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, update
from sqlalchemy.exc import UnboundExecutionError

from jobqueue.errors import InvalidOption
from jobqueue.store.schema import jobs

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Transaction(Protocol):
    """A Session, scoped_session or Connection of SQLAlchemy, or the async form of one.

    Type checkers recognize them by these methods, which an engine or a sessionmaker does not have;
    the classes themselves would need extensions that not every user has installed.
    """

    def begin_nested(self) -> object:
        """Begin a savepoint."""

    def rollback(self) -> object:
        """Roll back."""


class SyncTransaction(Transaction, Protocol):
    """A Session, scoped_session or Connection of SQLAlchemy."""

    def rollback(self) -> None:
        """Roll back."""


class AsyncTransaction(Transaction, Protocol):
    """An AsyncSession, async_scoped_session or AsyncConnection of SQLAlchemy."""

    def rollback(self) -> Awaitable[None]:
        """Roll back."""


ORM = "sqlalchemy.orm"
ASYNC = "sqlalchemy.ext.asyncio"

# An UPDATE, which a session with read replicas sends to the writable server.
_WRITE = update(jobs)


def is_sync(given: object) -> bool:
    """Return whether it is a Session, a scoped_session or a Connection."""
    return isinstance(given, Connection) or _is(given, ORM, "Session", "scoped_session")


def is_async(given: object) -> bool:
    """Return whether it is an AsyncSession, an async_scoped_session or an AsyncConnection."""
    return _is(given, ASYNC, "AsyncSession", "async_scoped_session", "AsyncConnection")


def check(given: object, method: str) -> None:
    """Raise InvalidOption unless `given` is a transaction, of either form."""
    if not (is_sync(given) or is_async(given)):
        raise _refused(given, method, "a Session, a Connection, or the async form of one")


def resolve(given: Any, method: str, instead: str) -> "Session | Connection":
    """Return the Session or Connection; for a scoped_session that of this thread.

    Raises InvalidOption for anything else; `instead` names the function for async ones.
    """
    if is_async(given):
        raise _refused(given, method, f"a Session or Connection; {instead}")
    if not is_sync(given):
        raise _refused(given, method, "a Session or Connection")
    session: Session | Connection = given() if _is(given, ORM, "scoped_session") else given
    return session


def aresolve(given: Any, method: str, instead: str) -> Any:
    """Return the AsyncSession or AsyncConnection. Raises InvalidOption for anything else."""
    if is_sync(given):
        raise _refused(given, method, f"an AsyncSession or AsyncConnection; {instead}")
    if not is_async(given):
        raise _refused(given, method, "an AsyncSession or AsyncConnection")
    return given() if _is(given, ASYNC, "async_scoped_session") else given


def connection_of(transaction: "Session | Connection") -> Connection:
    """Return the connection on which to write the queue's tables.

    Raises InvalidOption for a session whose binds have no engine for them.
    """
    if isinstance(transaction, Connection):
        return transaction
    try:
        return transaction.connection(bind_arguments={"clause": _WRITE})
    except UnboundExecutionError:
        raise InvalidOption(
            "this Session has no bind for the job queue's tables; give "
            "session.connection(bind_arguments={'mapper': …}) with a class of that database",
            field="within",
            value=transaction,
        ) from None


def _is(given: object, module: str, *names: str) -> bool:
    found = sys.modules.get(module)
    return found is not None and isinstance(given, tuple(getattr(found, name) for name in names))


def _refused(given: object, method: str, wanted: str) -> InvalidOption:
    return InvalidOption(
        f"{method}: {type(given).__name__} is not {wanted}", field="within", value=given
    )
