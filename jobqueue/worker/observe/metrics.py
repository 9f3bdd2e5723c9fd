"""What a worker has done, in figures: per task and as a whole; for its report and its history."""

import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from jobqueue.store.counters import TaskCounts
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.observe.histograms import Histograms

SAMPLES_MAX = 2000
"""Durations kept per task, queue and period for percentiles: beyond it, every second, and so on."""
PAIRS_MAX = 100
"""Tasks, by queue, that have figures of their own in a period: an app may make queues without end.
Further ones are counted by task alone."""

BUSY = 0.9
"""The share of busy slots from which on the pool counts as full."""
CPU_BOUND = 0.85
"""The share of one core from which on a process of several threads is bound by the interpreter."""


class Samples:
    """Numbers for a percentile, thinned evenly once they are many."""

    __slots__ = ("_kept", "_skip", "_turn")

    def __init__(self) -> None:
        self._kept: list[float] = []
        self._skip = 1
        self._turn = 0

    def add(self, numbers: list[float]) -> None:
        """Add some; of a period with very many only every n-th is kept."""
        if self._skip > 1:
            first, self._turn = self._turn, (self._turn - len(numbers)) % self._skip
            numbers = numbers[first :: self._skip]
        self._kept += numbers
        while len(self._kept) > SAMPLES_MAX:
            self._kept = self._kept[::2]
            self._skip *= 2

    def percentile(self, share: float) -> float | None:
        """The number that so large a share does not exceed (nearest rank); None without any."""
        if not self._kept:
            return None
        ordered = sorted(self._kept)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(slots=True)
class TaskStats:
    """What became of one task's attempts in a period. Times are seconds."""

    processed: int = 0
    errored: int = 0
    failed: int = 0
    snoozed: int = 0
    duration: float = 0.0
    wait: float = 0.0
    durations: Samples = field(default_factory=Samples)
    waits: Samples = field(default_factory=Samples)

    def add(self, count: TaskCounts) -> None:
        """Add what one transaction has counted."""
        self.processed += len(count.durations)
        self.errored += count.errored_attempts
        self.failed += count.failed
        self.snoozed += count.snoozed
        self.duration += sum(count.durations)
        self.wait += sum(count.waits)
        self.durations.add(count.durations)
        self.waits.add(count.waits)


class Window(NamedTuple):
    """What a worker did from one moment to another. `busy` and `slots` are seconds of slots."""

    whole: TaskStats
    tasks: Mapping[tuple[str, str | None], TaskStats]
    """By task and queue; None: one of too many queues."""
    seconds: float
    busy: float
    slots: float
    cpu: float

    @property
    def utilisation(self) -> float:
        """The share of its slots that ran a handler, 0 … 1."""
        return min(1.0, self.busy / self.slots) if self.slots else 0.0


class Metrics:
    """Collects what was recorded, in several windows at once. May be used by any thread."""

    def __init__(self, inflight: InFlight) -> None:
        self._inflight = inflight
        self._lock = threading.Lock()
        self._windows: list[StatsWindow] = []
        self._histograms: Histograms | None = None

    def window(self) -> "StatsWindow":
        """Return a window that starts now."""
        window = StatsWindow(self._inflight, self._lock)
        with self._lock:
            self._windows.append(window)
        return window

    def histograms(self) -> Histograms:
        """Return the histograms, which are counted from the first call on."""
        with self._lock:
            if self._histograms is None:
                self._histograms = Histograms(self._lock)
            return self._histograms

    def add(self, counts: Mapping[tuple[str, str], TaskCounts]) -> None:
        """After a commit: what its transaction has counted."""
        with self._lock:
            if self._histograms is not None:
                self._histograms.add(counts)
            whole = _together(counts.values())
            for window in self._windows:
                window.add(whole, counts)


class StatsWindow:
    """Collects figures from one `take()` to the next."""

    def __init__(self, inflight: InFlight, lock: threading.Lock) -> None:
        self._inflight = inflight
        self._lock = lock
        self._whole = TaskStats()
        self._tasks: dict[tuple[str, str | None], TaskStats] = {}
        self._since = self._now()

    def add(self, whole: TaskCounts, counts: Mapping[tuple[str, str], TaskCounts]) -> None:
        """Add what one transaction has counted, together and by queue and task; under the lock."""
        self._whole.add(whole)
        for (queue, task), count in counts.items():
            figures = self._tasks.get((task, queue))
            if figures is None:
                known = queue if len(self._tasks) < PAIRS_MAX else None
                figures = self._tasks.setdefault((task, known), TaskStats())
            figures.add(count)

    def take(self) -> Window:
        """Return the window that ends now, and start the next."""
        before, self._since = self._since, self._now()
        with self._lock:
            whole, self._whole = self._whole, TaskStats()
            tasks, self._tasks = self._tasks, {}
        seconds, busy, cpu = (now - then for now, then in zip(self._since, before, strict=True))
        slots = seconds * self._inflight.capacity.threads
        return Window(whole, tasks, seconds, busy, slots, cpu)

    def _now(self) -> tuple[float, float, float]:
        """Return the time, and the seconds of busy slots and of the CPU so far."""
        return time.monotonic(), self._inflight.busy_seconds(), time.process_time()


def _together(counts: Iterable[TaskCounts]) -> TaskCounts:
    """Return the sum of what the windows count: of many queues faster than their figures."""
    whole = TaskCounts()
    for count in counts:
        whole.errored_attempts += count.errored_attempts
        whole.failed += count.failed
        whole.snoozed += count.snoozed
        whole.durations += count.durations
        whole.waits += count.waits
    return whole


def advise(period: Window, *, waiting: int, waited_before: int) -> str | None:
    """What an operator might do about it, or None. `waiting` jobs could begin now."""
    if period.utilisation < BUSY or not waiting:
        return None
    growing = "queue growing" if waiting > waited_before else "jobs waiting"
    full = f"slots {period.utilisation:.0%} busy, {growing}"
    if period.seconds and period.cpu / period.seconds >= CPU_BOUND:
        return f"{full}, CPU-bound in the interpreter: use --processes"
    if waiting > waited_before:
        return f"{full}: raise --concurrency"
    return None
