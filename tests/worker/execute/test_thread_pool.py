"""Slots on a whole worker: they open, close when idle, and are replaced when a handler is stuck."""

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import JobFailed, JobQueue, State, current_job
from jobqueue.errors import AttemptTimeout, InvalidOption
from jobqueue.worker.handler.context import running_attempt
from jobqueue.worker.execute.autoscale import Scaler
from tests.worker.conftest import Stepped


def slots() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("jobqueue-slot")]


@pytest.fixture
def gate() -> Any:
    event = threading.Event()
    yield event
    event.set()
    for slot in slots():  # None is there for the next test to count.
        slot.join(60)


# Their number


def test_slots_open_and_close_without_interrupting_a_job(
    jobs: JobQueue, gate: threading.Event, wait_until: Callable[..., Any]
) -> None:
    begun = threading.Semaphore(0)

    @jobs.task
    def hold() -> int:
        begun.release()
        gate.wait(30)
        return 7

    worker: Any = jobs.worker(concurrency=1, poll=0.05)
    with worker:
        held = [hold.enqueue() for _ in range(3)]
        assert begun.acquire(timeout=30)
        worker._parts.thread_pool.resize(3)
        worker._parts.wake_claimer()
        assert begun.acquire(timeout=30)
        assert begun.acquire(timeout=30)
        worker._parts.thread_pool.resize(1)
        assert len(slots()) == 3, "all are busy"
        gate.set()
        assert [job.result(30) for job in held] == [7, 7, 7]
        wait_until(lambda: len(slots()) == 1)
        assert hold.enqueue().result(30) == 7
    assert slots() == []


def test_a_thousand_scalings_leave_no_thread_behind(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    @jobs.task
    def one() -> int:
        return 1

    worker: Any = jobs.worker(concurrency=2)
    with worker:
        for number in range(1000):
            worker._parts.thread_pool.resize(1 + number % 7)
        worker._parts.thread_pool.resize(2)
        assert one.enqueue().result(30) == 1
        wait_until(lambda: len(slots()) == 2)
        assert one.enqueue().result(30) == 1
        assert len(worker._parts.thread_pool.threads) == 2
    assert slots() == []


def test_giving_back_what_is_in_the_inbox_keeps_the_wish_to_close_a_slot(
    stepped: Stepped,
) -> None:
    stepped = stepped()
    stepped.inflight.inbox.put(None)
    stepped.inflight.release_prefetched()
    assert stepped.inbox() == [None]


def test_a_worker_grows_under_a_backlog_and_shrinks_when_it_is_done(
    jobs: JobQueue, gate: threading.Event, wait_until: Callable[..., Any], caplog: Any
) -> None:
    caplog.set_level("INFO", "jobqueue.worker")

    @jobs.task
    def hold() -> None:
        gate.wait(30)

    held = [hold.enqueue() for _ in range(12)]
    worker: Any = jobs.worker(
        min_concurrency=2,
        max_concurrency=6,
        scale_up_cooldown=0.05,
        scale_down_cooldown=0.1,
        poll=0.05,
    )
    with worker:
        wait_until(lambda: worker.running == 6)
        gate.set()
        for job in held:
            job.result(30)
        wait_until(lambda: len(slots()) == 2)
    assert re.search(r"slots: 2 -> \d: \d+% busy, jobs waiting", caplog.text)
    assert re.search(r"slots: \d -> 2: ", caplog.text)


def test_a_slot_is_never_replaced_while_it_does_something_else(
    jobs: JobQueue, gate: threading.Event, wait_until: Callable[..., Any]
) -> None:
    """Its handler may end just when its claim was given up: then it ends, and waits for no other."""

    @jobs.task(max_attempts=1, timeout=0.05)
    def stubborn() -> None:
        gate.wait(30)

    @jobs.task
    def well() -> str:
        return threading.current_thread().name

    worker: Any = jobs.worker(concurrency=1)
    with worker:
        replace = worker._parts.thread_pool.replace

        def late(thread: int) -> None:
            gate.set()
            wait_until(
                lambda: not any(slot.ident == thread for slot in worker._parts.thread_pool.threads)
            )
            replace(thread)

        worker._parts.thread_pool.replace = late
        with pytest.raises(JobFailed):
            stubborn.enqueue().result(30)
        assert well.enqueue().result(30) == "jobqueue-slot-1"
        assert worker.failure is None
    assert worker.stop() is True


def test_the_time_of_a_handler_that_was_interrupted_is_not_taken_back(
    jobs: JobQueue, gate: threading.Event, wait_until: Callable[..., Any]
) -> None:
    @jobs.task
    def hold() -> None:
        gate.wait(30)

    hold.enqueue()
    worker: Any = jobs.worker(concurrency=1)
    worker.start()
    wait_until(lambda: worker._inflight.busy_seconds() > 0.05)
    before = worker._inflight.busy_seconds()
    worker.stop(timeout=0)
    assert worker._inflight.busy_seconds() >= before


def test_what_fills_slots_may_change_while_it_is_summed_up(
    jobs: JobQueue, stepped: Stepped
) -> None:
    inflight = stepped().inflight
    running = inflight.running

    class Context:
        began = time.perf_counter()

        @property
        def is_coroutine(self) -> bool:
            running[len(running), 1] = Context()  # As another thread may.
            return False

    running[0, 1] = Context()
    assert inflight.busy_seconds() > 0


def test_only_what_this_worker_may_claim_counts_as_waiting(stepped: Stepped) -> None:
    stepped = stepped(min_concurrency=1, max_concurrency=4, queues="mine,held")
    task = stepped.queue.task(name="t")(nothing)
    for queue in ("other", "held"):
        task.options(queue=queue).enqueue()
    stepped.queue.pause("held")
    scaler = stepped.service(Scaler)
    assert scaler._waiting(10) == 0
    task.options(queue="mine").enqueue()
    assert scaler._waiting(10) == 1


def nothing() -> None:
    """A task that does nothing."""


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"min_concurrency": 2}, "min_concurrency and max_concurrency"),
        ({"min_concurrency": 4, "max_concurrency": 2}, "the smaller first"),
        ({"min_concurrency": 0, "max_concurrency": 2}, "min_concurrency"),
        ({"min_concurrency": 1, "max_concurrency": 2, "scale_up_at": 0.2}, "scale_down_at"),
        ({"scale_up_at": 2}, "scale_up_at"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(
    jobs: JobQueue, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        jobs.worker(**given)


# Handlers that ignore their time


def test_a_handler_that_ignores_its_timeout_is_recorded_and_its_slot_replaced(
    jobs: JobQueue, gate: threading.Event, wait_until: Callable[..., Any], caplog: Any
) -> None:
    told: list[Any] = []

    @jobs.task(timeout=0.1, max_attempts=2)
    def deaf() -> str:
        context = current_job()
        gate.wait(60)
        told.append(context.cancelled)
        with pytest.raises(AttemptTimeout):
            context.check()
        return "too late"

    @jobs.task
    def one() -> int:
        return 1

    with jobs.worker(concurrency=2, poll=0.05) as worker:
        job = deaf.options(max_attempts=1).enqueue()
        with pytest.raises(JobFailed) as caught:
            job.result(30)
        assert caught.value.errors[0].type == "jobqueue.errors.AttemptTimeout"
        assert "gate.wait" in (caught.value.errors[0].traceback or ""), "where it is"
        assert "ignores its timeout" in caplog.text
        assert [one.enqueue().result(30) for _ in range(3)] == [1, 1, 1]
        assert worker.failure is None
        gate.set()
        wait_until(lambda: told == [True])
        wait_until(lambda: len(slots()) == 2)
    assert job.record().state is State.FAILED, "what it returned in the end does not count"


def test_a_slot_that_no_thread_can_be_started_for_is_opened_once_it_can(
    jobs: JobQueue,
    gate: threading.Event,
    wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    start, refused = threading.Thread.start, 0

    def start_later(thread: threading.Thread) -> None:
        nonlocal refused
        if thread.name.startswith("jobqueue-slot") and refused < 3:
            refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    @jobs.task(timeout=0.1, max_attempts=1)
    def deaf() -> None:
        gate.wait(60)

    @jobs.task
    def one() -> int:
        return 1

    with jobs.worker(concurrency=2, poll=0.05) as worker:
        monkeypatch.setattr(threading.Thread, "start", start_later)
        with pytest.raises(JobFailed):
            deaf.enqueue().result(30)
        # None was opened in its place; more are wanted meanwhile, and then less.
        worker._parts.thread_pool.resize(3)
        worker._parts.thread_pool.resize(2)
        assert one.enqueue().result(30) == 1
        wait_until(lambda: len(slots()) == 3)  # Two and the stuck one.
        assert refused == 3
        assert caplog.text.count("can't start new thread for a slot") == 1
        gate.set()
        wait_until(lambda: len(slots()) == 2)


def test_a_handler_that_looks_ends_by_itself_and_keeps_its_slot(
    jobs: JobQueue, gate: threading.Event, caplog: Any
) -> None:
    @jobs.task(timeout=0.05, max_attempts=1)
    def looks() -> None:
        attempt = running_attempt()
        assert attempt is not None
        attempt.grace = 60  # However late it comes to look.
        while True:
            current_job().check()
            gate.wait(0.01)

    with jobs.worker(concurrency=1) as worker:
        with pytest.raises(JobFailed, match="ran out of its"):
            looks.enqueue().result(30)
        assert worker._parts.thread_pool.stuck == 0
    assert "ignores" not in caplog.text


def test_a_worker_whose_slots_are_all_stuck_stops_and_says_why(
    jobs: JobQueue, gate: threading.Event, caplog: Any
) -> None:
    @jobs.task(timeout=0.05, max_attempts=1)
    def deaf() -> None:
        gate.wait(60)

    worker = jobs.worker(concurrency=2, poll=0.05)
    with worker:
        for _ in range(2):
            deaf.enqueue()
        assert worker.wait(30)
        assert worker.failure == "2 handlers ignored their timeouts and still run"
        assert worker.stop(), "nothing that counts is left to wait for"


def test_a_claim_that_was_given_up_is_run_again_elsewhere(
    jobs: JobQueue, gate: threading.Event
) -> None:
    attempts: list[int] = []

    @jobs.task(timeout=0.1, max_attempts=3)
    def slow_at_first() -> str:
        attempts.append(current_job().attempt)
        if len(attempts) == 1:
            gate.wait(60)
        return "done"

    with jobs.worker(concurrency=2, poll=0.05):
        job = slow_at_first.enqueue()
        assert job.result(30) == "done"
    assert attempts == [1, 2]
