"""Keeps an application's global hooks on SQLAlchemy and psycopg from what we read and write."""

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap


@cache
def adapters() -> "AdaptersMap":
    """The loaders and dumpers that psycopg comes with, whatever an application has registered.

    They are made as psycopg makes its own when it is imported.
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
    """Roll back what a hook on all engines began on a new connection and left open.

    First of this engine's own: what is set at connect cannot be set within a transaction.
    """
    event.listen(engine, "connect", _connected, insert=True)


def _connected(driver: Any, _record: object) -> None:
    if driver.info.transaction_status:  # 0 is idle.
        driver.rollback()
