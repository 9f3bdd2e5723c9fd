"""Pauses of queues, tasks and tags: workers start no job that has one."""

from typing import Any

from sqlalchemy import Connection, Executable, delete, null, select, update

from jobqueue.store.audit import Action, action_of, transact_audited
from jobqueue.store.clock import now
from jobqueue.store.database import Store
from jobqueue.store.lane_rows import LaneRows
from jobqueue.store.schema import PauseKind, pauses, queues

LOCK_WAIT = 10.0  # seconds for which an operator's action waits for a lock on the table of lanes


class Pauses:
    """What is paused in the whole fleet, from the next claim on. Thread-safe.

    What an `operator` does is written to the audit, and a pause names who paused.
    """

    def __init__(self, store: Store, operator: str | None = None) -> None:
        self._store = store
        self._operator = operator

    def pause(self, kind: PauseKind, name: str) -> bool:
        """Pause a queue, task or tag, also an unknown one; return False if it was already."""
        self._store.require_schema(beside_others=False)
        action = action_of(self._operator, "pause", **{kind.value: name})
        insert = self._store.backend.insert
        if kind is PauseKind.QUEUE:
            # Insert first: if another process inserts the row meanwhile, the update finds it.
            new = insert(queues).values(name=name, paused_at=now()).returning(queues.c.name)
            running = update(queues).where(queues.c.name == name, queues.c.paused_at.is_(None))
            again = running.values(paused_at=now()).returning(queues.c.name)
            return self._change(action, new, again)
        by = None if action is None else action.who
        row = insert(pauses).values(kind=kind, name=name, paused_by=by)
        return self._change(action, row.returning(pauses.c.name))

    def resume(self, kind: PauseKind, name: str) -> bool:
        """Let its jobs start again; return False if it was not paused."""
        action = action_of(self._operator, "resume", **{kind.value: name})
        if kind is PauseKind.QUEUE:
            paused = update(queues).where(queues.c.name == name, queues.c.paused_at.is_not(None))
            return self._change(action, paused.values(paused_at=null()).returning(queues.c.name))
        lanes = LaneRows(self._store, lock_wait=LOCK_WAIT)
        old = delete(pauses).where(pauses.c.kind == kind, pauses.c.name == name)

        def work(connection: Connection) -> bool:
            if connection.execute(old.returning(pauses.c.name)).first() is None:
                return False
            lanes.unpark_full(connection)  # Fail before the commit if their table is locked.
            return True

        if not transact_audited(self._store, work, action, int):
            return False
        lanes.unpark_all()
        lanes.sweep(every=None)  # Add the lanes of keys of which all was paused.
        return True

    def _change(self, action: Action | None, *statements: Executable) -> bool:
        """Return whether one of the statements has changed a row; those behind it are not run."""

        def work(connection: Connection) -> bool:
            return any(connection.execute(each).first() is not None for each in statements)

        return transact_audited(self._store, work, action, int)

    def all(self) -> list[dict[str, Any]]:
        """Return the paused tasks and tags as JSON values: kind, name, since when and by whom."""
        with self._store.read() as connection:
            rows = connection.execute(select(pauses).order_by(*pauses.primary_key)).mappings()
            return [{**row, "paused_at": row["paused_at"].isoformat()} for row in rows]
