"""What tasks hide of their arguments, written down for those who look without the app."""

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select, update

from jobqueue.store.database import Store
from jobqueue.store.schema import redactions


def read_redactions(store: Store) -> dict[str, str]:
    """Return the JSON of each task that hides something."""
    with store.read() as connection:
        rows = connection.execute(select(redactions.c.task, redactions.c.hidden))
        return {row.task: row.hidden for row in rows}


def write_redactions(store: Store, changes: Mapping[str, str | None]) -> None:
    """Write the JSON of tasks; None for one that hides nothing any more."""

    def work(connection: Connection) -> None:
        for task, hidden in sorted(changes.items()):
            of_task = redactions.c.task == task
            if hidden is None:
                connection.execute(delete(redactions).where(of_task))
                continue
            # Insert first: if another process inserts the row meanwhile, the update finds it.
            connection.execute(store.backend.insert(redactions).values(task=task, hidden=hidden))
            connection.execute(update(redactions).where(of_task).values(hidden=hidden))

    store.transact(work)
