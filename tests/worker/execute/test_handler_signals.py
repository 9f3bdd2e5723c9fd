"""Signals that a handler raises: snooze, retry, cancel; and how long a job waits for its next attempt."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jobqueue import (
    Cancel,
    JobFailed,
    JobQueue,
    Retry,
    Snooze,
    State,
    current_job,
    exponential,
    fixed,
)
from jobqueue.errors import JobCancelled, Signal
from jobqueue.options import SECONDS_MAX
from tests.worker.conftest import Stepped

# Signals


def test_a_snooze_gives_the_attempt_back_and_waits(jobs: JobQueue, stepped: Stepped) -> None:
    seen: list[int] = []

    @jobs.task(max_attempts=2)
    def sleepy() -> int:
        seen.append(current_job().attempt)
        if len(seen) < 4:
            raise Snooze(timedelta(seconds=30), minutes=1, reason="the moon is not up")
        return 7

    handle = sleepy.enqueue()
    worker = stepped()
    worker.step()
    row = worker.row(handle.id)
    assert (row.state, row.attempt, row.snoozes) == (State.SCHEDULED, 0, 1)
    assert row.reason == "the moon is not up"
    assert worker.due_in(handle.id) == pytest.approx(90, abs=5)
    assert worker.attempts(handle.id) == [(1, "snoozed", None)]
    assert worker.finish(handle.id).state is State.SUCCEEDED
    assert seen == [1, 1, 1, 1]
    assert handle.result(0) == 7
    assert worker.counted("errored_attempts") == 0


def test_a_job_that_was_snoozed_too_often_fails_with_the_reason(
    jobs: JobQueue, stepped: Stepped
) -> None:
    runs: list[int] = []

    @jobs.task
    def sleepy() -> None:
        runs.append(1)
        raise Snooze(60)

    handle = sleepy.enqueue()
    worker = stepped(max_snoozes=3)
    for _ in range(3):
        worker.step()
        assert worker.state(handle.id) is State.SCHEDULED
        worker.change(handle.id, state=State.AVAILABLE.value)  # a retry would clear the count
    worker.step()
    row = worker.row(handle.id)
    assert (row.state, row.attempt) == (State.FAILED, 1)
    assert "snoozed 3 times" in str(row.reason)
    assert len(runs) == 4
    with pytest.raises(JobFailed, match="snoozed 3 times"):
        handle.result(0)


def test_a_job_that_may_begin_once_fails_when_it_asks_to_be_snoozed(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task(max_attempts=1)
    def sleepy() -> None:
        raise Snooze(60)

    handle = sleepy.enqueue()
    worker = stepped()
    worker.step()
    row = worker.row(handle.id)
    assert (row.state, row.attempt) == (State.FAILED, 1)
    assert "max_attempts=1 allows one start only" in str(row.reason)


def test_a_retry_is_charged_and_comes_after_the_handlers_own_time(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task(max_attempts=2, backoff=fixed(1000))
    def flaky(after: float | None) -> None:
        raise Retry(after, reason="busy")

    own, default = flaky.enqueue(300.0), flaky.enqueue(None)
    worker = stepped()
    worker.step()
    for handle, seconds in ((own, 300), (default, 1000)):
        row = worker.row(handle.id)
        assert (row.state, row.attempt) == (State.SCHEDULED, 1)
        assert worker.due_in(handle.id) == pytest.approx(seconds, abs=5)
        assert worker.attempts(handle.id) == [(1, "errored", "jobqueue.errors.Retry")]
    assert worker.finish(own.id).state is State.FAILED
    with pytest.raises(JobFailed, match="busy"):
        own.result(0)


def test_a_handler_that_cancels_ends_its_job_for_good(jobs: JobQueue, stepped: Stepped) -> None:
    @jobs.task
    def stop() -> None:
        raise Cancel("the order is gone\0")

    handle = stop.enqueue()
    worker = stepped()
    worker.step()
    row = worker.row(handle.id)
    assert (row.state, row.attempt, row.reason) == (State.CANCELLED, 1, "the order is gone\\x00")
    assert worker.attempts(handle.id) == [(1, "cancelled", None)]
    with pytest.raises(JobCancelled):
        handle.result(0)


def test_no_delay_that_a_handler_asks_for_is_out_of_range(jobs: JobQueue, stepped: Stepped) -> None:
    odd = [math.nan, math.inf, -math.inf, -5.0, 1e300, 10**400, 0.0]

    @jobs.task
    def flaky(which: int, snooze: bool) -> None:
        raise (Snooze if snooze else Retry)(odd[which])

    handles = [flaky.enqueue(n, snooze) for n in range(len(odd)) for snooze in (True, False)]
    worker = stepped(concurrency=20)
    worker.step()
    for handle in handles:
        # The database's clock may have made it due again by now, but nobody has claimed it.
        assert worker.state(handle.id) is State.SCHEDULED
        assert -5 <= worker.due_in(handle.id) <= SECONDS_MAX + 5


class Silent(Snooze):
    def __init__(self) -> None:
        pass  # and not super().__init__()


class Rude(Cancel):
    def __str__(self) -> str:
        raise OSError("no str")


class OwnSignal(Signal):
    pass


def test_a_signal_that_is_not_as_it_should_be_ends_the_attempt_and_no_slot(
    jobs: JobQueue, stepped: Stepped
) -> None:
    raised: dict[str, Callable[[], BaseException]] = {
        "a reason that is no text": lambda: Snooze(60, reason=7),  # type: ignore[arg-type]
        "a cancel that is no text": lambda: Cancel(7),  # type: ignore[arg-type]
        "not initialised": Silent,
        "rude": Rude,
        "unknown": OwnSignal,
        "the base": Signal,
        "nul": lambda: Snooze(60, reason="a\0b\ud800"),
        "long": lambda: Snooze(60, reason="x" * 5_000_000),
        "long cancel": lambda: Cancel("x" * 5_000_000),
        "a delay that is no duration": lambda: Snooze("5 minutes"),
    }

    @jobs.task
    def odd(which: str) -> None:
        raise raised[which]()

    handles = {which: odd.enqueue(which) for which in raised}
    worker = stepped(concurrency=20)
    worker.step()
    assert worker.inflight.held == {}
    for which, handle in handles.items():
        row = worker.row(handle.id)
        assert row.state is not State.RUNNING, which
        assert len(row.reason or "") <= 1000, which


# Backoff


def test_backoff_is_the_calls_own_then_the_tasks_then_the_default(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task(backoff=fixed(100))
    def own() -> None:
        raise ValueError

    @jobs.task
    def plain() -> None:
        raise ValueError

    cases = {
        own.enqueue().id: (100, 100),
        own.options(backoff=fixed(200)).enqueue().id: (200, 200),
        own.options(priority=1).enqueue().id: (100, 100),
        plain.enqueue().id: (1.5, 2.5),
        plain.options(backoff=exponential(base=900)).enqueue().id: (675, 1125),
    }
    worker = stepped(concurrency=10)
    worker.step()
    for id_, (least, most) in cases.items():
        assert least - 5 <= worker.due_in(id_) <= most + 5, worker.row(id_)


def test_a_deploy_that_changes_a_tasks_backoff_changes_it_for_jobs_that_wait(
    url: str, jobs: JobQueue, stepped: Stepped
) -> None:
    def boom() -> None:
        raise ValueError

    with JobQueue(url) as before:
        id_ = before.task(backoff=fixed(1000))(boom).enqueue().id
    jobs.task(backoff=fixed(50))(boom)
    worker = stepped()
    worker.step()
    assert worker.due_in(id_) == pytest.approx(50, abs=5)


@pytest.mark.databases("sqlite")
def test_backoff_at_attempt_1000_is_at_the_cap_and_never_overflows(
    jobs: JobQueue, stepped: Stepped, backend_name: str
) -> None:
    for base in (1.0001, 2, 1000):
        for attempt in (1, 1000, 1_000_000):
            delay = exponential(base=base, cap=3600).delay(attempt)
            assert 0 < delay <= 1.25 * 3600

    @jobs.task(max_attempts=2000)
    def boom() -> None:
        raise ValueError

    handle = boom.enqueue()
    worker = stepped()
    worker.change(handle.id, attempt=999)
    worker.step()
    assert worker.row(handle.id).attempt == 1000
    assert 0.75 * 3600 - 5 <= worker.due_in(handle.id) <= 1.25 * 3600 + 5


def test_a_stored_backoff_that_cannot_be_read_is_replaced_by_the_tasks(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task(backoff=fixed(100))
    def boom() -> None:
        raise ValueError("no")

    stored = ["{}", "5", '{"base": 0, "cap": -1}', '{"base": "x", "cap": "y"}']
    handles = [boom.enqueue() for _ in stored]
    worker = stepped(concurrency=10)
    for handle, text in zip(handles, stored, strict=True):
        worker.change(handle.id, backoff=text)
    worker.step()
    for handle, text in zip(handles, stored, strict=True):
        assert worker.state(handle.id) is State.SCHEDULED, text
        assert worker.due_in(handle.id) == pytest.approx(100, abs=5), text
