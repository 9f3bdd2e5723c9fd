"""The executor: every way in which a handler can end, and what its job becomes."""

import functools
import gc
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import (
    Cancel,
    JobContext,
    JobFailed,
    JobQueue,
    JobQueueError,
    Retry,
    Snooze,
    State,
    current_job,
    exponential,
    fixed,
)
from jobqueue.errors import AttemptTimeout, ClaimLost, InvalidArguments, JobCancelled, Signal
from jobqueue.options import SECONDS_MAX, Backoff
from jobqueue.worker.execute import admission
from jobqueue.worker.handler import describe

WARNING, ERROR = 30, 40


def ends(error: BaseException) -> Callable[[], None]:
    """A task that raises."""

    def boom() -> None:
        raise error

    return boom


# Return


def test_a_job_whose_handler_returns_has_succeeded_with_its_result(
    jobs: JobQueue, hand: Any
) -> None:
    @jobs.task
    def add(x: int, y: int = 1, *, z: int = 0) -> list[int]:
        return [x, y, z]

    handles = [add.enqueue(2), add.enqueue(2, 3), add.enqueue(2, z=5)]
    worker = hand(name="w1")
    worker.step()
    assert [handle.result(0) for handle in handles] == [[2, 1, 0], [2, 3, 0], [2, 1, 5]]
    row = worker.row(handles[0].id)
    assert (row.state, row.attempt, row.worker, row.reason) == (State.SUCCEEDED, 1, "w1", None)
    assert worker.inflight.held == {}
    assert (worker.inflight.processed, worker.inflight.errored) == (3, 0)


def test_a_result_that_cannot_be_kept_is_dropped_and_the_job_has_succeeded(
    jobs: JobQueue, hand: Any, lines: Any
) -> None:
    class Rude:
        def __repr__(self) -> str:
            raise OSError("no repr")

    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    results = {
        "an object": object(),
        "rude": Rude(),
        "too large": "x" * 17_000_000,
        "nul": "a\0b",
        "surrogate": "a\ud800b",
        "nan": math.nan,
        "big": 2**70,
        "a set": {1},
        "circle": circle,
        "deep": deep,
        "a generator": (n for n in ()),
        "keys": {1: 2},
    }

    @jobs.task
    def give(which: str):  # type: ignore[no-untyped-def]
        return results[which]

    handles = {which: give.enqueue(which) for which in results}
    worker = hand(concurrency=20)
    worker.step()
    for which, handle in handles.items():
        row = worker.row(handle.id)
        assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 1, None), which
        assert row.reason is not None, which
        assert row.reason.startswith("the result was dropped: "), which
        assert len(row.reason) <= 1000, which
        assert handle.result(0) is None, which
    assert len(lines(WARNING, "the result was dropped")) == len(results)


def test_a_coroutine_that_nobody_awaits_is_an_error_and_warns_of_nothing(
    jobs: JobQueue, hand: Any
) -> None:
    async def work() -> int:
        return 1

    @jobs.task(max_attempts=1)
    def sync() -> Any:
        return work()

    handle = sync.enqueue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hand().step()
        gc.collect()
    with pytest.raises(JobFailed, match="coroutine that nobody awaits"):
        handle.result(0)


# Errors

EVERY_KIND = [
    ValueError("no"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseException("base"),
    StopIteration(1),
    MemoryError(),
    AssertionError(),
    JobQueueError("ours"),
]


def test_an_error_of_any_kind_is_tried_again_while_attempts_are_left(
    jobs: JobQueue, hand: Any
) -> None:
    @jobs.task(max_attempts=2, backoff=fixed(60))
    def boom(which: int) -> None:
        raise EVERY_KIND[which]

    handles = [boom.enqueue(which) for which in range(len(EVERY_KIND))]
    worker = hand(concurrency=20)
    worker.step()
    for error, handle in zip(EVERY_KIND, handles, strict=True):
        row = worker.row(handle.id)
        name = type(error).__name__
        assert (row.state, row.attempt, row.worker) == (State.SCHEDULED, 1, None), name
        assert worker.attempts(handle.id) == [(1, "errored", name)]
        assert worker.due_in(handle.id) == pytest.approx(60, abs=5)
        assert row.error is not None
        assert row.error.message == str(error)
    for handle in handles:
        jobs.retry(handle.id)
    worker.step()
    for error, handle in zip(EVERY_KIND, handles, strict=True):
        name = type(error).__name__
        assert worker.state(handle.id) is State.FAILED
        assert worker.attempts(handle.id) == [(1, "errored", name), (2, "errored", name)]
        with pytest.raises(JobFailed) as caught:
            handle.result(0)
        assert [error.type for error in caught.value.errors] == [name, name]
    assert worker.inflight.errored == 2 * len(EVERY_KIND)
    assert worker.counted("failed") == len(EVERY_KIND)
    assert worker.counted("errored_attempts") == 2 * len(EVERY_KIND)


def rude(method: str, what: object) -> BaseException:
    def raises(_self: object) -> Any:
        if isinstance(what, BaseException):
            raise what
        return what

    return type("Rude", (Exception,), {method: raises})("x")


def test_whatever_an_exception_does_it_is_recorded_within_bounds(jobs: JobQueue, hand: Any) -> None:
    chain: BaseException | None = None
    for number in range(3000):
        error = ValueError(number)
        error.__cause__ = chain
        chain = error
    noted = ValueError("noted")
    noted.__notes__ = ["a note \0", "\ud800", "y" * 1_000_000]
    loop = ValueError("loop")
    loop.__context__ = KeyError("other")
    loop.__context__.__context__ = loop
    kinds: dict[str, BaseException] = {
        "str raises": rude("__str__", OSError("no str")),
        "str exits": rude("__str__", SystemExit(1)),
        "str is no text": rude("__str__", 7),
        "repr raises": rude("__repr__", OSError("no repr")),
        "nul": ValueError("a\0b"),
        "surrogate": ValueError("a\ud800b"),
        "50 MB": ValueError("x" * 50_000_000),
        "many lines": ValueError("x\n" * 100_000),
        "a group": ExceptionGroup("all", [ValueError(str(n)) for n in range(10_000)]),
        "nested groups": functools.reduce(
            lambda inner, _: ExceptionGroup("in", [inner]), range(200), ValueError("at the core")
        ),
        "chain": chain,
        "noted": noted,
        "loop": loop,
        "long name": type("N" * 10_000, (Exception,), {})("x"),
        "odd name": type("a\0b\ud800", (Exception,), {})("x") if False else ValueError("x"),
        "syntax": SyntaxError("bad", ("file\0", "one", 2, "text\ud800")),
        "unicode": UnicodeDecodeError("utf-8", b"\xff" * 1000, 0, 1, "bad"),
    }

    @jobs.task(max_attempts=1)
    def boom(which: str) -> None:
        raise kinds[which]

    handles = {which: boom.enqueue(which) for which in kinds}
    worker = hand(concurrency=50)
    worker.step()
    for which, handle in handles.items():
        with pytest.raises(JobFailed) as caught:
            handle.result(0)
        (error,) = caught.value.errors
        assert error.type, which
        assert len(error.type) <= 200, which
        assert len(error.message) <= describe.MESSAGE_MAX, which
        assert 0 < len(error.traceback) <= describe.TRACEBACK_MAX, which
        for text in error:
            assert "\0" not in text, which
            text.encode()
    messages = {which: worker.row(handle.id).error.message for which, handle in handles.items()}
    assert "str() raised OSError" in messages["str raises"]
    assert "str() raised SystemExit" in messages["str exits"]
    assert messages["nul"] == "a\\x00b"
    assert messages["surrogate"] == "a\\ud800b"
    assert messages["50 MB"].startswith("xxx")
    assert "characters left out" in messages["50 MB"]


def test_endless_recursion_is_an_error_with_the_end_of_its_traceback(
    jobs: JobQueue, hand: Any
) -> None:
    @jobs.task(max_attempts=1)
    def dig(depth: int = 0) -> None:
        dig(depth + 1)

    handle = dig.enqueue()
    hand().step()
    with pytest.raises(JobFailed, match="RecursionError") as caught:
        handle.result(0)
    assert len(caught.value.errors[0].traceback) <= describe.TRACEBACK_MAX


def test_a_traceback_begins_in_the_handler_and_shows_no_locals(jobs: JobQueue, hand: Any) -> None:
    @jobs.task(max_attempts=1)
    def boom() -> None:
        password = "hunter2"  # noqa: F841
        raise ValueError("no")

    handle = boom.enqueue()
    hand().step()
    with pytest.raises(JobFailed) as caught:
        handle.result(0)
    text = caught.value.errors[0].traceback
    assert "in boom" in text
    assert "worker/execute/executor.py" not in text
    assert text.rstrip().endswith("ValueError: no")


# Signals


def test_a_snooze_gives_the_attempt_back_and_waits(jobs: JobQueue, hand: Any) -> None:
    seen: list[int] = []

    @jobs.task(max_attempts=2)
    def sleepy() -> int:
        seen.append(current_job().attempt)
        if len(seen) < 4:
            raise Snooze(timedelta(seconds=30), minutes=1, reason="the moon is not up")
        return 7

    handle = sleepy.enqueue()
    worker = hand()
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


def test_a_job_that_was_snoozed_too_often_fails_with_the_reason(jobs: JobQueue, hand: Any) -> None:
    runs: list[int] = []

    @jobs.task
    def sleepy() -> None:
        runs.append(1)
        raise Snooze(60)

    handle = sleepy.enqueue()
    worker = hand(max_snoozes=3)
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
    jobs: JobQueue, hand: Any
) -> None:
    @jobs.task(max_attempts=1)
    def sleepy() -> None:
        raise Snooze(60)

    handle = sleepy.enqueue()
    worker = hand()
    worker.step()
    row = worker.row(handle.id)
    assert (row.state, row.attempt) == (State.FAILED, 1)
    assert "max_attempts=1 allows one start only" in str(row.reason)


def test_a_retry_is_charged_and_comes_after_the_handlers_own_time(
    jobs: JobQueue, hand: Any
) -> None:
    @jobs.task(max_attempts=2, backoff=fixed(1000))
    def flaky(after: float | None) -> None:
        raise Retry(after, reason="busy")

    own, default = flaky.enqueue(300.0), flaky.enqueue(None)
    worker = hand()
    worker.step()
    for handle, seconds in ((own, 300), (default, 1000)):
        row = worker.row(handle.id)
        assert (row.state, row.attempt) == (State.SCHEDULED, 1)
        assert worker.due_in(handle.id) == pytest.approx(seconds, abs=5)
        assert worker.attempts(handle.id) == [(1, "errored", "Retry")]
    assert worker.finish(own.id).state is State.FAILED
    with pytest.raises(JobFailed, match="busy"):
        own.result(0)


def test_a_handler_that_cancels_ends_its_job_for_good(jobs: JobQueue, hand: Any) -> None:
    @jobs.task
    def stop() -> None:
        raise Cancel("the order is gone\0")

    handle = stop.enqueue()
    worker = hand()
    worker.step()
    row = worker.row(handle.id)
    assert (row.state, row.attempt, row.reason) == (State.CANCELLED, 1, "the order is gone\\x00")
    assert worker.attempts(handle.id) == [(1, "cancelled", None)]
    with pytest.raises(JobCancelled):
        handle.result(0)


def test_no_delay_that_a_handler_asks_for_is_out_of_range(jobs: JobQueue, hand: Any) -> None:
    odd = [math.nan, math.inf, -math.inf, -5.0, 1e300, 0.0]

    @jobs.task
    def flaky(which: int, snooze: bool) -> None:
        raise (Snooze if snooze else Retry)(odd[which])

    handles = [flaky.enqueue(n, snooze) for n in range(len(odd)) for snooze in (True, False)]
    worker = hand(concurrency=20)
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
    jobs: JobQueue, hand: Any
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
        "a delay that is no number": lambda: Snooze("5m"),  # type: ignore[arg-type]
    }

    @jobs.task
    def odd(which: str) -> None:
        raise raised[which]()

    handles = {which: odd.enqueue(which) for which in raised}
    worker = hand(concurrency=20)
    worker.step()
    assert worker.inflight.held == {}
    for which, handle in handles.items():
        row = worker.row(handle.id)
        assert row.state is not State.RUNNING, which
        assert len(row.reason or "") <= 1000, which


# Timeouts, cancelling


def test_a_check_after_the_timeout_ends_the_attempt_as_timed_out(
    jobs: JobQueue, hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = [100.0]
    monkeypatch.setattr("jobqueue.worker.handler.context.time.monotonic", lambda: present[0])

    @jobs.task(timeout=5, max_attempts=2)
    def slow() -> None:
        job = current_job()
        assert job.remaining() == pytest.approx(5.0)
        job.check()
        present[0] += 6
        assert job.remaining() == 0.0
        job.check()

    handle = slow.enqueue()
    worker = hand()
    worker.step()
    assert worker.attempts(handle.id) == [(1, "timed out", "AttemptTimeout")]
    assert worker.state(handle.id) is State.SCHEDULED
    assert worker.counted("errored_attempts") == 1
    assert worker.finish(handle.id).state is State.FAILED


def test_a_running_job_that_was_cancelled_ends_cancelled_whatever_its_handler_does(
    jobs: JobQueue, hand: Any
) -> None:
    ends: dict[str, Callable[[], Any]] = {
        "returns": lambda: 1,
        "checks": lambda: current_job().check(),
        "errors": lambda: 1 / 0,
        "snoozes": lambda: (_ for _ in ()).throw(Snooze(5)),
        "retries": lambda: (_ for _ in ()).throw(Retry(5)),
    }
    worker: Any = None

    @jobs.task
    def told(how: str) -> None:
        job = current_job()
        job.check()
        assert not job.cancelled
        jobs.cancel(job.id)
        worker.heartbeat.tick()
        assert job.cancelled
        ends[how]()

    handles = {how: told.enqueue(how) for how in ends}
    worker = hand(concurrency=10)
    worker.step()
    for how, handle in handles.items():
        assert worker.state(handle.id) is State.CANCELLED, how
    assert worker.counted("cancelled") == len(ends)
    assert worker.counted("succeeded") == 0


def test_the_cancellation_of_another_job_is_an_error_like_any_other(
    jobs: JobQueue, hand: Any
) -> None:
    @jobs.task
    def other() -> None: ...

    @jobs.task
    def waits(id_: int) -> None:
        jobs.get(id_).result(0)

    first = other.options(delay=60).enqueue()
    jobs.cancel(first.id)
    handle = waits.enqueue(first.id)
    worker = hand()
    worker.step()
    assert worker.state(handle.id) is State.SCHEDULED
    assert worker.attempts(handle.id) == [(1, "errored", "JobCancelled")]


# Claims that cannot be run


def test_an_unknown_task_waits_ten_seconds_uncharged_and_is_logged_once_a_minute(
    url: str, jobs: JobQueue, hand: Any, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = [1000.0]

    class Time:
        monotonic = staticmethod(lambda: present[0])

    monkeypatch.setattr(admission, "time", Time)
    with JobQueue(url) as newer:

        @newer.task(max_attempts=1)
        def later() -> int:
            return 5

        handles = newer.enqueue_many([later.call(), later.call()])
        old, new = hand(), hand(newer)
        for passed, expected in ((0, 1), (10, 1), (49.9, 1), (0.2, 2)):
            present[0] += passed
            began = old.database_time()
            old.step()
            ended = old.database_time()
            for handle in handles:
                row = old.row(handle.id)
                assert (row.state, row.attempt, row.snoozes) == (State.SCHEDULED, 0, 0)
                assert "later" in str(row.reason)
                assert began <= row.run_at - timedelta(seconds=10) <= ended
                assert old.attempts(handle.id) == []
                jobs.retry(handle.id)
            assert len(lines(WARNING, "no task is named 'later'")) == expected
        assert old.inflight.processed == 0
        new.step()
        assert [handle.result(0) for handle in handles] == [5, 5]


def test_arguments_that_no_longer_bind_fail_at_once(url: str, jobs: JobQueue, hand: Any) -> None:
    ran: list[int] = []

    def define(queue: JobQueue, function: Any) -> Any:
        return queue.task(name="change")(function)

    with JobQueue(url) as before:

        def old(x: str, y: int = 0) -> None: ...

        def new(x: int) -> None:
            ran.append(x)

        change = define(before, old)
        define(jobs, new)
        handles = [change.enqueue("no number"), change.enqueue("1", 2), change.enqueue("1", y=2)]
        worker = hand()
        broken = [change.enqueue("1") for _ in range(3)]
        for handle, text in zip(broken, ("5", "{}", '{"args":1,"kwargs":{}}'), strict=True):
            worker.change(handle.id, args=text)
        for handle in handles + broken:
            worker.step()
            row = worker.row(handle.id)
            assert (row.state, row.attempt) == (State.FAILED, 1)
            assert row.reason == "its arguments do not fit the task any more"
            assert worker.attempts(handle.id) == [(1, "refused", "InvalidArguments")]
    assert ran == []


def test_a_cancelled_claim_that_has_not_begun_never_begins(jobs: JobQueue, hand: Any) -> None:
    ran: list[int] = []

    @jobs.task
    def work(n: int) -> None:
        ran.append(n)

    handles = [work.enqueue(n) for n in range(2)]
    worker = hand()
    worker.claim()
    jobs.cancel(handles[0].id)
    worker.heartbeat.tick()
    worker.execute()
    worker.complete()
    assert ran == [1]
    assert [worker.state(handle.id) for handle in handles] == [State.CANCELLED, State.SUCCEEDED]
    assert worker.row(handles[0].id).attempt == 0


def test_nothing_begins_while_the_lease_is_in_doubt(
    jobs: JobQueue, hand: Any, clock: Any, wait_until: Any
) -> None:
    ran = threading.Event()

    @jobs.task
    def work() -> None:
        ran.set()

    handle = work.enqueue()
    worker = hand(lease=30)
    (claim,) = worker.claim()
    clock.pass_(30)
    assert not worker.inflight.lease.good()
    worker.inflight.inbox.put(None)
    asked = threading.Event()
    wait = worker.inflight.lease.wait

    def waits(timeout: float) -> bool:
        asked.set()
        return wait(timeout)

    worker.inflight.lease.wait = waits
    thread = threading.Thread(target=worker.executor.loop)
    thread.start()
    try:
        assert asked.wait(10)
        assert not ran.is_set()
        assert worker.planner.wanted() == 0
    finally:
        worker.heartbeat.tick()  # It lands, and the row is there: the claim is still good.
        thread.join(10)
    assert ran.is_set()
    worker.complete()
    assert worker.state(handle.id) is State.SUCCEEDED
    assert worker.row(handle.id).fence == claim.fence + 1


def test_a_claim_that_waits_for_the_lease_is_given_back_at_a_stop(
    jobs: JobQueue, hand: Any, clock: Any
) -> None:
    ran: list[int] = []

    @jobs.task
    def work() -> None:
        ran.append(1)

    handle = work.enqueue()
    worker = hand(lease=30)
    worker.claim()
    clock.pass_(30)
    worker.inflight.closing = True  # Its slot has taken it out of the inbox, and waits.
    worker.execute()
    worker.complete()
    assert ran == []
    assert (worker.state(handle.id), worker.row(handle.id).attempt) == (State.AVAILABLE, 0)


def test_a_claim_of_a_lost_lease_never_begins(jobs: JobQueue, hand: Any) -> None:
    ran: list[int] = []

    @jobs.task
    def work() -> None:
        ran.append(1)

    handle = work.enqueue()
    worker = hand()
    worker.claim()
    assert worker.inflight.abandon() == 1
    worker.execute()
    assert ran == []
    assert worker.outbox() == []
    assert worker.state(handle.id) is State.RUNNING  # until a reaper takes it


# Middleware


def test_middleware_wraps_in_the_order_in_which_it_was_given(jobs: JobQueue, hand: Any) -> None:
    story: list[str] = []

    @jobs.use
    def outer(context: Any, run: Any) -> Any:
        story.append(f"outer {context.task}")
        result = run()
        story.append("outer done")
        return result

    @jobs.use
    def inner(context: Any, run: Any) -> Any:
        assert current_job() == context
        story.append("inner")
        return run() + 1

    @jobs.task
    def work(x: int) -> int:
        story.append("work")
        return x

    handle = work.enqueue(41)
    hand().step()
    assert handle.result(0) == 42
    assert story == ["outer work", "inner", "work", "outer done"]


def test_middleware_may_answer_itself_try_again_turn_errors_and_raise(
    jobs: JobQueue, hand: Any
) -> None:
    runs: list[str] = []

    @jobs.use
    def bold(context: Any, run: Any) -> Any:
        if context.task == "answered":
            return 7
        if context.task == "twice":
            try:
                return run()
            except ValueError:
                return run()
        if context.task == "turned":
            try:
                return run()
            except ValueError:
                raise Snooze(60) from None
        if context.task == "broken":
            raise RuntimeError("in the middleware")
        return run()

    def define(name: str, times: int) -> Any:
        @jobs.task(name=name, max_attempts=2)
        def work() -> int:
            runs.append(name)
            if runs.count(name) <= times:
                raise ValueError("no")
            return 3

        return work.enqueue()

    handles = [
        define(name, n)
        for name, n in (("answered", 9), ("twice", 1), ("turned", 9), ("broken", 0), ("plain", 0))
    ]
    worker = hand(concurrency=9)
    worker.step()
    states = [worker.state(handle.id) for handle in handles]
    done, later = State.SUCCEEDED, State.SCHEDULED
    assert states == [done, done, later, later, done]
    assert [handles[0].result(0), handles[1].result(0)] == [7, 3]
    assert runs == ["twice", "twice", "turned", "plain"]
    assert worker.attempts(handles[2].id) == [(1, "snoozed", None)]
    assert worker.attempts(handles[3].id) == [(1, "errored", "RuntimeError")]


# current_job()


def test_current_job_knows_the_attempt(jobs: JobQueue, hand: Any, lines: Any) -> None:
    seen: dict[str, Any] = {}

    @jobs.task(queue="mail", timeout=60, max_attempts=3)
    def look() -> None:
        job = current_job()
        seen.update(
            id=job.id,
            task=job.task,
            queue=job.queue,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            fence=job.fence,
            cancelled=job.cancelled,
        )
        assert job.deadline is not None
        assert 50 < (job.deadline - datetime.now(UTC)).total_seconds() <= 60
        assert 50 < job.remaining() <= 60  # type: ignore[operator]
        job.log.info("hello %s", "you")
        assert current_job() == job
        assert type(job) is JobContext  # What a worker adds is not on it.

    handle = look.enqueue()
    worker = hand()
    worker.step()
    assert worker.state(handle.id) is State.SUCCEEDED
    assert seen == {
        "id": handle.id,
        "task": "look",
        "queue": "mail",
        "attempt": 1,
        "max_attempts": 3,
        "fence": 1,
        "cancelled": False,
    }
    assert lines(part="hello") == [f"job {handle.id} (look): hello you"]


def test_an_attempt_without_a_timeout_has_no_deadline(jobs: JobQueue, hand: Any) -> None:
    @jobs.task
    def look() -> list[bool]:
        job = current_job()
        job.check()
        return [job.deadline is None, job.remaining() is None]

    handle = look.enqueue()
    hand().step()
    assert handle.result(0) == [True, True]


def test_current_job_outside_of_a_job_is_an_error(jobs: JobQueue, hand: Any) -> None:
    @jobs.task
    def work() -> None: ...

    with pytest.raises(JobQueueError, match="current_job"):
        current_job()
    work.enqueue()
    hand().step()
    with pytest.raises(JobQueueError, match="current_job"):
        current_job()


def test_progress_that_is_none_is_refused_and_the_job_goes_on(jobs: JobQueue, hand: Any) -> None:
    refused: list[object] = []
    worker: Any = None

    @jobs.task
    def work() -> int:
        job = current_job()
        job.progress(0.25, "a quarter")
        for odd in (1.5, 150, -1, math.nan, math.inf, "half", "50%", True, [0.5], 10**400):
            try:
                job.progress(odd)  # type: ignore[arg-type]
            except InvalidArguments as error:
                assert error.field == "fraction"
                refused.append(error.value)
        worker.heartbeat.tick()
        return 1

    handle = work.enqueue()
    worker = hand()
    worker.step()
    assert handle.result(0) == 1
    assert len(refused) == 10
    row = worker.row(handle.id)
    assert (row.progress, row.progress_message) == (0.25, "a quarter")


@pytest.mark.parametrize("succeeds", [True, False])
def test_the_last_word_of_progress_is_written_with_the_end(
    jobs: JobQueue, hand: Any, succeeds: bool
) -> None:
    worker: Any = None

    @jobs.task(max_attempts=1)
    def work() -> None:
        current_job().progress(0.5, "half")
        worker.heartbeat.tick()
        current_job().progress(0.75, "three quarters")
        assert succeeds

    handle = work.enqueue()
    worker = hand()
    worker.step()
    row = worker.row(handle.id)
    assert row.state is (State.SUCCEEDED if succeeds else State.FAILED)
    assert (row.progress, row.progress_message) == (0.75, "three quarters")
    assert not worker.inflight.running._progress, "it is kept no longer than its outcome"


def test_progress_of_a_claim_that_was_lost_is_not_written_with_the_end(
    jobs: JobQueue, hand: Any
) -> None:
    worker: Any = None

    @jobs.task
    def work() -> None:
        current_job().progress(0.5, "half")
        worker.change(handle.id, state="available", worker_id=None, fence=2)  # As a reaper does.

    handle = work.enqueue()
    worker = hand()
    worker.step()
    assert worker.row(handle.id).progress is None


def test_only_the_last_word_of_progress_is_written_made_safe_and_short(
    jobs: JobQueue, hand: Any
) -> None:
    worker: Any = None

    @jobs.task
    def work() -> None:
        current_job().progress(0)
        current_job().progress(1, "a\0b\ud800" + "x" * 10_000_000)
        worker.heartbeat.tick()

    handle = work.enqueue()
    worker = hand()
    worker.step()
    row = worker.row(handle.id)
    assert row.state is State.SUCCEEDED
    assert row.progress == 1.0
    assert str(row.progress_message).startswith("a\\x00b\\ud800xxx")
    assert len(str(row.progress_message)) == 1000


# Backoff


def test_backoff_is_the_calls_own_then_the_tasks_then_the_default(
    jobs: JobQueue, hand: Any
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
    worker = hand(concurrency=10)
    worker.step()
    for id_, (least, most) in cases.items():
        assert least - 5 <= worker.due_in(id_) <= most + 5, worker.row(id_)


def test_a_deploy_that_changes_a_tasks_backoff_changes_it_for_jobs_that_wait(
    url: str, jobs: JobQueue, hand: Any
) -> None:
    def boom() -> None:
        raise ValueError

    with JobQueue(url) as before:
        id_ = before.task(backoff=fixed(1000))(boom).enqueue().id
    jobs.task(backoff=fixed(50))(boom)
    worker = hand()
    worker.step()
    assert worker.due_in(id_) == pytest.approx(50, abs=5)


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_backoff_at_attempt_1000_is_at_the_cap_and_never_overflows(
    jobs: JobQueue, hand: Any, backend_name: str
) -> None:
    for base in (1.0001, 2, 1000):
        for attempt in (1, 1000, 1_000_000):
            delay = exponential(base=base, cap=3600).delay(attempt)
            assert 0 < delay <= 1.25 * 3600

    @jobs.task(max_attempts=2000)
    def boom() -> None:
        raise ValueError

    handle = boom.enqueue()
    worker = hand()
    worker.change(handle.id, attempt=999)
    worker.step()
    assert worker.row(handle.id).attempt == 1000
    assert 0.75 * 3600 - 5 <= worker.due_in(handle.id) <= 1.25 * 3600 + 5


def test_a_stored_backoff_that_cannot_be_read_is_replaced_by_the_tasks(
    jobs: JobQueue, hand: Any
) -> None:
    @jobs.task(backoff=fixed(100))
    def boom() -> None:
        raise ValueError("no")

    stored = ["{}", "5", '{"base": 0, "cap": -1}', '{"base": "x", "cap": "y"}']
    handles = [boom.enqueue() for _ in stored]
    worker = hand(concurrency=10)
    for handle, text in zip(handles, stored, strict=True):
        worker.change(handle.id, backoff=text)
    worker.step()
    for handle, text in zip(handles, stored, strict=True):
        assert worker.state(handle.id) is State.SCHEDULED, text
        assert worker.due_in(handle.id) == pytest.approx(100, abs=5), text


# finish_within


def test_a_job_that_finishes_within_the_handlers_transaction_succeeds_with_it(
    url: str, jobs: JobQueue, hand: Any
) -> None:
    worker: Any = None

    @jobs.task
    def effect(how: str) -> int:
        current_job().progress(0.75, how)
        with worker.store.engine.connect() as connection:
            transaction = connection.begin()
            current_job().finish_within(connection, result={"how": how})
            current_job().progress(1.0, "said in vain, unless it is rolled back")
            if how == "rolls back":
                transaction.rollback()
            elif how != "leaves open":
                transaction.commit()
        if how == "raises after":
            raise ValueError("too late")
        return 1

    hows = ["commits", "raises after", "rolls back", "leaves open"]
    handles = {how: effect.enqueue(how) for how in hows}
    worker = hand(concurrency=1, lease=60)
    for _ in hows:
        worker.step()
    for how in hows[:2]:
        assert handles[how].result(0) == {"how": how}
        assert worker.attempts(handles[how].id)[-1] == (1, "succeeded", None)
        assert worker.row(handles[how].id).progress_message == how
    for how in hows[2:]:
        assert worker.state(handles[how].id) is State.SCHEDULED
        assert worker.attempts(handles[how].id) == [(1, "errored", "NotCommitted")]
        assert worker.row(handles[how].id).progress == 1.0
    assert worker.counted("succeeded") == 2


def test_a_stale_claim_cannot_finish_within_a_transaction(jobs: JobQueue, hand: Any) -> None:
    caught: list[type] = []
    worker: Any = None

    @jobs.task
    def effect(how: str) -> None:
        job = current_job()
        if how == "stale":
            worker.change(job.id, fence=job.fence + 1)
        else:
            jobs.cancel(job.id)
        try:
            with worker.store.engine.begin() as connection:
                job.finish_within(connection)
        except (ClaimLost, JobCancelled) as error:
            caught.append(type(error))
            raise

    stale, cancelled = effect.enqueue("stale"), effect.enqueue("cancelled")
    worker = hand(concurrency=1)
    worker.step()
    worker.step()
    assert caught == [ClaimLost, JobCancelled]
    assert worker.state(stale.id) is State.RUNNING  # It is another's, as far as this one knows.
    assert worker.state(cancelled.id) is State.CANCELLED
