"""What tasks hide of their arguments, stored for commands that import no app."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Annotated

import msgspec
from sqlalchemy import Connection, select, update

from jobqueue.store.database import Store
from jobqueue.store.schema import redactions

Place = Annotated[int, msgspec.Meta(ge=0)]
Parts = tuple[list[str], list[Place], Place | None]
_PARTS: msgspec.json.Decoder[Parts] = msgspec.json.Decoder(Parts)


def parts_of(text: str) -> Parts | None:
    """Read the JSON of a row: names, places, and the first of *args; None if SQL has broken it."""
    try:
        return _PARTS.decode(text)
    except (ValueError, TypeError, RecursionError):
        return None


def read_redactions(store: Store, connection: Connection | None = None) -> dict[str, str]:
    """Return the JSON of each task that hides something, as the connection sees it if given.

    Plain SQL may have written anything else there: see `parts_of`.
    """
    with store.read() if connection is None else nullcontext(connection) as asked:
        rows = asked.execute(select(redactions.c.task, redactions.c.hidden))
        return {row.task: row.hidden for row in rows}


def write_redactions(
    store: Store,
    hidden: Mapping[str, str],
    union: Callable[[str, str], str],
    connection: Connection | None = None,
) -> None:
    """Add the JSON of tasks to what is there; `union` makes one of two.

    In the transaction of the connection, if one is given.
    """

    def work(connection: Connection) -> None:
        for task, text in sorted(hidden.items()):
            of_task = redactions.c.task == task
            # Insert first: if another process inserts the row meanwhile, its names are added to.
            new = store.backend.insert(redactions).values(task=task, hidden=text)
            connection.execute(new)
            there = select(redactions.c.hidden).where(of_task).with_for_update()
            row = connection.execute(there).one_or_none()
            if row is None:  # Another session has deleted the row that kept ours out.
                connection.execute(new)
                row = connection.execute(there).one()
            both = union(row.hidden, text)
            connection.execute(update(redactions).where(of_task).values(hidden=both))

    if connection is None:
        store.transact(work)
    else:
        work(connection)
