"""Ticks: what workers do with schedules.

A tick is one transaction: it moves `next_at` on from the value that it has seen, and inserts the
job. Who moves it makes the job, so that any number of workers make one job for a tick, without a
leader. `next_at` never goes back to a tick that is done, so steps of the clock repeat none.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, null, or_, select, update
from sqlalchemy.exc import DBAPIError

from jobqueue.schedules.definition import CODE, Definition, ScheduleRecord, tick
from jobqueue.store.clock import now, once, present_of
from jobqueue.store.database import Store
from jobqueue.store.enqueue import Enqueuer
from jobqueue.store.schedule_rows import (
    MakeJob,
    changed,
    live_job,
    make_jobs,
    new_row,
    record_of,
)
from jobqueue.store.schema import schedules

CATCH_UP_BATCH = 100
"""Most jobs of one tick with catch_up="all"; the next ones follow in another transaction."""


class Ticked(NamedTuple):
    """What a tick did."""

    name: str
    jobs: list[int]
    """The jobs that it made; none where the last one has not ended, or the ticks were missed."""
    handled: datetime
    """The last nominal instant that is done with."""


class TickFailed(Exception):
    """The tick of one schedule raised its cause; nothing of it was written."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Ticks:
    """The ticks of one database's schedules. Every method is one transaction; workers may race."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._enqueuer = Enqueuer(store)

    def tick(
        self,
        tasks: Collection[str],
        declared: Collection[str],
        make: MakeJob,
        *,
        besides: Collection[str] = (),
        most: int = CATCH_UP_BATCH,
    ) -> Ticked | None:
        """Do the due ticks of one schedule; None if none is due.

        `tasks`: those that the worker knows; schedules of other tasks are left to other workers.
        `declared`: the schedules that its code declares; `besides`: names to leave out.

        Raises TickFailed from QueueFull, from InvalidOption for a row that this host cannot read,
        and from what `make` raises.
        """
        due = (
            select(schedules)
            .where(_eligible(tasks, declared), schedules.c.next_at <= once(now()))
            .where(schedules.c.name.not_in(besides))
            .order_by(schedules.c.next_at, schedules.c.name)
            .limit(1)
            .with_for_update(skip_locked=True)
        )

        def work(connection: Connection) -> Ticked | None:
            row = connection.execute(due).one_or_none()
            if row is None:
                return None
            record = record_of(row)
            try:
                return self._tick(connection, record, make, most)
            except DBAPIError:
                raise
            except Exception as error:
                raise TickFailed(record.name) from error

        return self._store.transact_at_once(work)

    def _tick(
        self, connection: Connection, record: ScheduleRecord, make: MakeJob, most: int
    ) -> Ticked | None:
        definition, seen = record.definition, record.next_at
        assert seen is not None
        present = present_of(connection)
        decided = tick(definition.timing, seen, present, definition.catch_up, most)
        moved = (
            update(schedules)
            .where(schedules.c.name == record.name, schedules.c.next_at == seen)
            .values(next_at=decided.next_at, nominal_at=decided.handled)
        )
        if connection.execute(moved).rowcount != 1:
            return None
        runs = decided.runs
        if definition.overlap == "skip":
            runs = [] if live_job(connection, record) else runs[:1]
        made = make_jobs(connection, self._enqueuer, record, runs, make) if runs else []
        return Ticked(record.name, made, decided.handled)

    def due_in(
        self, tasks: Collection[str], declared: Collection[str], *, besides: Collection[str] = ()
    ) -> float | None:
        """Return the seconds until `tick` has something to do, or None; 0 or less: it has now."""
        due = select(func.min(schedules.c.next_at).label("due"), now().label("present")).where(
            _eligible(tasks, declared), schedules.c.name.not_in(besides)
        )
        with self._store.read() as connection:
            row = connection.execute(due).one()
        return None if row.due is None else float((row.due - row.present).total_seconds())

    def declare(self, declared: Mapping[str, Definition], tasks: Collection[str]) -> None:
        """Write what the code of a worker declares, where that is new.

        A row that an operator has changed keeps the change. Rows of `tasks` that the code does
        not declare any more are marked as orphaned.
        """
        with self._store.read() as connection:
            if not self._news(connection, declared, tasks):
                return  # As nearly always; a read holds nobody up.

        def work(connection: Connection) -> None:
            for statement in self._news(connection, declared, tasks):
                connection.execute(statement)

        self._store.transact(work)

    def _news(
        self, connection: Connection, declared: Mapping[str, Definition], tasks: Collection[str]
    ) -> list[Any]:
        """Return the statements that bring the rows to what the code declares."""
        present = present_of(connection)
        concerned = select(schedules).where(
            or_(schedules.c.source == CODE, schedules.c.name.in_(sorted(declared)))
        )
        found = {row.name: record_of(row) for row in connection.execute(concerned)}
        news: list[Any] = []
        for name, definition in sorted(declared.items()):
            record = found.get(name)
            if record is None:
                news.append(new_row(self._store.backend, name, definition, present, CODE))
                continue
            changes: dict[str, Any] = {}
            if record.orphaned_at is not None:
                changes["orphaned_at"] = null()
            if record.declared != definition.to_text():
                changes["declared"] = definition.to_text()
                if record.source == CODE and not record.differs:
                    changes |= changed(record, definition, present)
            if changes:
                news.append(update(schedules).where(schedules.c.name == name).values(changes))
        gone = [
            name
            for name, record in found.items()
            if name in tasks and name not in declared
            if record.orphaned_at is None
        ]
        if gone:
            orphaned = update(schedules).where(schedules.c.name.in_(gone))
            news.append(orphaned.values(orphaned_at=now()))
        return news


def _eligible(tasks: Collection[str], declared: Collection[str]) -> Any:
    """True for schedules whose ticks a worker does: it knows the task, and declares what code
    declared.
    """
    return and_(
        schedules.c.paused_at.is_(None),
        schedules.c.task.in_(sorted(tasks)),
        or_(schedules.c.source != CODE, schedules.c.name.in_(sorted(declared))),
    )
