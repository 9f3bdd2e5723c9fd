"""The async twins: what a web application calls, from an event loop that goes on meanwhile."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from jobqueue import InvalidOption, Job, JobCancelled, JobNotFound, JobQueue, State
from jobqueue import queue as queue_module


async def listed(jobs: JobQueue, **wanted: Any) -> list[int]:
    return [record.id async for record in jobs.alist(**wanted)]


def test_a_job_is_found_read_listed_and_cancelled_from_asyncio(jobs: JobQueue, add: Any) -> None:
    async def main() -> None:
        made = [await add.options(delay=60, tags=["a"]).aenqueue(n) for n in range(3)]
        newest_first = [job.id for job in reversed(made)]
        found = await jobs.aget(made[0].id)
        assert found == made[0]
        assert (await found.arecord()).tags == ("a",)
        await found.acancel()
        assert (await found.arecord()).state is State.CANCELLED
        assert (await found.awhy()).code == "cancelled"
        assert await listed(jobs) == newest_first
        assert await listed(jobs, limit=2) == newest_first[:2]
        assert await listed(jobs, state=State.SCHEDULED, task="add", tag="a") == newest_first[:2]
        await asyncio.to_thread(jobs.delete, found.id)
        with pytest.raises(JobNotFound):
            await jobs.aget(found.id)
        with pytest.raises(JobNotFound):
            await found.arecord()
        with pytest.raises(JobNotFound):
            await found.acancel()
        with pytest.raises(JobNotFound):
            await found.awhy()
        with pytest.raises(InvalidOption, match="state"):
            await listed(jobs, state="' OR 1=1 --")

    asyncio.run(main())


@pytest.mark.databases("sqlite")
def test_a_long_list_is_read_in_pages(
    jobs: JobQueue, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "ASYNC_PAGE", 2)
    made = [job.id for job in jobs.enqueue_many([add.call(n) for n in range(5)])]
    for limit in (None, 4, 3):
        assert asyncio.run(listed(jobs, limit=limit)) == made[::-1][:limit]


def test_the_async_list_takes_what_the_list_takes() -> None:
    assert inspect.signature(JobQueue.alist).parameters == (
        inspect.signature(JobQueue.list).parameters
    )


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "call",
    [
        lambda jobs, job: jobs.registry["add"].aenqueue(1),
        lambda jobs, job: jobs.aget(job.id),
        lambda jobs, job: job.arecord(),
        lambda jobs, job: job.acancel(),
        lambda jobs, job: job.awhy(),
        lambda jobs, job: listed(jobs),
        lambda jobs, job: asyncio.wait_for(job, 60),
    ],
    ids=["aenqueue", "aget", "arecord", "acancel", "awhy", "alist", "await"],
)
def test_the_loop_goes_on_while_a_twin_waits_for_the_database(
    jobs: JobQueue,
    add: Any,
    call: Callable[[JobQueue, Job[Any]], Awaitable[object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = add.enqueue(1)
    job.cancel()
    seen: list[bool] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        @contextmanager
        def entry() -> Iterator[None]:
            """On the way to a connection: wait for the loop to do something else."""
            went_on = threading.Event()
            loop.call_soon_threadsafe(went_on.set)
            seen.append(went_on.wait(5))
            yield

        monkeypatch.setattr(jobs.store, "_entry", entry)
        with suppress(JobCancelled):
            await call(jobs, job)
        monkeypatch.undo()

    asyncio.run(main())
    assert seen and all(seen)
