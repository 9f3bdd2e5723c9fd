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

WAYS = [("returns", 0), ("raises", 1), ("exits", 3)]


def come_back(how: str) -> int:
    """What a child does that does not mind where it is."""
    print("from the child")
    if how == "raises":
        raise ValueError("raised in the child")
    if how == "exits":
        sys.exit(3)
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


@pytest.mark.parametrize("pauses", [0, 100])
def test_a_child_that_comes_back_from_an_async_handler_ends_and_begins_no_job_of_the_worker(
    jobs: JobQueue,
    tmp_path: Path,
    ended: Callable[[int], int],
    wait_until: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    pauses: int,
) -> None:
    ran = tmp_path / "ran"

    @jobs.task(max_attempts=1)
    async def forks() -> int:
        waiting = worker._inflight.capacity.asynchronous
        wait_until(lambda: len(waiting.open) == 6)  # All are in the loop's line.
        if child := os.fork():
            return child
        for _ in range(pauses):  # The loop would begin other jobs meanwhile.
            await asyncio.sleep(0)
        return come_back("returns")

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
    if not pauses:  # Otherwise it ends where the loop would begin another job.
        check(first.record(), capfd.readouterr(), "returns")


def check(record: Any, printed: Any, how: str) -> None:
    """The parent's outcome is the job's, and the child was heard."""
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)
    assert "from the child" in printed.out
    if how == "raises":
        assert "ValueError: raised in the child" in printed.err
