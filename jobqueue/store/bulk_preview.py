"""What a bulk verb would change, before it does: a number, and some of the jobs."""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection, func, select, true
from sqlalchemy.sql.util import ClauseAdapter

from jobqueue.records import JobFilter, JobRecord
from jobqueue.states import FINAL, State
from jobqueue.store.job_pages import (
    COUNTED_MAX,
    FILTERED,
    NEWEST_END,
    count_ended,
    ended_in,
    is_counted,
    of_index,
    parts_of,
)
from jobqueue.store.jobs import Jobs
from jobqueue.store.schema import jobs
from jobqueue.store.sql.job_filters import id_of, matches

SCANNED_MAX = 20_000
"""Rows that are looked through before a bulk verb, where no index counts what matches."""
ERRORS_MAX = 5000
"""Jobs of one error that are counted: each is joined with its attempts."""


class Preview(NamedTuple):
    """What a filter finds in a bounded number of rows."""

    number: int
    sample: list[JobRecord]
    whole: bool
    """False if there may be more: not all rows were looked through."""
    left_out: int = 0
    """Named jobs in another state."""


def preview(of: Jobs, wanted: JobFilter, states: Collection[State], sample: int) -> Preview:
    """Count the jobs that match and are in one of some states, and return some of the newest.

    Exact up to COUNTED_MAX where an index counts them; else SCANNED_MAX rows are looked through.
    """
    with of.store.read() as connection:
        of.store.backend.prefer_indexes(connection)
        if wanted.ids is not None or wanted.error is not None:
            found = [_preview_by_id(connection, wanted, states)]
        else:
            each_state = [replace(wanted, state=state) for state in states]
            fit = [each for each in each_state if wanted.state in (None, each.state)]
            found = [_preview_by_state(connection, each, len(fit), sample) for each in fit]
    ids = [id_ for each in found for id_ in each.ids]
    newest = tuple(sorted(ids, reverse=True)[:sample])
    return Preview(
        sum(each.number for each in found),
        list(of.find(JobFilter(ids=newest))) if newest else [],
        all(each.whole for each in found),
        sum(each.left_out for each in found),
    )


class _Found(NamedTuple):
    number: int
    ids: list[int]
    whole: bool
    left_out: int = 0


def _preview_by_id(connection: Connection, wanted: JobFilter, states: Collection[State]) -> _Found:
    """Preview the jobs that are named, or have an error, whatever their state."""
    id_ = id_of(wanted)
    newest = select(id_, jobs.c.state).where(matches(wanted)).order_by(id_.desc())
    rows = connection.execute(newest.limit(ERRORS_MAX + 1)).all()
    ids = [row[0] for row in rows[:ERRORS_MAX] if row.state in states]
    return _Found(len(ids), ids, len(rows) <= ERRORS_MAX, len(rows) - len(ids))


def _preview_by_state(
    connection: Connection, wanted: JobFilter, states: int, sample: int
) -> _Found:
    """Preview jobs of one state: all in its index, or this state's share of SCANNED_MAX."""
    by_index = is_counted(wanted)
    if by_index and wanted.state in FINAL:
        page = ended_in(connection, wanted, None, sample, None)
        counted = count_ended(connection, wanted.state, COUNTED_MAX)
        return _Found(counted.number, page.ids, counted.whole)
    most = COUNTED_MAX if by_index else SCANNED_MAX // states
    total = _Found(0, [], whole=True)
    for part in parts_of(of_index(wanted)):
        newest = select(*([jobs.c.id] if by_index else FILTERED)).where(part)
        if wanted.state in FINAL:
            newest = newest.order_by(*NEWEST_END)
        some = newest.limit(most + 1).subquery()
        fits = true() if by_index else ClauseAdapter(some).traverse(matches(wanted, by_id=False))
        counts = select(func.count(), func.count().filter(fits)).select_from(some)
        scanned, count = connection.execute(counts).one()
        ids = select(some.c.id).where(fits).limit(sample)
        total = _Found(
            total.number + min(count, most),
            total.ids + (list(connection.execute(ids).scalars()) if count else []),
            total.whole and scanned <= most,
        )
    return total
