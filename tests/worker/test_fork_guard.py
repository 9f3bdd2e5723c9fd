"""A process that a handler forks and that comes back from it: it ends, and has no say."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobqueue import JobQueue, State

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

WAYS = [("returns", 0), ("raises", 1), ("exits", 3), ("exits with words", 1)]


def come_back(how: str) -> int:
    """What a child does that does not mind where it is."""
    print("from the child")
    if how == "raises":
        raise ValueError("raised in the child")
    if how == "exits":
        sys.exit(3)
    if how == "exits with words":
        sys.exit("these words")
    return -1


@pytest.fixture
def ended(wait_until: Callable[..., Any]) -> Iterator[Callable[[int], int]]:
    """A function that waits for the end of a child and returns its exit code; none is left."""
    left: set[int] = set()

    def ended(child: int) -> int:
        left.add(child)
        _, status = wait_until(lambda: (it := os.waitpid(child, os.WNOHANG))[0] and it)
        left.discard(child)
        return os.waitstatus_to_exitcode(status)

    yield ended
    for child in left:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@pytest.mark.parametrize(("how", "code"), WAYS)
def test_a_child_that_comes_back_from_a_handler_in_a_thread_ends(
    jobs: JobQueue,
    tmp_path: Path,
    ended: Callable[[int], int],
    capfd: pytest.CaptureFixture[str],
    how: str,
    code: int,
) -> None:
    ran = tmp_path / "ran"

    @jobs.task(max_attempts=1)
    def forks() -> int:
        return os.fork() or come_back(how)

    @jobs.task
    def note() -> None:
        with ran.open("a") as file:
            file.write(f"{os.getpid()}\n")

    first = forks.enqueue()
    others = jobs.enqueue_many([note.call() for _ in range(5)])
    with jobs.worker(concurrency=1, poll=0.05):
        assert ended(first.result(30)) == code
        for job in others:
            job.result(30)
    assert ran.read_text().split() == [str(os.getpid())] * 5
    check(first.record(), capfd.readouterr(), how)


@pytest.mark.parametrize(("how", "code"), WAYS)
def test_a_child_that_comes_back_from_an_async_handler_ends(
    jobs: JobQueue,
    ended: Callable[[int], int],
    capfd: pytest.CaptureFixture[str],
    how: str,
    code: int,
) -> None:
    @jobs.task(max_attempts=1)
    async def forks() -> int:
        return os.fork() or come_back(how)

    @jobs.task
    async def note() -> int:
        return os.getpid()

    first = forks.enqueue()
    others = jobs.enqueue_many([note.call() for _ in range(5)])
    with jobs.worker(async_concurrency=1, poll=0.05):
        assert ended(first.result(30)) == code
        assert {job.result(30) for job in others} == {os.getpid()}
    check(first.record(), capfd.readouterr(), how)


def test_a_forked_async_handler_that_awaits_begins_no_job_of_the_worker(
    jobs: JobQueue, ended: Callable[[int], int], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    ran = tmp_path / "ran"

    @jobs.task(max_attempts=1)
    async def forks() -> int:
        waiting = worker._inflight.capacity.asynchronous
        wait_until(lambda: len(waiting.open) == 6)  # All are in the loop's line.
        if child := os.fork():
            return child
        for _ in range(100):
            await asyncio.sleep(0)
        return -1

    @jobs.task
    async def note() -> None:
        with ran.open("a") as file:
            file.write(f"{os.getpid()}\n")

    first, *others = jobs.enqueue_many([forks.call(), *(note.call() for _ in range(5))])
    worker = jobs.worker(concurrency=8, async_concurrency=8, poll=0.05)
    with worker:
        assert ended(first.result(30)) == 0
        for job in others:
            job.result(30)
    assert ran.read_text().split() == [str(os.getpid())] * 5


def check(record: Any, printed: Any, how: str) -> None:
    """The parent's outcome is the job's, and the child was heard."""
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)
    assert "from the child" in printed.out
    if how == "raises":
        assert "ValueError: raised in the child" in printed.err
    if how == "exits with words":
        assert "these words" in printed.err
