"""Counters of events, written in the same transaction as the events."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from jobqueue.states import State
from jobqueue.store.sql.statements import Statements


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


class TransactionCounts:
    """Counts of one transaction by (queue, task)."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], TaskCounts] = {}

    def of(self, queue: str, task: str) -> TaskCounts:
        """Return the counts of a (queue, task), to be incremented; on the hot path."""
        count = self.counts.get((queue, task))
        if count is None:
            count = self.counts[queue, task] = TaskCounts()
        return count

    def ended(self, queue: str, task: str, state: State) -> None:
        """Count a job that became final."""
        count = self.of(queue, task)
        setattr(count, state.value, getattr(count, state.value) + 1)

    def errored(self, queue: str, task: str) -> None:
        """Count an attempt that errored."""
        self.of(queue, task).errored_attempts += 1

    def ran(self, queue: str, task: str, duration: float, wait: float) -> None:
        """Count an attempt whose handler ran; on the hot path: `write` adds up the times."""
        count = self.of(queue, task)
        count.durations.append(duration)
        count.waits.append(wait)

    def write(self, connection: Connection, statements: Statements) -> None:
        """Insert the counts."""
        rows = [_row(queue, task, count) for (queue, task), count in sorted(self.counts.items())]
        if rows:
            connection.execute(statements.append_counters, rows)


def _row(queue: str, task: str, count: TaskCounts) -> dict[str, Any]:
    return {
        "queue": queue,
        "task": task,
        "succeeded": count.succeeded,
        "failed": count.failed,
        "cancelled": count.cancelled,
        "errored_attempts": count.errored_attempts,
        "runs": len(count.durations),
        "duration": sum(count.durations),
        "duration_max": max(count.durations, default=0.0),
        "wait": sum(count.waits),
        "wait_max": max(count.waits, default=0.0),
    }
