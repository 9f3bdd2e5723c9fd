"""Counters of events and of errors, written in the same transaction as the events."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from jobqueue.error_groups import error_id
from jobqueue.records import AttemptError
from jobqueue.states import State
from jobqueue.store.database import Store
from jobqueue.store.sql.rows import COUNTS

MANY = 5
"""Number of rows from which one statement that takes them all is faster."""


@dataclass(slots=True)
class TaskCounts:
    """Counts of one (queue, task). Times are seconds."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    errored_attempts: int = 0
    snoozed: int = 0
    durations: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


MESSAGE_MAX = 500
"""Characters of an error's message that are kept as a sample."""


class TransactionCounts:
    """Counts of one transaction by (queue, task), and of its errors by signature."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], TaskCounts] = defaultdict(TaskCounts)
        self.errors: dict[str, dict[str, Any]] = {}

    def of(self, queue: str, task: str) -> TaskCounts:
        """Return the counts of a (queue, task), to be incremented; on the hot path."""
        return self.counts[queue, task]

    def ended(self, queue: str, task: str, state: State) -> None:
        """Count a job that became final."""
        count = self.of(queue, task)
        setattr(count, state.value, getattr(count, state.value) + 1)

    def ran(self, queue: str, task: str, duration: float, wait: float) -> None:
        """Count an attempt whose handler ran; on the hot path: `write` adds up the times."""
        count = self.of(queue, task)
        count.durations.append(duration)
        count.waits.append(wait)

    def error(self, task: str, error: AttemptError, state: State) -> None:
        """Count an attempt whose error is recorded, and the job if it failed."""
        id_ = error_id(error.signature(task))
        row = self.errors.setdefault(id_, {"attempts": 0, "failed": 0})
        row |= {
            "error_id": id_,
            "task": task,
            "error_type": error.type,
            "place": error.place,
            "message": error.message[:MESSAGE_MAX],
            "attempts": row["attempts"] + 1,
            "failed": row["failed"] + (state is State.FAILED),
        }

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows of COUNTS."""
        return [
            (
                *(queue, task),
                *(count.succeeded, count.failed, count.cancelled, count.errored_attempts),
                *(len(count.durations), sum(count.durations), max(count.durations, default=0.0)),
                *(sum(count.waits), max(count.waits, default=0.0)),
            )
            for (queue, task), count in sorted(self.counts.items())
        ]

    def write(self, connection: Connection, store: Store) -> None:
        """Insert the counts."""
        rows = self.rows()
        statements, counting = store.statements, store.backend.counting
        if rows and counting is not None:
            connection.exec_driver_sql(counting, rows)
        elif len(rows) >= MANY:
            parameters = store.backend.batch_parameters(COUNTS, rows)
            connection.execute(statements.append_many_counters, parameters)
        elif rows:
            given = [dict(zip(COUNTS, row, strict=True)) for row in rows]
            connection.execute(statements.append_counters, given)
        if self.errors:
            connection.execute(statements.append_error_counts, list(self.errors.values()))
