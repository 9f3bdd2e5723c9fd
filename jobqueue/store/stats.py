"""Statistics for operators: the monitoring views as plain rows."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    ColumnClause,
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    case,
    cast,
    column,
    func,
    select,
    table,
    union_all,
)

from jobqueue.records import names_in
from jobqueue.states import FINAL, State
from jobqueue.store.clock import present_of
from jobqueue.store.column_types import BigInteger, Double, Text
from jobqueue.store.database import Store
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_figures import bounded_rows, waiting_by_task
from jobqueue.store.schema import (
    CounterKind,
    PauseKind,
    counters,
    history,
    jobs,
    workers,
)
from jobqueue.store.sql.predicates import IS_ALIVE, in_state

Rows = list[dict[str, Any]]

MINUTE = timedelta(minutes=1)
MINUTES = 5
"""Default number of minutes of history to show."""


def _like(of: Table, *names: str) -> list[ColumnClause[Any]]:
    """Return the columns of a view that are those of a table."""
    return [column(name, of.c[name].type) for name in names]


def _times(*names: str) -> list[ColumnClause[float]]:
    return [column(name, Double()) for name in names]


task_stats = table(
    "jobqueue_task_stats",
    *_like(counters, "task", *FINAL, "errored_attempts"),
    *_times("avg_duration", "max_duration", "avg_wait", "max_wait"),
)

worker_stats = table(
    "jobqueue_worker_stats",
    column("worker", Text()),
    *_like(workers, "host", "pid", "queues", "concurrency", "running", "processed", "errored"),
    *_times("heartbeat_age_seconds"),
    *_like(workers, "started_at", "lease", "stopping_at"),
)

throughput = table(
    "jobqueue_throughput",
    *_like(counters, "minute", "queue", "task", *FINAL, "errored_attempts"),
    *_times("avg_duration"),
)


class Monitor:
    """Present statistics of a whole database. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def bounded_queues(self, times: int = 1) -> Rows:
        """Return a row for each queue that has live jobs, counters or settings, by name.

        In milliseconds for any number of jobs that wait.
        Numbers of waiting jobs may be bounds: `available_more` and `scheduled_more` tell that.
        `times` raises them, and the time that it takes.
        """
        with self._store.read() as connection:
            return bounded_rows(connection, self._store.backend, times)

    def workers(self) -> Rows:
        """Return a row for each lease, by name. `queues` is a list of names; None means all."""
        rows = self._rows(
            select(worker_stats).order_by(worker_stats.c.worker, worker_stats.c.started_at)
        )
        for row in rows:
            row["queues"] = None if row["queues"] is None else list(names_in(row["queues"]))
        return rows

    def workers_json(self) -> Rows:
        """Return what `workers` does, as JSON values."""
        instants = ("started_at", "stopping_at")
        return [
            row | {name: row[name] and row[name].isoformat() for name in instants}
            for row in self.workers()
        ]

    def tasks(self) -> Rows:
        """Return a row for each task that has counters or waiting jobs, or is paused, by name.

        `waiting` counts its scheduled and available jobs among the first TASKS_MAX of each, and
        `waiting_more` tells that there may be more; `known_by` counts the live workers with it.
        """
        counted = {row["task"]: row for row in self._rows(select(task_stats))}
        with self._store.read() as connection:
            waiting, more = waiting_by_task(connection, self._store.backend)
        known_by = self.known_by()
        paused = {row["name"] for row in self.pauses() if row["kind"] == PauseKind.TASK}
        return [
            counted.get(task, _without_counts(task))
            | {
                "waiting": waiting[task],
                "waiting_more": more,
                "known_by": known_by[task],
                "paused": task in paused,
            }
            for task in sorted(counted.keys() | waiting.keys() | paused)
        ]

    def pauses(self) -> Rows:
        """Return the tasks and tags that are paused, as JSON values."""
        return Pauses(self._store).all()

    def minutes(self, count: int) -> Rows:
        """Return the figures of all workers for each of the last minutes, including this one.

        Each worker writes once a minute. A `p95_…` is that of the slowest worker, a `p50_…` the
        median of the workers' medians, by attempts; `waiting` counts up to `WAITING_MAX`.
        """
        of = self._recent(count, history.c.minute, history.c.task == "")
        slots = func.nullif(func.sum(of.slots), 0)
        statement = (
            select(
                of.minute,
                func.count(of.worker.distinct()).label("workers"),
                *_figures(of),
                (func.sum(of.busy) / slots).label("utilisation"),
                func.max(of.waiting).label("waiting"),
            )
            .group_by(of.minute)
            .order_by(of.minute)
        )
        return self._rows(statement)

    def waiting(self, count: int) -> dict[datetime, int]:
        """Return how many jobs waited in each of the last minutes, up to `WAITING_MAX`.

        A minute in which no worker counted them is left out.
        """
        of = history.c
        since = of.minute > self.present() - count * MINUTE
        counted = select(of.minute, func.max(of.waiting).label("waiting"))
        known = counted.where(since, of.waiting.is_not(None))
        rows = self._rows(known.group_by(of.minute).order_by(of.minute))
        return {row["minute"]: row["waiting"] for row in rows}

    def utilisation(self, count: int) -> dict[str, float]:
        """Return which part of its slots each worker has used over the last minutes, 0 to 1."""
        of_all = history.c
        part = func.sum(of_all.busy) / func.nullif(func.sum(of_all.slots), 0)
        statement = (
            select(of_all.worker, part.label("part"))
            .where(of_all.task == "", of_all.minute > self.present() - count * MINUTE)
            .group_by(of_all.worker)
        )
        rows = self._rows(statement)
        return {row["worker"]: row["part"] for row in rows if row["part"] is not None}

    def recent_tasks(self, count: int) -> Rows:
        """Return the figures of each task over the last minutes, as `minutes` those of all."""
        of = self._recent(count, history.c.task, history.c.task != "")
        return self._rows(select(of.task, *_figures(of)).group_by(of.task))

    def recent_queue(self, queue: str, count: int) -> dict[str, Any]:
        """Return the figures of a queue over the last minutes, as `minutes` those of all."""
        of = self._recent(count, history.c.queue, history.c.queue == queue)
        (row,) = self._rows(select(*_figures(of)))
        return row

    def _recent(self, count: int, key: Column[Any], where: ColumnElement[bool]) -> Any:
        """Return the columns of the last minutes' history, and what medians by a key need.

        `measured` is how many attempts of the key have one, `up_to_…` how many a smaller one or
        the same.
        """
        of = history.c
        attempts = func.sum(case((of.duration_p50.is_not(None), of.processed)))
        up_to = (
            attempts.over(partition_by=key, order_by=of[f"{name}_p50"]).label(f"up_to_{name}")
            for name in ("duration", "wait")
        )
        measured = attempts.over(partition_by=key).label("measured")
        rows = select(history, measured, *up_to)
        return rows.where(where, of.minute > self.present() - count * MINUTE).subquery().c

    def running(self, most: int) -> Rows:
        """Return what runs where: at most that many jobs, with their workers' names."""
        of = jobs.c
        statement = (
            select(of.id, of.task, of.worker, of.started_at, of.timeout, of.cancel_requested_at)
            .where(in_state(State.RUNNING), of.worker_id.is_not(None))
            .order_by(of.worker_id)  # Ordered by id, SQLite would scan the whole table.
            .limit(most)
        )
        return self._rows(statement, by_index=True)

    def ended(self, count: int, *, by_queue: bool = True) -> Rows:
        """Return how many jobs ended in each of the last minutes, and failed: of each queue or all.

        A minute may have two rows: what was added up, and what was not yet.
        """
        of = counters.c
        keys = [of.minute, *([of.queue] if by_queue else [])]
        sums = [cast(func.sum(of[state.value]), BigInteger).label(state.value) for state in FINAL]
        since = self.present() - count * MINUTE
        # Each kind by itself: both in the order of their index, and without a sort.
        parts = (
            select(*keys, *sums).where(of.kind == kind, of.minute > since).group_by(*keys)
            for kind in (CounterKind.PERIOD, CounterKind.WRITTEN)
        )
        return self._rows(union_all(*parts))

    def stats(self, minutes: int = MINUTES) -> dict[str, Any]:
        """Return all statistics as JSON values: queues, tasks, paused tasks and tags, the number of
        live workers, jobs ended per second, and the workers' figures for each of the last minutes.

        Numbers of waiting jobs may be bounds, see `bounded_queues` and `tasks`.
        """
        return {
            "queues": self.bounded_queues(),
            "tasks": self.tasks(),
            "workers": self.live_workers(),
            "throughput_per_second": self._throughput_per_second(),
            "minutes": [
                row | {"minute": row["minute"].isoformat()} for row in self.minutes(minutes)
            ],
            "pauses": self.pauses(),
        }

    def _rows(
        self, statement: Select[Any] | CompoundSelect[Any], *, by_index: bool = False
    ) -> Rows:
        with self._store.read() as connection:
            if by_index:
                self._store.backend.prefer_indexes(connection)
            return [dict(row) for row in connection.execute(statement).mappings()]

    def live_workers(self) -> int:
        """Count the workers with a heartbeat within their lease."""
        (row,) = self._rows(select(func.count().label("alive")).where(IS_ALIVE))
        return int(row["alive"])

    def known_by(self) -> Counter[str]:
        """Count the live workers that have each task."""
        names: Counter[str] = Counter()
        for row in self._rows(select(workers.c.tasks).where(IS_ALIVE)):
            names.update(set(names_in(row["tasks"])))
        return names

    def _throughput_per_second(self) -> float:
        """Return the jobs that ended per second in the last 60 s.

        Counters are by minute: the previous minute counts in proportion to its part of the 60 s.
        """
        present = self.present()
        minute = present.replace(second=0, microsecond=0)
        ended = sum((throughput.c[state.value] for state in FINAL), start=0)
        statement = select(
            _total(ended, throughput.c.minute >= minute).label("current"),
            _total(ended, throughput.c.minute < minute).label("previous"),
        ).where(throughput.c.minute > present - 2 * MINUTE)
        (row,) = self._rows(statement)
        part = 1 - (present - minute) / MINUTE
        return float(row["current"] + row["previous"] * part) / MINUTE.total_seconds()

    def present(self) -> datetime:
        """Return the database's present instant as a value: a volatile function uses no index."""
        with self._store.read() as connection:
            return present_of(connection)


def _total(count: Any, where: Any) -> Any:
    return cast(func.coalesce(func.sum(count).filter(where), 0), BigInteger)


def _figures(of: Any) -> list[Any]:
    """The sums, means, medians of medians and worst percentiles of rows of the history."""
    counted = [
        cast(func.sum(of[name]), BigInteger).label(name)
        for name in ("processed", "errored", "failed", "snoozed")
    ]
    return [*counted, *_times_of(of, "duration"), *_times_of(of, "wait")]


def _times_of(of: Any, name: str) -> Iterator[Any]:
    yield (func.sum(of[name]) / func.nullif(func.sum(of.processed), 0)).label(f"avg_{name}")
    half = 2 * of[f"up_to_{name}"] >= of.measured
    yield func.min(case((half, of[f"{name}_p50"]))).label(f"p50_{name}")
    yield func.max(of[f"{name}_p95"]).label(f"p95_{name}")


def _without_counts(task: str) -> dict[str, Any]:
    return {
        name: 0 if isinstance(column_.type, BigInteger) else None
        for name, column_ in task_stats.c.items()
    } | {"task": task}
