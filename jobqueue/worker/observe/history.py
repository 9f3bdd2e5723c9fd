"""The history writer: stores what this worker did, minute by minute, for the whole fleet."""

import time

from jobqueue.store.history import Figures, History
from jobqueue.worker.observe.metrics import StatsWindow, TaskStats
from jobqueue.worker.service_thread import Service

RECORD_INTERVAL = 60.0  # seconds
UNWRITTEN_MAX = 1000
"""Figures kept while the database is away; older ones are forgotten first."""
HALF, MOST = 0.5, 0.95
"""The percentiles that are kept."""


class HistoryWriter(Service):
    """Appends what was done since the last record."""

    def __init__(self, history: History, worker: str, window: StatsWindow) -> None:
        super().__init__("recorder")
        self._history = history
        self._worker = worker
        self._window = window
        self._due = time.monotonic() + RECORD_INTERVAL
        self._unwritten: list[Figures] = []

    def tick(self) -> float:
        """Record if it is time; retry what could not be written."""
        rest = self._due - time.monotonic()
        if rest <= 0:
            self._due = time.monotonic() + RECORD_INTERVAL
            self.record()
            return RECORD_INTERVAL
        if self._unwritten:
            self._write()
        return rest

    def drain(self) -> None:
        """Record the rest."""
        self._due = float("-inf")
        self.round()

    def record(self) -> None:
        """Append the window that ends now, and delete what is too old."""
        window = self._window.take()
        whole = _figures("", None, window.whole)._replace(busy=window.busy, slots=window.slots)
        self._unwritten += [whole, *(_figures(*key, of) for key, of in window.tasks.items())]
        del self._unwritten[:-UNWRITTEN_MAX]
        self._write()

    def _write(self) -> None:
        self._history.add(self._worker, self._unwritten)
        self._unwritten = []
        self._history.delete_old()


def _figures(task: str, queue: str | None, figures: TaskStats) -> Figures:
    return Figures(
        task,
        figures.processed,
        figures.errored,
        figures.failed,
        figures.snoozed,
        figures.duration,
        figures.durations.percentile(MOST),
        figures.wait,
        figures.waits.percentile(MOST),
        duration_p50=figures.durations.percentile(HALF),
        wait_p50=figures.waits.percentile(HALF),
        queue=queue,
    )
