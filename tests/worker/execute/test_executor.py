"""The executor: every way in which a handler can end, and what its job becomes."""

import functools
import gc
import math
import threading
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jobqueue import JobFailed, JobQueue, JobQueueError, Retry, Snooze, State, current_job, fixed
from jobqueue.worker.execute import executor
from jobqueue.worker.handler import describe
from jobqueue.worker.handler.describe import type_name
from tests.worker.execute.executor_kit import WARNING
from tests.worker.conftest import Stepped

# Return


def test_a_job_whose_handler_returns_has_succeeded_with_its_result(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task
    def add(x: int, y: int = 1, *, z: int = 0) -> list[int]:
        return [x, y, z]

    handles = [add.enqueue(2), add.enqueue(2, 3), add.enqueue(2, z=5)]
    worker = stepped(name="w1")
    worker.step()
    assert [handle.result(0) for handle in handles] == [[2, 1, 0], [2, 3, 0], [2, 1, 5]]
    row = worker.row(handles[0].id)
    assert (row.state, row.attempt, row.worker, row.reason) == (State.SUCCEEDED, 1, "w1", None)
    assert worker.inflight.held == {}
    assert (worker.inflight.processed, worker.inflight.errored) == (3, 0)


def test_a_result_that_cannot_be_kept_is_dropped_and_the_job_has_succeeded(
    jobs: JobQueue, stepped: Stepped, lines: Any
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
    worker = stepped(concurrency=20)
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
    jobs: JobQueue, stepped: Stepped
) -> None:
    async def work() -> int:
        return 1

    @jobs.task(max_attempts=1)
    def sync() -> Any:
        return work()

    handle = sync.enqueue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stepped().step()
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
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task(max_attempts=2, backoff=fixed(60))
    def boom(which: int) -> None:
        raise EVERY_KIND[which]

    handles = [boom.enqueue(which) for which in range(len(EVERY_KIND))]
    worker = stepped(concurrency=20)
    worker.step()
    for error, handle in zip(EVERY_KIND, handles, strict=True):
        row = worker.row(handle.id)
        name = type_name(type(error))
        assert (row.state, row.attempt, row.worker) == (State.SCHEDULED, 1, None), name
        assert worker.attempts(handle.id) == [(1, "errored", name)]
        assert worker.due_in(handle.id) == pytest.approx(60, abs=5)
        assert row.error is not None
        assert row.error.message == str(error)
    for handle in handles:
        jobs.retry(handle.id)
    worker.step()
    for error, handle in zip(EVERY_KIND, handles, strict=True):
        name = type_name(type(error))
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


def test_whatever_an_exception_does_it_is_recorded_within_bounds(
    jobs: JobQueue, stepped: Stepped
) -> None:
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
    worker = stepped(concurrency=50)
    worker.step()
    for which, handle in handles.items():
        with pytest.raises(JobFailed) as caught:
            handle.result(0)
        (error,) = caught.value.errors
        assert error.type, which
        assert len(error.type) <= 200, which
        assert len(error.message) <= describe.MESSAGE_MAX, which
        assert 0 < len(error.traceback) <= describe.TRACEBACK_MAX, which
        for text in error[:3]:
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
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task(max_attempts=1)
    def dig(depth: int = 0) -> None:
        dig(depth + 1)

    handle = dig.enqueue()
    stepped().step()
    with pytest.raises(JobFailed, match="RecursionError") as caught:
        handle.result(0)
    assert len(caught.value.errors[0].traceback) <= describe.TRACEBACK_MAX


def test_a_traceback_begins_in_the_handler_and_shows_no_locals(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task(max_attempts=1)
    def boom() -> None:
        password = "hunter2"  # noqa: F841
        raise ValueError("no")

    handle = boom.enqueue()
    stepped().step()
    with pytest.raises(JobFailed) as caught:
        handle.result(0)
    text = caught.value.errors[0].traceback
    assert "in boom" in text
    assert "worker/execute/executor.py" not in text
    assert text.rstrip().endswith("ValueError: no")


# Timeouts, cancelling


def test_a_check_after_the_timeout_ends_the_attempt_as_timed_out(
    jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
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
    worker = stepped()
    worker.step()
    assert worker.attempts(handle.id) == [(1, "timed out", "jobqueue.errors.AttemptTimeout")]
    assert worker.state(handle.id) is State.SCHEDULED
    assert worker.counted("errored_attempts") == 1
    assert worker.finish(handle.id).state is State.FAILED


def test_a_running_job_that_was_cancelled_ends_cancelled_whatever_its_handler_does(
    jobs: JobQueue, stepped: Stepped
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
    worker = stepped(concurrency=10)
    worker.step()
    for how, handle in handles.items():
        assert worker.state(handle.id) is State.CANCELLED, how
    assert worker.counted("cancelled") == len(ends)
    assert worker.counted("succeeded") == 0


def test_the_cancellation_of_another_job_is_an_error_like_any_other(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task
    def other() -> None: ...

    @jobs.task
    def waits(id_: int) -> None:
        jobs.get(id_).result(0)

    first = other.options(delay=60).enqueue()
    jobs.cancel(first.id)
    handle = waits.enqueue(first.id)
    worker = stepped()
    worker.step()
    assert worker.state(handle.id) is State.SCHEDULED
    assert worker.attempts(handle.id) == [(1, "errored", "jobqueue.errors.JobCancelled")]


# Claims that cannot be run


def test_an_unknown_task_waits_ten_seconds_uncharged_and_is_logged_once_a_minute(
    url: str, jobs: JobQueue, stepped: Stepped, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = [1000.0]

    class Time:
        monotonic = staticmethod(lambda: present[0])

    monkeypatch.setattr(executor, "time", Time)
    with JobQueue(url) as newer:

        @newer.task(max_attempts=1)
        def later() -> int:
            return 5

        handles = newer.enqueue_many([later.call(), later.call()])
        old, new = stepped(), stepped(newer)
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


def test_arguments_that_no_longer_bind_fail_at_once(
    url: str, jobs: JobQueue, stepped: Stepped
) -> None:
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
        worker = stepped()
        broken = [change.enqueue("1") for _ in range(3)]
        for handle, text in zip(broken, ("5", "{}", '{"args":1,"kwargs":{}}'), strict=True):
            worker.change(handle.id, args=text)
        for handle in handles + broken:
            worker.step()
            row = worker.row(handle.id)
            assert (row.state, row.attempt) == (State.FAILED, 1)
            assert row.reason == "its arguments do not fit the task any more"
            assert worker.attempts(handle.id) == [
                (1, "refused", "jobqueue.errors.InvalidArguments")
            ]
    assert ran == []


def test_a_cancelled_claim_that_has_not_begun_never_begins(
    jobs: JobQueue, stepped: Stepped
) -> None:
    ran: list[int] = []

    @jobs.task
    def work(n: int) -> None:
        ran.append(n)

    handles = [work.enqueue(n) for n in range(2)]
    worker = stepped()
    worker.claim()
    jobs.cancel(handles[0].id)
    worker.heartbeat.tick()
    worker.execute()
    worker.complete()
    assert ran == [1]
    assert [worker.state(handle.id) for handle in handles] == [State.CANCELLED, State.SUCCEEDED]
    assert worker.row(handles[0].id).attempt == 0


def test_nothing_begins_while_the_lease_is_in_doubt(
    jobs: JobQueue, stepped: Stepped, clock: Any, wait_until: Any
) -> None:
    ran = threading.Event()

    @jobs.task
    def work() -> None:
        ran.set()

    handle = work.enqueue()
    worker = stepped(lease=30)
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
        assert asked.wait(60)
        assert not ran.is_set()
        assert worker.planner.wanted() == 0
    finally:
        worker.heartbeat.tick()  # It lands, and the row is there: the claim is still good.
        thread.join(60)
    assert ran.is_set()
    worker.complete()
    assert worker.state(handle.id) is State.SUCCEEDED
    assert worker.row(handle.id).fence == claim.fence + 1


def test_a_claim_that_waits_for_the_lease_is_given_back_at_a_stop(
    jobs: JobQueue, stepped: Stepped, clock: Any
) -> None:
    ran: list[int] = []

    @jobs.task
    def work() -> None:
        ran.append(1)

    handle = work.enqueue()
    worker = stepped(lease=30)
    worker.claim()
    clock.pass_(30)
    worker.inflight.closing = True  # Its slot has taken it out of the inbox, and waits.
    worker.execute()
    worker.complete()
    assert ran == []
    assert (worker.state(handle.id), worker.row(handle.id).attempt) == (State.AVAILABLE, 0)


def test_a_claim_of_a_lost_lease_never_begins(jobs: JobQueue, stepped: Stepped) -> None:
    ran: list[int] = []

    @jobs.task
    def work() -> None:
        ran.append(1)

    handle = work.enqueue()
    worker = stepped()
    worker.claim()
    assert worker.inflight.abandon() == 1
    worker.execute()
    assert ran == []
    assert worker.outbox() == []
    assert worker.state(handle.id) is State.RUNNING  # until a reaper takes it
