"""What a type checker must say of the public names. Checked by mypy, never run."""

from collections.abc import Iterator
from typing import assert_type

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from jobqueue import Job, JobQueue, State, Task, current_job, exponential, fixed
from jobqueue.records import JobRecord
from jobqueue.tasks import Call
from jobqueue.worker.context import JobContext
from jobqueue.worker.worker import Worker

jobs = JobQueue("sqlite:///app.db")


@jobs.task
def add(x: int, y: int) -> int:
    return x + y


@jobs.task(queue="mail", max_attempts=5, backoff=exponential(base=2, cap=3600), timeout=30)
def send(user_id: int, *, subject: str = "") -> None: ...


@jobs.task(name="other", backoff=fixed(5), tags=["a"])
def names(of: list[str]) -> dict[str, int]:
    return dict.fromkeys(of, 0)


@jobs.task
def positional(x: int, y: int, /) -> int:
    return x + y


@jobs.task
async def fetch(url: str) -> int:
    return len(url)


@jobs.task(timeout=5)
async def fetch_soon(url: str) -> int:
    return len(url)


def plain(text: str) -> bytes:
    return text.encode()


def tasks() -> None:
    # Of parameters that have names, [int, int] is not the whole type.
    assert_type(positional, Task[[int, int], int])
    assert_type(takes_a_task(add), Job[int])
    assert_type(add(2, 3), int)
    assert_type(add.call(2, 3), Call[int])
    assert_type(add.enqueue(2, 3), Job[int])
    assert_type(add.enqueue(x=2, y=3), Job[int])
    assert_type(send.enqueue(7, subject="hello"), Job[None])
    assert_type(names.enqueue(["a"]), Job[dict[str, int]])
    assert_type(fetch.enqueue("a"), Job[int])
    assert_type(names.map([["a"], ["b"]], ordered=False), Iterator[dict[str, int]])
    assert_type(fetch_soon.options(delay=1).enqueue("a"), Job[int])
    assert_type(fetch.call("a"), Call[int])
    assert_type(jobs.task(plain).enqueue("x"), Job[bytes])
    assert_type(jobs.task(name="b")(plain).enqueue("x"), Job[bytes])


def takes_a_task(task: "Task[[int, int], int]") -> "Job[int]":
    return task.enqueue(1, 2)


def copies(session: Session, connection: Connection) -> None:
    assert_type(positional.options(delay=3600), Task[[int, int], int])
    assert_type(positional.within(session), Task[[int, int], int])
    assert_type(positional.options(priority=-1).within(connection), Task[[int, int], int])
    assert_type(add.options(delay=3600, unique_key="k").enqueue(1, 2), Job[int])
    assert_type(add.within(session).enqueue(1, 2), Job[int])
    assert_type(add.options(queue="mail").within(connection).call(1, 2), Call[int])


def results() -> None:
    assert_type(add.enqueue(2, 3).result(timeout=10), int)
    assert_type(add.enqueue(2, 3).outcome(), int)
    assert_type(names.enqueue([]).result(), dict[str, int])
    assert_type(add.enqueue(2, 3).state, State)
    assert_type(add.enqueue(2, 3).created, bool)
    assert_type(add.enqueue(2, 3).record(), JobRecord)
    for job in jobs.as_completed([add.enqueue(n, n) for n in range(3)], timeout=60):
        assert_type(job, Job[int])
    assert_type(jobs.enqueue_many([add.call(1, 2), add.call(3, 4)]), list[Job[int]])


async def from_asyncio() -> None:
    assert_type(await fetch("a"), int)
    job = await add.aenqueue(2, 3)
    assert_type(job, Job[int])
    assert_type(await job, int)
    assert_type(await send.options(delay=5).aenqueue(7), Job[None])


def others() -> None:
    assert_type(current_job(), JobContext)
    assert_type(current_job().remaining(), float | None)
    assert_type(current_job().progress(0.4, "page 4 of 10"), None)
    assert_type(jobs.list(state=State.FAILED, limit=None), Iterator[JobRecord])
    with jobs.worker(concurrency=8) as worker:
        assert_type(worker, Worker)
    jobs.on("failed", lambda event: print(event.job))
    jobs.use(lambda context, run: run())
