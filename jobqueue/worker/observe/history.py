"""The recorder: writes this worker's figures down, minute by minute, for the whole fleet to see."""

import time

from jobqueue.store.history import Figures, History
from jobqueue.worker.observe.metrics import Reader, TaskFigures
from jobqueue.worker.service import Service

RECORD_EVERY = 60.0  # seconds
UNWRITTEN_MAX = 1000
"""Figures kept while the database is away; older ones are forgotten first."""
SHARE = 0.95


class Recorder(Service):
    """Appends what was done since it last did."""

    def __init__(self, history: History, worker: str, reader: Reader) -> None:
        super().__init__("recorder")
        self._history = history
        self._worker = worker
        self._reader = reader
        self._due = time.monotonic() + RECORD_EVERY
        self._unwritten: list[Figures] = []

    def tick(self) -> float:
        """Record, if it is time; offer again what could not be written."""
        rest = self._due - time.monotonic()
        if rest <= 0:
            self._due = time.monotonic() + RECORD_EVERY
            self.record()
            return RECORD_EVERY
        if self._unwritten:
            self._write()
        return rest

    def drain(self) -> None:
        """Record the rest."""
        self._due = float("-inf")
        self.round()

    def record(self) -> None:
        """Write down the period that ends now, and forget what is too old."""
        period = self._reader.take()
        whole = _figures("", period.whole)._replace(busy=period.busy, slots=period.slots)
        self._unwritten += [whole, *(_figures(name, task) for name, task in period.tasks.items())]
        del self._unwritten[:-UNWRITTEN_MAX]
        self._write()

    def _write(self) -> None:
        self._history.add(self._worker, self._unwritten)
        self._unwritten = []
        self._history.forget()


def _figures(task: str, figures: TaskFigures) -> Figures:
    return Figures(
        task,
        figures.processed,
        figures.errored,
        figures.failed,
        figures.snoozed,
        figures.duration,
        figures.durations.percentile(SHARE),
        figures.wait,
        figures.waits.percentile(SHARE),
    )
