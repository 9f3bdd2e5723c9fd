"""The names in use: queues, tasks, tags and schedules, found without a scan of the jobs."""

import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from jobqueue.options import NAME
from jobqueue.records import names_in
from jobqueue.store.database import Store
from jobqueue.store.schema import (
    CounterKind,
    PauseKind,
    counters,
    jobs,
    pauses,
    queues,
    schedules,
    workers,
)
from jobqueue.store.sql.predicates import AVAILABLE, IS_ALIVE

NEWEST = 1000
"""Number of newest jobs, by id, that are read: tags are stored only there."""

QUEUES_MAX = 1000
"""Most queues with waiting jobs to find; each costs one index lookup."""


class Names(NamedTuple):
    """The names of queues, tasks, tags and schedules that a user may mean."""

    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    schedules: frozenset[str] = frozenset()

    def __or__(self, other: "Names") -> "Names":
        return Names(*map(operator.or_, self, other))


def names_in_use(store: Store, *, besides: str | None = None) -> Names:
    """Return the names in live workers, switches, pauses, counters, waiting and the newest jobs.

    Ignores a worker named `besides`. Takes milliseconds for any number of jobs. A name may be
    missing if only old jobs have it and no attempt of them has ended.
    """
    alive = select(workers.c.name, workers.c.queues, workers.c.tasks).where(IS_ALIVE)
    kinds = counters.c.kind.in_((CounterKind.WRITTEN, CounterKind.TOTAL))
    counted = select(counters.c.queue, counters.c.task).where(kinds).distinct()
    newest = select(jobs.c.queue, jobs.c.task, jobs.c.tags).where(jobs.c.id > 0)
    with store.read() as connection:
        others = [row for row in connection.execute(alive) if row.name != besides]
        of_counters = connection.execute(counted).all()
        young = connection.execute(newest.order_by(jobs.c.id.desc()).limit(NEWEST)).all()
        paused = connection.execute(select(pauses.c.kind, pauses.c.name)).all()
        switches = connection.execute(select(queues.c.name)).scalars().all()
        scheduled = connection.execute(select(schedules.c.name)).scalars().all()
        waiting = [
            queue
            for part in AVAILABLE
            for queue in connection.execute(queues_of_available(part)).scalars()
        ]
    rows = [*of_counters, *young]
    return Names(
        _names(
            switches, waiting, (row.queue for row in rows), _listed(row.queues for row in others)
        ),
        _names(
            (row.task for row in rows),
            _listed(row.tasks for row in others),
            (name for kind, name in paused if kind == PauseKind.TASK),
        ),
        _names(
            _listed({row.tags for row in young}),
            (name for kind, name in paused if kind == PauseKind.TAG),
        ),
        _names(scheduled),
    )


def _listed(texts: Iterable[str | None]) -> Iterator[str]:
    return (name for text in texts for name in names_in(text))


def _names(*found: Iterable[str | None]) -> frozenset[str]:
    """Drop invalid names: plain SQL may write any text, which a shell completion would run."""
    return frozenset(name for name in set(itertools.chain(*found)) if name and NAME.fullmatch(name))


def queues_of_available(part: ColumnElement[bool]) -> Select[Any]:
    """Select the queues of available jobs, one index lookup each (a loose index scan)."""
    least = select(func.min(jobs.c.queue).label("queue")).where(part)
    found = least.cte("found", recursive=True)
    following = least.where(jobs.c.queue > found.c.queue).scalar_subquery()
    found = found.union_all(select(following).where(found.c.queue.is_not(None)))
    return select(found.c.queue).limit(QUEUES_MAX)
