"""What operators do with schedules: list, add, change, pause, resume, reset, remove and run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, delete, null, select, update

from jobqueue import options
from jobqueue.errors import ScheduleNotFound, invalid
from jobqueue.records import names_in
from jobqueue.schedules.definition import CODE, OPERATOR, Definition, ScheduleRecord
from jobqueue.store.audit import Action, action_of, transact_audited
from jobqueue.store.clock import now, present_of
from jobqueue.store.database import Store
from jobqueue.store.enqueue import Enqueuer
from jobqueue.store.schedule_rows import (
    MakeJob,
    changed,
    last_tick,
    live_job,
    make_jobs,
    new_row,
    record_of,
)
from jobqueue.store.schema import schedules, workers
from jobqueue.store.sql.predicates import IS_ALIVE, in_force


class ScheduleTable:
    """The schedules of one database. Every method is one transaction.

    What an `operator` does is written to the audit in it, if something has changed.
    """

    def __init__(self, store: Store, operator: str | None = None) -> None:
        self._store = store
        self._operator = operator
        self._enqueuer = Enqueuer(store)

    def find(self, name: str | None = None) -> list[ScheduleRecord]:
        """Return the schedules, or the one of that name, by name."""
        wanted = select(schedules).order_by(schedules.c.name)
        if name is not None:
            wanted = wanted.where(schedules.c.name == name)
        alive = select(workers.c.tasks).where(IS_ALIVE)
        with self._store.read() as connection:
            known = {task for text in connection.scalars(alive) for task in names_in(text)}
            found = [record_of(row) for row in connection.execute(wanted)]
        return [
            dataclasses.replace(
                each, orphaned=each.orphaned_at is not None or each.definition.task not in known
            )
            for each in found
        ]

    def add(self, name: str, definition: Definition, *, replace: bool = False) -> None:
        """Add a schedule; one of the same name has to be equal, or is changed with `replace`.

        Raises InvalidOption if the name is taken.
        """
        self._store.require_schema()
        action = self._action("add", name)

        def work(connection: Connection) -> bool:
            present = present_of(connection)
            inserted = new_row(self._store.backend, name, definition, present, OPERATOR)
            if connection.execute(inserted.returning(schedules.c.name)).first() is not None:
                return True
            there = self._locked(connection, name)
            if there.definition == definition:
                return False
            if not replace:
                raise invalid(
                    "name",
                    f"there is a schedule {name!r} already, for task "
                    f"{there.definition.task} ({there.definition.describe()}); "
                    "to change it, add it with replace (--replace)",
                    name,
                )
            self._change(connection, there, changed(there, definition, present), action)
            return True

        transact_audited(self._store, work, action, int)

    def pause(self, name: str, by: str) -> bool:
        """Make no more jobs; return False if it is paused already. Raises InvalidOption."""

        def work(connection: Connection) -> bool:
            there = self._locked(connection, name)
            if there.paused_at is None:
                self._change(connection, there, {"paused_at": now(), "paused_by": by})
            return there.paused_at is None

        return transact_audited(self._store, work, self._action("pause", name), int)

    def resume(self, name: str) -> bool:
        """Make jobs again, none for the time of the pause; False if it was not paused."""

        def work(connection: Connection) -> bool:
            there = self._locked(connection, name)
            if there.paused_at is not None:
                next_at = there.definition.timing.next_after(
                    last_tick(there, present_of(connection))
                )
                again = {"paused_at": null(), "paused_by": null(), "next_at": next_at}
                self._change(connection, there, again)
            return there.paused_at is not None

        return transact_audited(self._store, work, self._action("resume", name), int)

    def reset(self, name: str) -> bool:
        """Undo what operators changed of a declared schedule; return False if nothing differed.

        A pause stays. Raises InvalidOption if the code declares nothing.
        """
        action = self._action("reset", name)

        def work(connection: Connection) -> bool:
            there = self._locked(connection, name)
            if there.declared is None:
                raise invalid(
                    "name", f"no code declares the schedule {name!r}: it cannot be reset", name
                )
            if not there.differs and there.source == CODE:
                return False
            declared = Definition.from_text(there.declared)
            changes = changed(there, declared, present_of(connection))
            self._change(connection, there, changes | {"source": CODE}, action)
            return True

        return transact_audited(self._store, work, action, int)

    def restore(
        self, name: str, columns: Mapping[str, Any], action: Action, *, seen: Mapping[str, Any]
    ) -> bool:
        """Give a schedule earlier columns while it is as `seen`; return False if it is not.

        Both are those of `Action.before`.
        """
        definition = Definition(**{each.name: columns[each.name] for each in fields(Definition)})

        def work(connection: Connection) -> bool:
            there = self._locked(connection, name)
            values = changed(there, definition, present_of(connection))
            return self._change(connection, there, values | dict(columns), action, seen)

        return transact_audited(self._store, work, action, int)

    def remove(self, name: str) -> ScheduleRecord:
        """Delete a schedule and return it; its jobs stay. Raises InvalidOption."""

        def work(connection: Connection) -> ScheduleRecord:
            there = self._locked(connection, name)
            connection.execute(delete(schedules).where(schedules.c.name == name))
            return there

        action = self._action("remove", name)
        return transact_audited(self._store, work, action, lambda _: 1)

    def run(self, name: str, make: MakeJob) -> tuple[int, bool]:
        """Enqueue a schedule's job now; return its id, and whether it is a new one.

        With overlap="skip" it is the last one, if that has not ended. The ticks stay as they are.
        Raises InvalidOption and QueueFull.
        """

        def work(connection: Connection) -> tuple[int, bool]:
            there = self._locked(connection, name)
            live = live_job(connection, there) if there.definition.overlap == "skip" else None
            if live is not None:
                return live, False
            made = make_jobs(connection, self._enqueuer, there, [None], make)
            if made:
                return made[0], True
            last = select(schedules.c.last_job_id).where(schedules.c.name == name)
            return int(connection.execute(last).scalar_one()), False  # It holds the unique key.

        action = self._action("run", name)
        return transact_audited(self._store, work, action, lambda made: int(made[1]))

    def _action(self, verb: str, name: str) -> Action | None:
        return action_of(self._operator, verb, schedule=name)

    def _locked(self, connection: Connection, name: str) -> ScheduleRecord:
        """Return the row, which stays as it is until the transaction ends. Raises InvalidOption."""
        wanted = select(schedules).where(schedules.c.name == options.name(name, "name"))
        row = connection.execute(wanted.with_for_update()).one_or_none()
        if row is None:
            raise not_found(name)
        return record_of(row)

    def _change(
        self,
        connection: Connection,
        there: ScheduleRecord,
        values: Mapping[str, Any],
        action: Action | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> bool:
        """Change a locked row, if it is as `seen`; return whether it was.

        An `action` is given where its definition changes, and notes what that was.
        """
        row = update(schedules).where(
            schedules.c.name == there.name, *in_force(schedules, seen or {})
        )
        done = connection.execute(row.values(**values).returning(schedules.c.name)).first()
        if action is not None:
            was = asdict(there.definition) | {"source": there.source}
            became = {name: values.get(name, old) for name, old in was.items()}
            action.before = {"was": was, "became": became}
        return done is not None


def not_found(name: str) -> ScheduleNotFound:
    """Return the error for a name that no schedule has."""
    return ScheduleNotFound(
        f"name: there is no schedule {name!r}; jobqueue schedules lists them",
        field="name",
        value=name,
    )
