"""What happened, counted: written in the same transaction as what it counts."""

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection

from jobqueue.states import State
from jobqueue.store.statements import Statements

_FINAL = {State.SUCCEEDED: 0, State.FAILED: 1, State.CANCELLED: 2}
_NAMES = [
    "succeeded",
    "failed",
    "cancelled",
    "errored_attempts",
    "runs",
    "duration",
    "duration_max",
    "wait",
    "wait_max",
]


class Tally:
    """Counts of one transaction by (queue, task). Durations are seconds."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0] * len(_NAMES))

    def ended(self, queue: str, task: str, state: State) -> None:
        """A job became final."""
        self._rows[queue, task][_FINAL[state]] += 1

    def errored(self, queue: str, task: str) -> None:
        """An attempt errored."""
        self._rows[queue, task][3] += 1

    def ran(self, queue: str, task: str, duration: float, wait: float, succeeded: int) -> None:
        """A handler was entered and left; hot."""
        row = self._rows[queue, task]
        row[0] += succeeded
        row[4] += 1
        row[5] += duration
        row[7] += wait
        if duration > row[6]:  # noqa: PLR1730 - a call of max() costs as much as all the rest.
            row[6] = duration
        if wait > row[8]:  # noqa: PLR1730
            row[8] = wait

    def write(self, connection: Connection, statements: Statements) -> None:
        """Append the counts."""
        if not self._rows:
            return
        rows: list[dict[str, Any]] = [
            {"queue": queue, "task": task, **dict(zip(_NAMES, row, strict=True))}
            for (queue, task), row in sorted(self._rows.items())
        ]
        connection.execute(statements.count, rows)
