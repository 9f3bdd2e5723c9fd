"""Tasks under a plain decorator, and those whose function is an `async def`."""

import asyncio
import functools
import threading
from typing import Any

import pytest

from jobqueue import InvalidArguments, JobCancelled, JobFailed, JobQueue, State, current_job


def passing(function: Any) -> Any:
    """As a library for validation does it: a plain def that calls through."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def running(function: Any) -> Any:
    """As a library for commands does it: a plain def that runs the coroutine itself."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return wrapper


def bare(function: Any) -> Any:
    """As one that forgets `functools.wraps`: what it wraps cannot be seen."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_a_wrapper_that_does_not_say_what_it_wraps_runs_with_what_json_has(jobs: JobQueue) -> None:
    @jobs.task(name="nameless")
    @bare
    def wrapped(session: str, *numbers: int, more: int) -> list[Any]:
        return [session, *numbers, more]

    with jobs.worker():
        assert wrapped.enqueue("s", 1, 2, more=3).result(30) == ["s", 1, 2, 3]
    with pytest.raises(InvalidArguments, match="tuple is not JSON"):
        wrapped.enqueue((1, 2))


def test_a_coroutine_that_a_wrapper_returns_runs_on_the_workers_loop(jobs: JobQueue) -> None:
    @jobs.task
    async def direct() -> tuple[str, int]:
        return threading.current_thread().name, current_job().id

    @jobs.task
    @passing
    async def wrapped(x: int) -> tuple[str, int]:
        await asyncio.sleep(0)
        return threading.current_thread().name, current_job().id + x

    with jobs.worker():
        job = wrapped.enqueue(1)
        assert job.result(30) == ("jobqueue-loop", job.id + 1)
        other = direct.enqueue()
        assert other.result(30) == ("jobqueue-loop", other.id)


def test_a_wrapper_that_runs_the_coroutine_itself_goes_on_to_do_so(jobs: JobQueue) -> None:
    @jobs.task
    @running
    async def wrapped(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    with jobs.worker():
        assert wrapped.enqueue(1).result(30) == 2


def test_what_the_coroutine_of_a_wrapper_raises_is_how_the_attempt_ends(jobs: JobQueue) -> None:
    @jobs.task(max_attempts=1)
    @passing
    async def wrapped() -> None:
        await asyncio.sleep(0)
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise ValueError("no") from error

    with jobs.worker():
        with pytest.raises(JobFailed, match="ValueError: no") as caught:
            wrapped.enqueue().result(30)
    assert "ZeroDivisionError" in caught.value.errors[-1].traceback


def test_the_coroutine_of_a_wrapper_is_cancelled_and_timed_out(jobs: JobQueue) -> None:
    started = threading.Event()
    ended: list[str] = []

    @jobs.task(max_attempts=1)
    @passing
    async def wrapped() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    with jobs.worker(concurrency=1):
        job = wrapped.enqueue()
        assert started.wait(30)
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result(30)
        late = wrapped.options(timeout=0.2).enqueue()
        with pytest.raises(JobFailed, match="ran out of its 0.2 s"):
            late.result(30)
    assert ended == ["cleaned up"] * 2
    assert (job.state, late.state) == (State.CANCELLED, State.FAILED)
