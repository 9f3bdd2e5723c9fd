"""Histograms of how long attempts took and how long their jobs waited, by task and queue."""

import threading
from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from jobqueue.store.counters import TaskCounts

BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 1800.0, 7200.0),
)
"""Upper bounds of the buckets in seconds; one more bucket takes what is longer."""
PAIRS_MAX = 100
"""Pairs of queue and task that have histograms of their own; and the most tasks beyond those."""
OTHER = "(other)"
"""The queue of all further pairs, and the task of those beyond them.

An app may make queues without end, and a database keeps 38 series for each pair.
"""


class Histogram:
    """Counts of durations by bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: list[float]) -> None:
        """Count some durations."""
        counts = self.counts
        for one in seconds:
            counts[bisect_left(BOUNDS, one)] += 1
        self.total += sum(seconds)


class Timings(NamedTuple):
    """The histograms of one queue and task."""

    duration: Histogram
    wait: Histogram


class Histograms:
    """The timings of each queue and task, since they were first asked for."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._timings: dict[tuple[str, str], Timings] = {}

    def add(self, counts: Mapping[tuple[str, str], TaskCounts]) -> None:
        """Add what one transaction has counted; under the lock."""
        for pair, count in counts.items():
            if count.durations:
                timings = self._timings.get(pair) or self._new(pair)
                timings.duration.add(count.durations)
                timings.wait.add(count.waits)

    def _new(self, pair: tuple[str, str]) -> Timings:
        if len(self._timings) >= PAIRS_MAX:
            pair = OTHER, pair[1]
        if len(self._timings) >= 2 * PAIRS_MAX and pair not in self._timings:
            pair = OTHER, OTHER
        return self._timings.setdefault(pair, Timings(Histogram(), Histogram()))

    def read(self) -> dict[tuple[str, str], Timings]:
        """Return a copy, by queue and task. May be called by any thread."""
        with self._lock:
            return {
                pair: Timings(*(_copy(histogram) for histogram in timings))
                for pair, timings in self._timings.items()
            }


def _copy(histogram: Histogram) -> Histogram:
    copied = Histogram()
    copied.counts, copied.total = list(histogram.counts), histogram.total
    return copied
