"""The last jobs of schedules, among the newest jobs: no index has what a schedule has made."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.states import State
from jobqueue.store.database import Store
from jobqueue.store.schema import jobs

NEWEST = 20_000
"""Newest jobs that are looked through."""
RUNS = 10
"""Jobs of a schedule that are returned."""


class Run(NamedTuple):
    """A job that a schedule has made."""

    id: int
    scheduled_for: datetime
    state: State


def last_runs(store: Store, records: Iterable[ScheduleRecord]) -> dict[str, list[Run]]:
    """Return the last jobs of each schedule by its name, the oldest first.

    A job is that of a schedule with its task and its arguments.
    """
    of = jobs.c
    columns = (of.id, of.scheduled_for, of.state, of.task, of.args)
    made: dict[tuple[str, str], list[Run]] = defaultdict(list)
    with store.read() as connection:
        store.backend.prefer_indexes(connection)
        newest = connection.execute(select(func.max(of.id))).scalar_one() or 0
        new = select(*columns).where(of.id > newest - NEWEST, of.scheduled_for.is_not(None))
        for row in connection.execute(new.order_by(of.id)):
            made[row.task, row.args].append(Run(row.id, row.scheduled_for, State(row.state)))
    return {each.name: made[each.definition.task, each.definition.args][-RUNS:] for each in records}
