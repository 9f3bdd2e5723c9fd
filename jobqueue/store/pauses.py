"""Pauses of tasks and tags: workers start no job that has one. Queues have switches of theirs."""

from typing import Any

from sqlalchemy import Connection, delete, select

from jobqueue.store.audit import Action, transact_audited
from jobqueue.store.database import Store
from jobqueue.store.lane_rows import LaneRows
from jobqueue.store.schema import PauseKind, pauses

LOCK_WAIT = 10.0  # seconds for which an operator's action waits for a lock on the table of lanes


class Pauses:
    """The tasks and tags that are paused, in the whole fleet, from the next claim on. Thread-safe.

    An operator's `action` is written to the audit, and names who paused.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def pause(self, kind: PauseKind, name: str, action: Action | None = None) -> bool:
        """Pause a task or a tag, also an unknown one; return False if it was paused already."""
        self._store.require_schema(beside_others=False)
        by = None if action is None else action.who
        new = self._store.backend.insert(pauses).values(kind=kind, name=name, paused_by=by)

        def work(connection: Connection) -> bool:
            return connection.execute(new.returning(pauses.c.name)).first() is not None

        return transact_audited(self._store.transact, work, action, int)

    def resume(self, kind: PauseKind, name: str, action: Action | None = None) -> bool:
        """Let its jobs start again; return False if it was not paused."""
        lanes = LaneRows(self._store, lock_wait=LOCK_WAIT)
        old = delete(pauses).where(pauses.c.kind == kind, pauses.c.name == name)

        def work(connection: Connection) -> bool:
            if connection.execute(old.returning(pauses.c.name)).first() is None:
                return False
            lanes.unpark_full(connection)  # Fail before the commit if their table is locked.
            return True

        if not transact_audited(self._store.transact, work, action, int):
            return False
        lanes.unpark_all()
        lanes.sweep(every=None)  # Add the lanes of keys of which all was paused.
        return True

    def all(self) -> list[dict[str, Any]]:
        """Return what is paused as JSON values: kind, name, since when and by whom."""
        with self._store.read() as connection:
            rows = connection.execute(select(pauses).order_by(*pauses.primary_key)).mappings()
            return [{**row, "paused_at": row["paused_at"].isoformat()} for row in rows]
