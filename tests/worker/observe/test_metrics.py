"""Figures of a worker: percentiles over many numbers, and the advice that they give."""

import random

import pytest

from jobqueue.store.counters import TaskCounts
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.observe.metrics import (
    SAMPLES_MAX,
    Metrics,
    Samples,
    TaskStats,
    Window,
    advise,
)


def test_a_percentile_is_the_number_that_so_many_do_not_exceed() -> None:
    samples = Samples()
    samples.add([float(n) for n in range(100, 0, -1)])
    assert samples.percentile(0.95) == 95
    assert samples.percentile(0.5) == 50
    assert samples.percentile(1.0) == 100
    one = Samples()
    one.add([7.0])
    assert one.percentile(0.95) == 7
    assert Samples().percentile(0.95) is None


def test_of_very_many_numbers_a_bounded_part_is_kept_and_the_percentile_stays_true() -> None:
    random.seed(3)
    samples = Samples()
    for _ in range(400):
        samples.add([random.uniform(0, 100) for _ in range(random.randrange(600))])
        assert len(samples._kept) <= SAMPLES_MAX
    assert samples.percentile(0.95) == pytest.approx(95, abs=2)
    assert samples.percentile(0.5) == pytest.approx(50, abs=5)


def period(*, busy: float = 10.0, cpu: float = 1.0) -> Window:
    return Window(TaskStats(), {}, seconds=10.0, busy=busy * 4, slots=40.0, cpu=cpu)


def test_advice_names_what_to_do() -> None:
    assert (
        advise(period(), waiting=9, waited_before=5)
        == "slots 100% busy, queue growing: raise --concurrency"
    )
    assert (
        advise(period(cpu=9.9), waiting=9, waited_before=9)
        == "slots 100% busy, jobs waiting, CPU-bound in the interpreter: use --processes"
    )


@pytest.mark.parametrize(
    ("seen", "waiting", "before"),
    [(period(busy=5), 9, 5), (period(), 0, 5), (period(), 5, 9)],
    ids=["slots are free", "none waits", "it gets shorter"],
)
def test_there_is_no_advice_without_need(seen: Window, waiting: int, before: int) -> None:
    assert advise(seen, waiting=waiting, waited_before=before) is None


def test_a_window_counts_a_batch_of_many_queues_together_and_by_queue() -> None:
    metrics = Metrics(InFlight(1, 15.0))
    windows = [metrics.window(), metrics.window()]
    for _ in range(2):
        a = TaskCounts(1, failed=1, errored_attempts=2, durations=[1.0, 2.0], waits=[0.5, 0.5])
        b = TaskCounts(1, snoozed=3, durations=[4.0], waits=[0.25])
        metrics.add({("a", "sync"): a, ("b", "sync"): b})
    for window in windows:
        period = window.take()
        assert (period.whole.processed, period.whole.errored) == (6, 4)
        assert (period.whole.failed, period.whole.snoozed) == (2, 6)
        assert (period.whole.duration, period.whole.wait) == (14.0, 2.5)
        assert (period.whole.durations.percentile(1.0), period.whole.waits.percentile(0.1)) == (
            4.0,
            0.25,
        )
        each = {pair: (task.processed, task.duration) for pair, task in period.tasks.items()}
        assert each == {("sync", "a"): (4, 6.0), ("sync", "b"): (2, 8.0)}
