"""Histograms of attempts: buckets that include their bound, and a bounded number of series."""

import threading

from jobqueue.prometheus import _buckets
from jobqueue.store.counters import TaskCounts
from jobqueue.worker.observe.histograms import OTHER, PAIRS_MAX, Histogram, Histograms


def test_a_bucket_counts_what_is_as_long_as_its_bound_or_shorter() -> None:
    histogram = Histogram()
    histogram.add([0.0, 0.005, 0.0051, 10.0, 7200.0, 7200.1, 1e9])
    buckets = dict(_buckets(histogram))
    named = ["0.005", "0.01", "5.0", "10.0", "1800.0", "7200.0", "+Inf"]
    assert [buckets[name] for name in named] == [2, 3, 3, 4, 4, 5, 7]
    assert histogram.total == sum([0.0, 0.005, 0.0051, 10.0, 7200.0, 7200.1, 1e9])


def test_queues_without_end_share_the_series_of_one() -> None:
    histograms = Histograms(threading.Lock())
    took = TaskCounts(durations=[1.0], waits=[2.0])
    for n in range(PAIRS_MAX + 50):
        histograms.add({(f"tenant-{n}", "sync"): took, ("idle", "sync"): TaskCounts()})
    read = histograms.read()
    assert len(read) == PAIRS_MAX + 1 and ("idle", "sync") not in read
    shared = read[OTHER, "sync"]
    assert (sum(shared.duration.counts), shared.wait.total) == (50, 100.0)
    assert histograms.read()[OTHER, "sync"].duration is not shared.duration


def test_tasks_without_end_share_the_series_of_one_too() -> None:
    histograms = Histograms(threading.Lock())
    took = TaskCounts(durations=[1.0], waits=[2.0])
    for n in 2 * [*range(1000)]:
        histograms.add({("default", f"task-{n}"): took})
    read = histograms.read()
    assert len(read) == 2 * PAIRS_MAX + 1
    assert sum(read[OTHER, OTHER].wait.counts) == 2 * (1000 - 2 * PAIRS_MAX)
    assert sum(sum(each.duration.counts) for each in read.values()) == 2000
