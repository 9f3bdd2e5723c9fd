"""Shield our connections from an application's global hooks, and from values Python cannot hold."""

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from jobqueue.store.clock import bound

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
    made.register_loader("timestamptz", _tolerant(made, "timestamptz", _instant))
    made.register_loader("float8", _tolerant(made, "float8", _number))
    return made


Load = Callable[["Buffer"], Any]


def _instant(load: Load) -> Load:
    """Read `infinity`, and years that Python does not have, as a bound.

    psycopg raises, which hides all rows of a result for one. This takes 0.05 µs more per value.
    Checks of seven columns would add 6 µs to each UPDATE of a job (77), and not mend what is there.
    """
    from psycopg import DataError

    def load_instant(data: "Buffer") -> Any:
        try:
            return load(data)
        except DataError:
            return bound(bytes(data).decode())

    return load_instant


def _number(load: Load) -> Load:
    """Read 0 for what is not a finite number, as on SQLite."""

    def load_number(data: "Buffer") -> Any:
        number = load(data)
        return number if math.isfinite(number) else 0.0

    return load_number


def _tolerant(
    made: "AdaptersMap", type_name: str, tolerant: Callable[[Load], Load]
) -> "type[Loader]":
    """Return a loader that calls psycopg's own as `tolerant` does."""
    from psycopg import postgres
    from psycopg.pq import Format

    found = made.get_loader(postgres.types[type_name].oid, Format.TEXT)
    assert found is not None
    own = found

    class TolerantLoader:
        format = Format.TEXT

        def __init__(self, oid: int, context: "AdaptContext | None" = None) -> None:
            # Not a method: that takes four times as long.
            self.load = tolerant(own(oid, context).load)

    return TolerantLoader


def undo(engine: Engine) -> None:
    """Roll back a transaction that a hook on all engines has left open on a new connection.

    Runs before the engine's other connect listeners, whose settings need no open transaction.
    """
    event.listen(engine, "connect", _connected, insert=True)


def _connected(driver: Any, _record: object) -> None:
    if driver.info.transaction_status:  # 0 is idle.
        driver.rollback()
