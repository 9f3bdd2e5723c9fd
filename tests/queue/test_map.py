"""`task.map`: many jobs, enqueued in bulk, and their results as they come, in bounded memory."""

import itertools
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from jobqueue import JobFailed, JobQueue, State, fixed
from jobqueue import job as job_module
from jobqueue.errors import InvalidOption, ResultTimeout


def test_results_come_in_the_order_of_the_items(jobs: JobQueue) -> None:
    gate = threading.Event()

    @jobs.task
    def square(x: int) -> int:
        if x == 0:
            gate.wait(30)
        else:
            gate.set()
        return x * x

    with jobs.worker(concurrency=2):
        assert list(square.map(range(50), window=10)) == [x * x for x in range(50)]


def test_results_come_as_jobs_end(jobs: JobQueue) -> None:
    gate = threading.Event()

    @jobs.task
    def hold(x: int) -> int:
        if x == 0:
            gate.wait(30)
        return x

    with jobs.worker(concurrency=2):
        answers = hold.map(range(6), ordered=False)
        first = [next(answers) for _ in range(5)]
        gate.set()
        assert sorted(first) == [1, 2, 3, 4, 5]
        assert list(answers) == [0]


def test_several_iterables_are_the_arguments(jobs: JobQueue) -> None:
    @jobs.task
    def add(x: int, y: int) -> int:
        return x + y

    with jobs.worker():
        assert list(add.map([1, 2, 3], [10, 20, 30])) == [11, 22, 33]
        assert list(add.map([], [])) == []


def test_no_more_jobs_are_made_than_the_window_holds(jobs: JobQueue) -> None:
    @jobs.task
    def same(x: int) -> int:
        return x

    with jobs.worker():
        endless = same.map(itertools.count(), window=20)
        assert [next(endless) for _ in range(100)] == list(range(100))
        made = sum(1 for _ in jobs.list(limit=None))
        assert made <= 100 + 20


def test_the_first_failure_is_raised_in_its_place(jobs: JobQueue) -> None:
    @jobs.task(max_attempts=1, backoff=fixed(1))
    def picky(x: int) -> int:
        if x == 2:
            raise ValueError("two")
        return x

    with jobs.worker():
        answers = picky.map(range(5))
        assert [next(answers), next(answers)] == [0, 1]
        with pytest.raises(JobFailed, match="two"):
            next(answers)


def test_map_gives_up_after_its_timeout(jobs: JobQueue) -> None:
    @jobs.task
    def never(x: int) -> None: ...

    with pytest.raises(ResultTimeout, match=r"job \d+, \d+"):
        next(never.map([1, 2], timeout=0.05))


def test_map_refuses_what_could_only_hang(jobs: JobQueue) -> None:
    @jobs.task
    def work(x: int) -> None: ...

    with jobs.store.engine.connect() as connection:
        with pytest.raises(InvalidOption, match="within"):
            work.within(connection).map([1])
    with pytest.raises(InvalidOption, match="unique_key"):
        work.options(unique_key="k").map([1])
    with pytest.raises(InvalidOption, match="window"):
        work.map([1], window=1)
    with pytest.raises(InvalidOption, match="timeout"):
        work.map([1], timeout=-1)
    with pytest.raises(InvalidOption, match="iterable"):
        work.map()
    assert list(jobs.list()) == []


def test_a_record_says_how_long_it_waited_and_took_and_where(jobs: JobQueue) -> None:
    @jobs.task
    def work() -> None: ...

    job: Any = work.enqueue()
    assert (job.record().duration, job.record().wait) == (None, None)
    with jobs.worker(name="mia"):
        job.result(30)
    record = job.record()
    assert record.state is State.SUCCEEDED
    assert record.duration is not None and 0 <= record.duration < 30
    assert record.wait is not None and 0 <= record.wait < 30
    assert (record.attempt, record.worker) == (1, "mia")


def test_a_bounded_queue_is_filled_no_further_than_it_takes(jobs: JobQueue) -> None:
    @jobs.task(queue=jobs.queue("few", max_pending=3))
    def same(x: int) -> int:
        return x

    with jobs.worker():
        assert list(same.map(range(40))) == list(range(40))


def test_after_a_slow_look_nobody_rests_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rests, looks = itertools.count(0, 10), [], iter([[], [], ["ended"]])
    fake = SimpleNamespace(monotonic=lambda: next(clock))  # A look takes ten seconds.
    monkeypatch.setattr(job_module, "time", fake)
    monkeypatch.setattr(job_module, "_ended", lambda _jobs: next(looks))
    watch = job_module._Watch(None)
    monkeypatch.setattr(watch, "_pause", SimpleNamespace(wait=rests.append))
    assert watch.ended([]) == ["ended"]
    assert rests == [1.0, 1.0]
