"""What tasks hide of their arguments, written down for those who look without the app."""

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, select, update

from jobqueue.store.database import Store
from jobqueue.store.schema import redactions


def read_redactions(store: Store) -> dict[str, str]:
    """Return the JSON of each task that hides something."""
    with store.read() as connection:
        rows = connection.execute(select(redactions.c.task, redactions.c.hidden))
        return {row.task: row.hidden for row in rows}


def write_redactions(
    store: Store, hidden: Mapping[str, str], union: Callable[[str, str], str]
) -> None:
    """Add the JSON of tasks to what is there; `union` makes one of two."""

    def work(connection: Connection) -> None:
        for task, text in sorted(hidden.items()):
            of_task = redactions.c.task == task
            # Insert first: if another process inserts the row meanwhile, its names are added to.
            connection.execute(store.backend.insert(redactions).values(task=task, hidden=text))
            there = select(redactions.c.hidden).where(of_task).with_for_update()
            both = union(connection.execute(there).scalar() or text, text)
            connection.execute(update(redactions).where(of_task).values(hidden=both))

    store.transact(work)
