"""Pages of jobs, each from an index in milliseconds for any number of jobs, and bounded counts.

A page begins after the place of the last row, never at an offset. What no index serves is looked
for in a bounded part of the rows, and the page says which.
"""

from datetime import datetime
from time import monotonic
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Subquery,
    Text,
    and_,
    bindparam,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.sql.util import ClauseAdapter

from jobqueue import options
from jobqueue.errors import invalid
from jobqueue.records import JobFilter, JobRecord
from jobqueue.states import FINAL, State
from jobqueue.store.clock import INSTANT
from jobqueue.store.jobs import Jobs
from jobqueue.store.schema import jobs
from jobqueue.store.sql.job_filters import id_of, matches
from jobqueue.store.sql.predicates import AVAILABLE, HOLDS_KEY, in_state

PAGE = 50
WINDOW = 100_000
"""Rows that a page looks through where no index serves its filter."""
COUNTED_MAX = 100_000
"""A count is exact up to this."""
STEP = 5000
LOOK_TIME = 0.04
"""Seconds after which a page looks no further: where its rows are far apart, reading them takes
long."""
FEW = 5000
"""Waiting and running jobs up to this number are found by the index of their state."""
FILTERED = [jobs.c[name] for name in ("id", "state", "task", "queue", "tags", "created_at")]
"""The columns that the filter of a live state may ask for."""
_IS_THERE = jobs.c.finished_at.is_not(None)
_ORDERED = (jobs.c.finished_at, jobs.c.id)
NEWEST_END = (jobs.c.finished_at.desc(), jobs.c.id.desc())


class JobPage(NamedTuple):
    """Some jobs, the newest first; of a final state, those first that ended last."""

    jobs: list[JobRecord]
    after: str | None
    """The place after which the next page begins; None at the end."""
    window: bool
    """True if the page ends because it has looked through WINDOW rows."""


class Count(NamedTuple):
    """How many jobs there are."""

    number: int
    whole: bool
    """False if there are more."""


class _Rows(NamedTuple):
    """The ids of a page, and the place after which to look further."""

    ids: list[int]
    after: str | None
    window: bool = False


class JobPages:
    """Reads pages of jobs."""

    def __init__(self, of: Jobs) -> None:
        self._jobs = of
        self.store = of.store

    def page(self, wanted: JobFilter, after: str | None = None, size: int = PAGE) -> JobPage:
        """Return the jobs after a place. Raises InvalidOption for a place that is not one."""
        with self.store.read() as connection:
            self.store.backend.prefer_indexes(connection)
            if wanted.error is not None:
                rows = _by_error(connection, wanted, after, size)
            elif wanted.state in FINAL and wanted.ids is None:
                rows = _of_ended(connection, wanted, after, size)
            else:
                rows = _by_id(connection, wanted, after, size)
        found = {job.id: job for job in self._jobs.find(JobFilter(ids=tuple(rows.ids)))}
        return JobPage([found[id_] for id_ in rows.ids if id_ in found], rows.after, rows.window)

    def newest(
        self, wanted: JobFilter, size: int, after: str | None
    ) -> tuple[list[int], str | None]:
        """Return the newest ids after a place, of any state, and the place to look on from.

        They may be less than `size` in number, or none, before the end, which is None: it looks
        through at most WINDOW rows.
        """
        find = _by_id if wanted.error is None else _by_error
        with self.store.read() as connection:
            self.store.backend.prefer_indexes(connection)
            rows = find(connection, wanted, after, size)
        return rows.ids, rows.after

    def count(self, wanted: JobFilter, most: int = COUNTED_MAX) -> int:
        """Return the number of matching jobs, at most one more than `most`."""
        with self.store.read() as connection:
            self.store.backend.prefer_indexes(connection)
            return _count(connection, wanted, most)

    def count_soon(self, wanted: JobFilter, most: int = COUNTED_MAX) -> Count:
        """Return the number of jobs that an index counts, at most `most`, in LOOK_TIME or so."""
        with self.store.read() as connection:
            self.store.backend.prefer_indexes(connection)
            if wanted.state in FINAL and wanted.ids is None:
                return count_ended(connection, wanted.state, most)
            total = _count(connection, wanted, most)
        return Count(min(total, most), total <= most)

    def with_key(self, key: str) -> list[int]:
        """Return the ids of the jobs that hold a unique key, at most one."""
        text = bindparam("in_key", key, type_=Text())
        held = select(jobs.c.id).where(jobs.c.unique_key == text, HOLDS_KEY).limit(1)
        with self.store.read() as connection:
            return list(connection.execute(held).scalars())


def is_counted(wanted: JobFilter) -> bool:
    """Return whether an index counts a filter's jobs, up to COUNTED_MAX, in milliseconds."""
    named = (wanted.tasks, wanted.task, wanted.tag, wanted.since, wanted.error)
    if any(value is not None for value in named):
        return False
    return wanted.queue is None or wanted.state is State.AVAILABLE


def _narrows(wanted: JobFilter) -> bool:
    named = (wanted.tasks, wanted.task, wanted.queue, wanted.tag, wanted.since)
    return wanted.ids is None and any(value is not None for value in named)


def _by_id(connection: Connection, wanted: JobFilter, after: str | None, size: int) -> _Rows:
    """Find the newest ids."""
    below = None if after is None else _number(after)
    is_live = wanted.state is not None and wanted.ids is None
    few = _few(connection, wanted) if is_live else None
    # One lower bound only: of several SQLite takes the first, and would read all below the floor.
    matching, floor = matches(wanted, by_id=False), None
    id_: ColumnElement[int] = jobs.c.id
    found = select(id_).where(matching)
    if few is not None:
        found, id_ = select(few.c.id).where(ClauseAdapter(few).traverse(matching)), few.c.id
    elif is_live or _narrows(wanted):
        newest = connection.execute(select(func.max(jobs.c.id))).scalar_one() or 0
        floor = min(newest + 1, below or newest + 1) - WINDOW
        found = found.where(id_ >= max(floor, 1))
    else:
        found = found.where(id_ > 0)
    if below is not None:
        found = found.where(id_ < below)
    ids = list(connection.execute(found.order_by(id_.desc()).limit(size + 1)).scalars())
    if len(ids) > size:
        return _Rows(ids[:size], str(ids[size - 1]))
    if floor is not None and floor > 1:
        return _Rows(ids, str(floor), window=True)
    return _Rows(ids, None)


def _by_error(connection: Connection, wanted: JobFilter, after: str | None, size: int) -> _Rows:
    """Find the newest ids in the index of errors."""
    id_ = id_of(wanted)
    found = select(jobs.c.id).where(matches(wanted)).order_by(id_.desc()).limit(size + 1)
    if after is not None:
        found = found.where(id_ < _number(after))
    ids = list(connection.execute(found).scalars())
    return _Rows(ids[:size], str(ids[size - 1]) if len(ids) > size else None)


def _few(connection: Connection, wanted: JobFilter) -> Subquery | None:
    """Select the jobs of a live state by its index; None if there are more than FEW.

    Selected with what filters ask for: a planner without statistics joins them with all jobs.
    """
    some = [
        select(select(*FILTERED).where(part).limit(FEW + 1).subquery())
        for part in parts_of(of_index(wanted))
    ]
    rows = union_all(*some).subquery()
    count = connection.execute(select(func.count()).select_from(rows)).scalar_one()
    return rows if count <= FEW else None


def of_index(wanted: JobFilter) -> JobFilter:
    """Return what the index of a state serves of a filter."""
    queue = wanted.queue if wanted.state is State.AVAILABLE else None
    return JobFilter(state=wanted.state, queue=queue)


def parts_of(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """Return conditions that together are the filter, each with the predicate of an index."""
    if wanted.state is None or wanted.ids is not None or wanted.error is not None:
        return [matches(wanted)]
    predicates: dict[State, tuple[ColumnElement[bool], ...]] = {
        State.AVAILABLE: AVAILABLE,
        State.SCHEDULED: (true(),),
        State.RUNNING: (jobs.c.worker_id.is_not(None),),
    }
    of_index = predicates.get(wanted.state, (jobs.c.finished_at.is_not(None),))
    return [and_(matches(wanted, by_id=False), part) for part in of_index]


def _of_ended(connection: Connection, wanted: JobFilter, after: str | None, size: int) -> _Rows:
    """Find the jobs of a final state that ended last.

    What no index serves is looked for step by step, until WINDOW rows or LOOK_TIME.
    """
    if not _narrows(wanted):
        return ended_in(connection, wanted, after, size, None)
    until, ids, looked, step = monotonic() + LOOK_TIME, list[int](), 0, min(STEP, WINDOW)
    while True:
        rows = ended_in(connection, wanted, after, size - len(ids), step)
        ids += rows.ids
        looked += step
        is_over = looked >= WINDOW or len(ids) == size or monotonic() > until
        if not rows.window or is_over:
            return _Rows(ids, rows.after, rows.window)
        after, step = rows.after, min(2 * step, WINDOW - looked)


def ended_in(
    connection: Connection, wanted: JobFilter, after: str | None, size: int, step: int | None
) -> _Rows:
    """Find them among the next `step` rows, or among all."""
    ended = [in_state(wanted.state or State.FAILED)]
    if after is not None:
        ended.append(_ended_before(*_place(after)))
    floor = None if step is None else _place_at(connection, ended, step)
    lowest = _IS_THERE if floor is None else _not_ended_before(*floor)
    found = select(*_ORDERED).where(*ended, matches(wanted, by_id=False), lowest)
    rows = connection.execute(found.order_by(*NEWEST_END).limit(size + 1)).all()
    ids = [row.id for row in rows[:size]]
    if len(rows) > size:
        return _Rows(ids, _text_of(rows[size - 1].finished_at, rows[size - 1].id))
    return _Rows(ids, floor and _text_of(*floor), window=floor is not None)


def _count(connection: Connection, wanted: JobFilter, most: int) -> int:
    total = 0
    for part in parts_of(wanted):
        some = select(id_of(wanted)).where(part).limit(most + 1).subquery()
        total += connection.execute(select(func.count()).select_from(some)).scalar_one()
    return min(total, most + 1)


def count_ended(connection: Connection, state: State, most: int) -> Count:
    """Count the jobs of a final state, step by step, until there are too many or LOOK_TIME."""
    until, total = monotonic() + LOOK_TIME, 0
    ended = [in_state(state)]
    while True:
        last = _place_at(connection, ended, STEP - 1)
        if last is None:
            rest = select(jobs.c.id).where(*ended, _IS_THERE).order_by(*NEWEST_END).limit(STEP)
            counted = select(func.count()).select_from(rest.subquery())
            total += connection.execute(counted).scalar_one()
            return Count(min(total, most), total <= most)
        total += STEP
        if total > most or monotonic() > until:
            return Count(min(total, most), whole=False)
        ended = [in_state(state), _ended_before(*last)]


def _place_at(
    connection: Connection, ended: list[ColumnElement[bool]], offset: int
) -> tuple[datetime, int] | None:
    row = select(*_ORDERED).where(*ended, _IS_THERE).order_by(*NEWEST_END).limit(1).offset(offset)
    found = connection.execute(row).one_or_none()
    return None if found is None else (found.finished_at, found.id)


def _ended_before(at: datetime, id_: int) -> ColumnElement[bool]:
    # Not a comparison of pairs: this one uses the index on both databases.
    instant = literal(at, INSTANT)
    return and_(jobs.c.finished_at <= instant, or_(jobs.c.finished_at < instant, jobs.c.id < id_))


def _not_ended_before(at: datetime, id_: int) -> ColumnElement[bool]:
    instant = literal(at, INSTANT)
    # Not by an `or`: of two lower bounds SQLite may take the wrong one.
    is_older = and_(jobs.c.finished_at == instant, jobs.c.id < id_)
    return and_(jobs.c.finished_at >= instant, not_(is_older))


def _text_of(at: datetime, id_: int) -> str:
    return f"{at.isoformat()}~{id_}"


def _place(text: str) -> tuple[datetime, int]:
    at, _, id_ = text.partition("~")
    return options.instant(at, "after"), _number(id_)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise invalid("after", f"{text[:40]!r} is not a place in this list")
    return min(int(text[:20]), 2**63 - 1)
