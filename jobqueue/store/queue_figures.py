"""The figures of queues and tasks in milliseconds: jobs that wait are counted up to a bound.

The view jobqueue_queue_stats has the exact numbers, and reads all that waits.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    Text,
    func,
    select,
)

from jobqueue.states import FINAL, State
from jobqueue.store.clock import present_of
from jobqueue.store.dialects.base import Backend
from jobqueue.store.names import queues_of_available
from jobqueue.store.schema import CounterKind, counters, jobs, queues
from jobqueue.store.sql.predicates import AVAILABLE, in_state

EACH = 1000
"""Available jobs that are counted in each queue at least."""
AVAILABLE_MAX = 100_000
"""Available jobs of one queue that are counted."""
BUDGET = 120_000
"""Available jobs that are counted, beyond those of EACH, in all queues."""
SCHEDULED_MAX = 20_000
"""Scheduled jobs that are counted, those first that are due first."""
PRIORITIES_MAX = 2000
"""Priorities of queues in which the oldest job is looked for."""
TASKS_MAX = 50_000
"""Waiting jobs of each state that are counted by task: no index has the task."""
_NAMES = {"queue": Text()}
_ZEROS: dict[str, Any] = {
    **dict.fromkeys(State, 0),
    "paused": False,
    "oldest_available_seconds": None,
    "available_more": False,
    "scheduled_more": False,
    **dict.fromkeys(("max_pending", "max_running", "rate_count", "rate_period", "rate_burst")),
    "fair": False,
}


def bounded_rows(connection: Connection, backend: Backend, times: int = 1) -> list[dict[str, Any]]:
    """Return a row for each queue that has live jobs, counters or switches, by name.

    Its columns are those of the view, with `available_more` and `scheduled_more`: there may be more
    than that. The bounds are `times` those of this module.
    """
    backend.prefer_indexes(connection)
    rows: dict[str, dict[str, Any]] = {}

    def row_of(queue: str) -> dict[str, Any]:
        return rows.setdefault(queue, {"queue": queue, **_ZEROS})

    for row in connection.execute(_ENDED):
        row_of(row.queue).update(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented mapping.
    for row in connection.execute(_RUNNING):
        row_of(row.queue)["running"] = row.running
    scheduled = connection.execute(_scheduled(times * SCHEDULED_MAX)).all()
    for row in scheduled:
        row_of(row.queue)["scheduled"] = row.scheduled
    for queue, found in _available(connection, backend, times).items():
        row_of(queue).update(found)
    for row in connection.execute(select(queues)):
        switches = {name: row._mapping[name] for name in _ZEROS if name in queues.c}  # noqa: SLF001
        row_of(row.name).update(switches, paused=row.paused_at is not None, fair=row.fair == 1)
    more = sum(row.scheduled for row in scheduled) > times * SCHEDULED_MAX
    for found in rows.values():  # Those that are due later may be of any queue.
        found["scheduled_more"] = more
    return [rows[queue] for queue in sorted(rows)]


def waiting_by_task(connection: Connection, backend: Backend) -> tuple[Counter[str], bool]:
    """Count up to TASKS_MAX waiting jobs of each state; True: there may be more."""
    backend.prefer_indexes(connection)
    waiting, more = Counter[str](), False
    for part in (in_state(State.SCHEDULED), *AVAILABLE):  # Each has an index of its own.
        some = select(jobs.c.task).where(part).limit(TASKS_MAX).subquery()
        counted = select(some.c.task, func.count().label("jobs")).group_by(some.c.task)
        counts = Counter({row.task: row.jobs for row in connection.execute(counted)})
        more |= counts.total() >= TASKS_MAX
        waiting += counts
    return waiting, more


_ENDED = (
    select(
        counters.c.queue,
        *(func.sum(counters.c[state.value]).cast(Integer).label(state.value) for state in FINAL),
    )
    .where(counters.c.kind.in_((CounterKind.WRITTEN, CounterKind.TOTAL)))
    .group_by(counters.c.queue)
)
_RUNNING = (
    select(jobs.c.queue, func.count().label("running"))
    .where(in_state(State.RUNNING), jobs.c.worker_id.is_not(None))
    .group_by(jobs.c.queue)
)


def _scheduled(most: int) -> Select[Any]:
    """Select how many scheduled jobs each queue has, among one more than `most`, due first."""
    scheduled = select(jobs.c.queue).where(in_state(State.SCHEDULED))
    due = scheduled.order_by(jobs.c.run_at).limit(most + 1).subquery()
    return select(due.c.queue, func.count().label("scheduled")).group_by(due.c.queue)


def _available(connection: Connection, backend: Backend, times: int) -> dict[str, dict[str, Any]]:
    """Return the columns of available jobs by queue."""
    found: dict[str, dict[str, Any]] = {}
    present = present_of(connection)
    for part in AVAILABLE:
        names = [name for name in connection.execute(queues_of_available(part)).scalars() if name]
        if not names:
            continue
        oldest = _by_queue(connection, backend, names, _oldest(backend, part))
        for queue, (count, more) in _counts(connection, backend, part, names, times).items():
            row = found.setdefault(queue, {"available": 0, "available_more": False})
            row["available"] += count
            row["available_more"] |= more
            age = max(0.0, (present - (oldest[queue] or present)).total_seconds())
            row["oldest_available_seconds"] = max(age, row.get("oldest_available_seconds", 0.0))
    return found


def _counts(
    connection: Connection,
    backend: Backend,
    part: ColumnElement[bool],
    names: Sequence[str],
    times: int,
) -> dict[str, tuple[int, bool]]:
    """Count a few jobs of each queue, then more where there are more; True: there are still."""
    counts = _by_queue(connection, backend, names, _count(backend, part, EACH))
    many, most = [name for name in names if counts[name] > EACH], EACH
    if many:
        most = max(EACH, min(times * AVAILABLE_MAX, _rounded(times * BUDGET // len(many))))
    if most > EACH:
        counts |= _by_queue(connection, backend, many, _count(backend, part, most))
    return {name: (min(count, most), count > most) for name, count in counts.items()}


def _by_queue(
    connection: Connection, backend: Backend, names: Sequence[str], figures: Select[Any]
) -> dict[str, Any]:
    parameters = backend.batch_parameters(_NAMES, [(name,) for name in names])
    return dict(map(tuple, connection.execute(figures, parameters)))


def _count(backend: Backend, part: ColumnElement[bool], most: int) -> Select[Any]:
    """Select the number of a queue's jobs, up to one more than `most`."""
    of = backend.batch_table(_NAMES)
    some = select(jobs.c.id).where(part, jobs.c.queue == of.c.queue).limit(most + 1)
    counted = select(func.count()).select_from(some.correlate(of).subquery()).correlate(of)
    return select(of.c.queue, counted.scalar_subquery())


def _oldest(backend: Backend, part: ColumnElement[bool]) -> Select[Any]:
    """Select when the oldest job of a queue was due: of each priority, which has its index."""
    of = backend.batch_table(_NAMES)
    least = select(func.min(jobs.c.priority))
    first = least.where(part, jobs.c.queue == of.c.queue).correlate(of).scalar_subquery()
    found = select(of.c.queue, first.label("priority")).cte("found", recursive=True)
    following = least.where(
        part, jobs.c.queue == found.c.queue, jobs.c.priority > found.c.priority
    ).scalar_subquery()
    found = found.union_all(select(found.c.queue, following).where(found.c.priority.is_not(None)))
    some = select(found).limit(PRIORITIES_MAX).subquery()
    oldest = select(func.min(jobs.c.run_at)).where(
        part, jobs.c.queue == some.c.queue, jobs.c.priority == some.c.priority
    )
    each = select(some.c.queue, oldest.scalar_subquery().label("due")).subquery()
    return select(each.c.queue, func.min(each.c.due)).group_by(each.c.queue)


def _rounded(number: int) -> int:
    """Return a number with its first digit alone: it is shown as a bound."""
    size: int = 10 ** (len(str(number)) - 1)
    return number // size * size
