"""Shield our connections from an application's global hooks on SQLAlchemy and psycopg."""

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap


@cache
def adapters() -> "AdaptersMap":
    """Return psycopg's default loaders and dumpers, without those that an application registered.

    Built in the same way as psycopg builds its own at import.
    """
    from psycopg import dbapi20, postgres
    from psycopg.adapt import AdaptersMap
    from psycopg.types import array

    made = AdaptersMap(types=postgres.types)
    postgres.register_default_adapters(made)
    dbapi20.register_dbapi20_adapters(made)
    array.register_all_arrays(made)
    return made


def undo(engine: Engine) -> None:
    """Roll back a transaction that a hook on all engines has left open on a new connection.

    Runs before the engine's other connect listeners, whose settings need no open transaction.
    """
    event.listen(engine, "connect", _connected, insert=True)


def _connected(driver: Any, _record: object) -> None:
    if driver.info.transaction_status:  # 0 is idle.
        driver.rollback()
