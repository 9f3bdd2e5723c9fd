"""Async tasks on a whole worker: at once, cancelled, timed out, given back, and reported."""

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from jobqueue import JobCancelled, JobFailed, JobQueue, Snooze, State, current_job
from jobqueue.errors import JobQueueError
from jobqueue.worker.claim.planner import ASYNC_PROBE


def test_async_jobs_run_at_once_on_one_loop_and_beside_those_in_threads(jobs: JobQueue) -> None:
    together = 200
    arrived: list[int] = []
    everyone = asyncio.Event()
    threads: set[str] = set()

    @jobs.task
    async def meet() -> int:
        arrived.append(1)
        threads.add(threading.current_thread().name)
        if len(arrived) == together:
            everyone.set()
        await everyone.wait()
        return current_job().id

    @jobs.task
    def plain() -> str:
        return threading.current_thread().name

    handles = jobs.enqueue_many([meet.call() for _ in range(together)])
    with jobs.worker(concurrency=2):
        assert [job.result(30) for job in handles] == [job.id for job in handles]
        assert plain.enqueue().result(30).startswith("jobqueue-slot")
    assert threads == {"jobqueue-loop"}


def test_no_more_run_at_once_than_allowed(jobs: JobQueue) -> None:
    present = most = 0

    @jobs.task
    async def count() -> None:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await asyncio.sleep(0.02)
        present -= 1

    handles = jobs.enqueue_many([count.call() for _ in range(60)])
    with jobs.worker(async_concurrency=7):
        for job in handles:
            job.result(30)
    assert most == 7


def test_a_worker_holds_few_async_jobs_beyond_those_that_run(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()

    @jobs.task
    async def hold() -> None:
        await gate.wait()

    @jobs.task(max_attempts=1)
    async def once() -> None:
        await gate.wait()

    hold_all = jobs.enqueue_many([hold.call() for _ in range(200)])
    with jobs.worker(concurrency=4, async_concurrency=3, poll=0.05) as worker:
        wait_until(lambda: worker.running == 3)
        one = once.options(priority=-1).enqueue()  # First in line, and never held unbegun.
        for _ in range(20):
            worker._parts.claimer.wake()
            assert len(worker._inflight.held) <= 3 + 4 + ASYNC_PROBE
        assert one.record().state is State.AVAILABLE
        assert worker._parts.planner.wanted() == 0
        worker._parts.async_runner._loop.call_soon_threadsafe(gate.set)
        for job in (*hold_all, one):
            job.result(30)


def test_one_that_waits_for_room_begins_only_if_it_may_when_there_is_some(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    begun: list[int] = []
    gate = asyncio.Event()

    @jobs.task
    async def hold() -> None:
        begun.append(current_job().id)
        await gate.wait()

    first, cancelled, lost = jobs.enqueue_many([hold.call() for _ in range(3)])
    with jobs.worker(concurrency=4, async_concurrency=1) as worker:
        wait_until(lambda: len(worker._inflight.held) == 3 and begun)
        cancelled.cancel()
        inflight = worker._inflight
        wait_until(lambda: cancelled.id in {id_ for id_, _ in inflight._cancel_requested})
        mine = inflight.held.pop(lost.id)  # As when the lease was taken away.
        worker._parts.async_runner._loop.call_soon_threadsafe(gate.set)
        first.result(30)
        wait_until(lambda: cancelled.record().state is State.CANCELLED)
        wait_until(lambda: not inflight.capacity.asynchronous.open)
        assert begun == [first.id]
        inflight.dispatch([mine], inflight.lease.worker)
        lost.result(30)


def test_a_stop_gives_back_at_once_what_waits_for_room(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    busy = threading.Event()

    @jobs.task
    async def hold() -> None:
        busy.wait(30)  # The loop meets the others and the stop in one round.
        await asyncio.sleep(600)

    first = hold.enqueue()
    worker = jobs.worker(concurrency=4, async_concurrency=1)
    worker.start()
    wait_until(lambda: worker.running)
    handles = [first, *jobs.enqueue_many([hold.call() for _ in range(3)])]
    wait_until(lambda: len(worker._inflight.held) == 4)
    worker._inflight.close()
    worker._parts.async_runner.release_waiting()
    busy.set()
    assert worker.stop(timeout=0.1) is False
    records = [job.record() for job in handles]
    assert [(record.state, record.attempt) for record in records] == [(State.AVAILABLE, 0)] * 4


def test_one_that_ends_the_loop_ends_only_itself(jobs: JobQueue) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    @jobs.task(max_attempts=1)
    async def exits() -> None:
        await asyncio.create_task(leave())

    @jobs.task
    async def stops() -> str:
        asyncio.get_running_loop().stop()
        return "stopped"

    @jobs.task
    async def well() -> str:
        await asyncio.sleep(0)
        return "well"

    with jobs.worker():
        for _ in range(2):
            with pytest.raises(JobFailed, match="SystemExit"):
                exits.enqueue().result(30)
            assert stops.enqueue().result(30) == "stopped"
            assert well.enqueue().result(30) == "well"


def test_those_that_ignore_their_cancellation_leave_room_for_others(jobs: JobQueue) -> None:
    gate = asyncio.Event()

    @jobs.task(timeout=0.1, max_attempts=1)
    async def stubborn() -> None:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    @jobs.task
    async def well() -> str:
        return "well"

    with jobs.worker(async_concurrency=2) as worker:
        for job in jobs.enqueue_many([stubborn.call() for _ in range(2)]):
            with pytest.raises(JobFailed, match="AttemptTimeout"):
                job.result(30)
        assert well.enqueue().result(30) == "well"
        worker._parts.async_runner._loop.call_soon_threadsafe(gate.set)
        assert well.enqueue().result(30) == "well"
        assert worker._parts.async_runner._places._value <= 2, (
            "what has ended at last made no room once more"
        )


def test_threads_that_are_all_busy_do_not_stop_async_jobs(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    gate = threading.Event()

    @jobs.task
    def hold() -> None:
        gate.wait(60)

    @jobs.task
    async def quick() -> int:
        return 1

    held = [hold.enqueue() for _ in range(2)]
    with jobs.worker(concurrency=2, poll=0.05) as worker:
        wait_until(lambda: worker.running == 2)
        assert [quick.enqueue().result(30) for _ in range(3)] == [1, 1, 1]
        gate.set()
        for job in held:
            job.result(30)


def test_signals_errors_and_results_mean_what_they_mean_in_threads(jobs: JobQueue) -> None:
    @jobs.task(max_attempts=1)
    async def boom() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    @jobs.task
    async def later() -> None:
        raise Snooze(3600)

    @jobs.task
    async def unstorable() -> Any:
        return object()

    with jobs.worker() as worker:
        with pytest.raises(JobFailed, match="no") as caught:
            boom.enqueue().result(30)
        assert "in boom" in (caught.value.errors[0].traceback or "")
        assert unstorable.enqueue().result(30) is None
        snoozed = later.enqueue()
        assert worker.wait(0) is False
        while snoozed.record().state is not State.SCHEDULED:
            pass
        assert snoozed.record().snoozes == 1


def test_a_cancelled_job_is_cancelled_where_it_awaits(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    begun, cleaned = threading.Event(), []

    @jobs.task
    async def endless() -> None:
        try:
            begun.set()
            await asyncio.sleep(3600)
        finally:
            cleaned.append("up")

    with jobs.worker():
        job = endless.enqueue()
        assert begun.wait(60)  # What is cancelled before never begins.
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result(30)
    assert cleaned == ["up"]


def test_a_timeout_cancels_and_is_recorded_with_its_reason(jobs: JobQueue) -> None:
    @jobs.task(timeout=0.1, max_attempts=1)
    async def slow() -> None:
        await asyncio.sleep(3600)

    with jobs.worker():
        with pytest.raises(JobFailed, match=r"ran out of its 0\.1 s") as caught:
            slow.enqueue().result(30)
    assert caught.value.errors[0].type == "jobqueue.errors.AttemptTimeout"


def test_one_that_ignores_its_cancellation_is_given_up_and_holds_up_no_stop(
    jobs: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    @jobs.task(timeout=0.1, max_attempts=1)
    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    with jobs.worker() as worker:
        with pytest.raises(JobFailed, match="still running"):
            stubborn.enqueue().result(30)
        assert worker.failure is None
        gate.set()
    assert "in stubborn" in caplog.text


def test_a_stop_waits_for_async_jobs_and_then_gives_them_back(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    gates = {"short": asyncio.Event(), "long": asyncio.Event()}

    @jobs.task
    async def nap(how: str) -> str:
        await gates[how].wait()
        return "rested"

    worker: Any = jobs.worker(shutdown_timeout=60)
    with worker, ThreadPoolExecutor(1) as pool:
        short, long = nap.enqueue("short"), nap.enqueue("long")
        wait_until(lambda: worker.running == 2)
        stopped = pool.submit(worker.stop)
        wait_until(lambda: worker._inflight.closing)
        worker._parts.async_runner._loop.call_soon_threadsafe(gates["short"].set)
        assert short.result(30) == "rested"
        worker.abort()
        assert stopped.result(30) is False
    assert short.record().state is State.SUCCEEDED
    assert (long.record().state, long.record().attempt) == (State.AVAILABLE, 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "jobqueue-loop"]


def test_a_blocked_loop_is_reported_with_the_name_of_what_blocks_it(
    jobs: JobQueue, wait_until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    @jobs.task
    async def blocks() -> None:
        gate.wait(60)

    with jobs.worker():
        job = blocks.enqueue()
        wait_until(lambda: "the event loop has been blocked" in caplog.text)
        gate.set()
        job.result(30)
    assert f"by job {job.id} (blocks) at" in caplog.text
    assert "gate.wait" in caplog.text


def test_middleware_may_be_async(jobs: JobQueue) -> None:
    seen: list[str] = []

    async def around(context: Any, run: Callable[[], Any]) -> Any:
        seen.append("before")
        result = await run()
        seen.append("after")
        return result

    jobs.use(around)

    @jobs.task
    async def work() -> int:
        seen.append(f"job {current_job().id}")
        return 5

    with jobs.worker():
        job = work.enqueue()
        assert job.result(30) == 5
    assert seen == ["before", f"job {job.id}", "after"]


def test_effects_of_an_async_session_are_committed_with_the_success(
    jobs: JobQueue, url: str
) -> None:
    engine = create_async_engine(
        url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+psycopg:")
    )
    plain = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with plain.begin() as connection:
        connection.execute(text("CREATE TABLE effects (id INTEGER)"))

    @jobs.task(max_attempts=1)
    async def effect(number: int, commits: bool) -> None:
        async with AsyncSession(engine) as session:
            await session.execute(text("INSERT INTO effects VALUES (:id)"), {"id": number})
            await current_job().afinish_within(session)
            if commits:
                await session.commit()
            else:
                await session.flush()
                current_job().log.info("left open")

    with jobs.worker():
        assert effect.enqueue(1, True).result(30) is None
        with pytest.raises(JobFailed, match="not committed"):
            effect.enqueue(2, False).result(30)
    with plain.begin() as connection:
        assert connection.execute(text("SELECT id FROM effects")).scalars().all() == [1]
    plain.dispose()
    asyncio.run(engine.dispose())


def test_calling_an_async_task_makes_its_coroutine(jobs: JobQueue) -> None:
    @jobs.task
    async def double(x: int) -> int:
        return 2 * x

    assert asyncio.run(double(4)) == 8
    assert double.is_async
    with pytest.raises(JobQueueError, match="runs no job"):
        current_job()


def test_jobs_that_the_loop_had_no_thread_for_run_once_it_has(
    jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, 0

    def start_later(thread: threading.Thread) -> None:
        nonlocal refused
        if thread.name == "jobqueue-loop" and refused < 2:
            refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    @jobs.task
    async def work() -> int:
        return current_job().attempt

    handles = jobs.enqueue_many([work.call() for _ in range(5)])
    monkeypatch.setattr(threading.Thread, "start", start_later)
    with jobs.worker(poll=0.05):
        assert [job.result(30) for job in handles] == [1] * 5
    assert refused == 2


@pytest.mark.parametrize("missing", ["thread", "file"])
def test_a_job_of_one_attempt_outlives_that_there_is_no_loop(
    jobs: JobQueue, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """It was claimed with others and has not begun, nor have those that were claimed after it."""
    start, new_loop, refused = threading.Thread.start, asyncio.new_event_loop, 0

    def refuse(error: Exception) -> None:
        nonlocal refused
        refused += 1
        if refused <= 2:
            raise error

    def start_later(thread: threading.Thread) -> None:
        if missing == "thread" and thread.name == "jobqueue-loop":
            refuse(RuntimeError("can't start new thread"))
        start(thread)

    def make_later() -> asyncio.AbstractEventLoop:
        if missing == "file":
            refuse(OSError(errno.EMFILE, "Too many open files"))
        return new_loop()

    @jobs.task(max_attempts=1)
    async def first() -> int:
        return current_job().attempt

    @jobs.task(max_attempts=1)
    def second() -> int:
        return current_job().attempt

    handles = jobs.enqueue_many([first.call(), second.call(), first.call(), second.call()])
    monkeypatch.setattr(threading.Thread, "start", start_later)
    monkeypatch.setattr(asyncio, "new_event_loop", make_later)
    with jobs.worker(poll=0.05):
        assert [job.result(30) for job in handles] == [1] * 4
    assert refused > 2


def test_a_task_that_is_added_while_the_worker_runs_is_async_all_the_same(jobs: JobQueue) -> None:
    with jobs.worker():

        @jobs.task
        async def late() -> str:
            await asyncio.sleep(0)
            return threading.current_thread().name

        assert [late.enqueue().result(30) for _ in range(3)] == ["jobqueue-loop"] * 3
