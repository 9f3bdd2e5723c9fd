"""Rows of the schedules table, and the jobs that they make."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, Insert, Row, select, update

from jobqueue.new_jobs import ExtraColumns, NewJob
from jobqueue.schedules.definition import CODE, Definition, ScheduleRecord
from jobqueue.states import LIVE, State
from jobqueue.store.dialects.base import Backend
from jobqueue.store.enqueue import Enqueuer
from jobqueue.store.schema import jobs, schedules

_DEFINITION = [schedules.c[field.name] for field in fields(Definition)]

MakeJob = Callable[[ScheduleRecord], NewJob | None]
"""Returns the job that a schedule enqueues; None if a hook refuses it."""


def record_of(row: Row[Any]) -> ScheduleRecord:
    """Read one row."""
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented mapping of a row.
    definition = Definition(**{column.name: values.pop(column.name) for column in _DEFINITION})
    return ScheduleRecord(definition=definition, **values)


def last_tick(record: ScheduleRecord, present: datetime) -> datetime:
    """Return the instant after which a tick is new, also if the clock was set back."""
    return present if record.nominal_at is None else max(present, record.nominal_at)


def changed(record: ScheduleRecord, definition: Definition, present: datetime) -> dict[str, Any]:
    """Return the columns of a new definition, with its next tick."""
    values: dict[str, Any] = asdict(definition)
    if not definition.runs_like(record.definition):
        values["next_at"] = definition.timing.next_after(last_tick(record, present))
    return values


def live_job(connection: Connection, record: ScheduleRecord) -> int | None:
    """Return the id of the schedule's last job if it has not ended."""
    state = select(jobs.c.state).where(jobs.c.id == record.last_job_id)
    found = connection.execute(state).scalar_one_or_none()
    return record.last_job_id if found is not None and State(found) in LIVE else None


def new_row(
    backend: Backend, name: str, definition: Definition, present: datetime, source: str
) -> Insert:
    """Insert a schedule, unless the name is taken."""
    return backend.insert(schedules).values(
        name=name,
        **asdict(definition),
        source=source,
        declared=definition.to_text() if source == CODE else None,
        next_at=definition.timing.next_after(present),
    )


def make_jobs(
    connection: Connection,
    enqueuer: Enqueuer,
    record: ScheduleRecord,
    runs: Sequence[datetime | None],
    make: MakeJob,
) -> list[int]:
    """Insert a job for each nominal instant (None: for no tick); return the ids of the new ones.

    A job whose unique key is held is not new. Raises QueueFull.
    """
    job = make(record)
    if job is None:
        return []
    extra = job.extra or ExtraColumns()
    wanted = [
        job if run is None else replace(job, extra=extra._replace(scheduled_for=run))
        for run in runs
    ]
    inserted = enqueuer.insert(wanted, connection, wait=False)
    last = {"last_job_id": inserted[-1].id}
    connection.execute(update(schedules).where(schedules.c.name == record.name).values(last))
    return [row.id for row in inserted if row.created]
