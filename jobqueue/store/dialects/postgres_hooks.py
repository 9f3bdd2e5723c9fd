"""Shield our connections from an application's global hooks, and from values Python cannot hold."""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext, Buffer, Loader
    from psycopg.adapt import AdaptersMap


@cache
def adapters() -> "AdaptersMap":
    """Return psycopg's default loaders and dumpers, without those that an application registered.

    Built in the same way as psycopg builds its own at import. What plain SQL may write and Python
    cannot hold is read as something near to it: no row may stop a worker or hide others.
    """
    from psycopg import dbapi20, postgres
    from psycopg.adapt import AdaptersMap
    from psycopg.types import array

    made = AdaptersMap(types=postgres.types)
    postgres.register_default_adapters(made)
    dbapi20.register_dbapi20_adapters(made)
    array.register_all_arrays(made)
    # `clock` reads the text. Once it is read, a result with `infinity` cannot fail as a whole, and
    # 500 claims take 0.15 µs for each of their instants instead of psycopg's 0.25.
    made.register_loader("timestamptz", _loader_of(made, "text"))
    made.register_loader("float8", _finite(_loader_of(made, "float8")))
    return made


def _loader_of(made: "AdaptersMap", type_name: str) -> "type[Loader]":
    from psycopg import postgres
    from psycopg.pq import Format

    found = made.get_loader(postgres.types[type_name].oid, Format.TEXT)
    assert found is not None
    return found


def _finite(own: "type[Loader]") -> "type[Loader]":
    """Return a loader that reads 0 for what is not a finite number, as on SQLite."""

    class FiniteLoader:
        format = own.format

        def __init__(self, oid: int, context: "AdaptContext | None" = None) -> None:
            load_own = own(oid, context).load

            def load(data: "Buffer") -> Any:  # Not a method: that takes four times as long.
                number = load_own(data)
                return number if math.isfinite(number) else 0.0

            self.load = load

    return FiniteLoader


def undo(engine: Engine) -> None:
    """Roll back a transaction that a hook on all engines has left open on a new connection.

    Runs before the engine's other connect listeners, whose settings need no open transaction.
    """
    event.listen(engine, "connect", _connected, insert=True)


def _connected(driver: Any, _record: object) -> None:
    if driver.info.transaction_status:  # 0 is idle.
        driver.rollback()
