"""What type checkers must say of the public names. Checked by mypy and pyright, never run."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, assert_type

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from jobqueue import (
    Call,
    Event,
    Job,
    JobContext,
    JobFailed,
    JobQueue,
    JobRecord,
    State,
    Task,
    Worker,
    current_job,
    exponential,
    fixed,
)
from jobqueue.testing import Enqueued, QueueTester, Ran
from jobqueue.records import AttemptError

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


def transactions(
    scoped: scoped_session[Session],
    session: AsyncSession,
    ascoped: async_scoped_session[AsyncSession],
    connection: AsyncConnection,
) -> None:
    add.within(scoped).enqueue(1, 2)
    jobs.enqueue_many([add.call(1, 2)], within=scoped)
    for transaction in (session, ascoped, connection):
        assert_type(add.within(transaction).call(1, 2), Call[int])


def resize(path: str, width: int = 100, *, crop: bool = False) -> bytes:
    return path.encode() * width * crop


def mapped(paths: list[str], widths: tuple[int, ...]) -> None:
    task = jobs.task(resize)
    assert_type(task.map(paths), Iterator[bytes])
    assert_type(task.map(paths, widths, window=10, timeout=60), Iterator[bytes])
    assert_type(task.options(priority=1).map(path for path in paths), Iterator[bytes])
    assert_type(fetch.map({"a", "b"}, ordered=False), Iterator[int])
    assert_type(positional.map(range(3), range(3)), Iterator[int])
    assert_type(names.map([["a"], ["b"]], ordered=False), Iterator[dict[str, int]])


def results() -> None:
    assert_type(add.enqueue(2, 3).result(timeout=10), int)
    assert_type(add.enqueue(2, 3).result(timeout=0), int)
    assert_type(names.enqueue([]).result(), dict[str, int])
    assert_type(add.enqueue(2, 3).state, State)
    assert_type(add.enqueue(2, 3).created, bool)
    assert_type(add.enqueue(2, 3).record(), JobRecord)
    for job in jobs.as_completed([add.enqueue(n, n) for n in range(3)], timeout=60):
        assert_type(job, Job[int])
    assert_type(jobs.enqueue_many([add.call(1, 2), add.call(3, 4)]), list[Job[int]])
    mixed: list[Call[object]] = [add.call(1, 2), send.call(7)]
    report([*jobs.enqueue_many(mixed), add.enqueue(1, 2), send.enqueue(7)])
    try:
        add.enqueue(2, 3).result()
    except JobFailed as error:
        assert_type(error.errors, tuple[AttemptError, ...])


def report(handles: Iterable[Job[object]]) -> None:
    for job in jobs.as_completed(handles):
        print(job.result())


async def from_asyncio() -> None:
    assert_type(await fetch("a"), int)
    job = await add.aenqueue(2, 3)
    assert_type(job, Job[int])
    assert_type(await job, int)
    assert_type(await send.options(delay=5).aenqueue(7), Job[None])
    assert_type(await job.arecord(), JobRecord)
    assert_type(await jobs.aget(7), Job[Any])
    await job.acancel()
    async for record in jobs.alist(state="failed", limit=None):
        assert_type(record, JobRecord)


def others() -> None:
    assert_type(current_job(), JobContext)
    assert_type(current_job().remaining(), float | None)
    assert_type(current_job().progress(0.4, "page 4 of 10"), None)
    assert_type(jobs.list(state=State.FAILED, limit=None), Iterator[JobRecord])
    assert_type(jobs.list(state="failed"), Iterator[JobRecord])
    with jobs.worker(concurrency=8, lease=timedelta(minutes=1), queues={"mail": 2}) as worker:
        assert_type(worker, Worker)
    jobs.worker(queues=[jobs.queue("small", max_pending=3, when_full="reject")], max_memory="1GB")
    jobs.on("failed", lambda event: print(event.job))
    jobs.on("errored", notify)
    jobs.use(lambda context, run: run())
    jobs.use(timed)


def notify(event: Event) -> None:
    if event.error is not None:
        print(event.error.message)


def timed(context: JobContext, run: Callable[[], Any]) -> Any:
    context.check()
    return run()


def from_tests(jobqueue: QueueTester) -> None:
    assert_type(jobqueue.run(add.call(2, 3)), int)
    assert_type(jobqueue.run(fetch.enqueue("a")), int)
    assert_type(jobqueue.enqueued(add), Enqueued[int])
    assert_type(jobqueue.enqueued(add, 2, y=3), Enqueued[int])
    [job] = jobqueue.enqueued(fetch, "a")
    assert_type(job, Job[int])
    assert_type(jobqueue.drain(with_scheduled=timedelta(hours=1)), list[Ran])
    with jobqueue.enqueues() as made, jobqueue.inline():
        assert_type(made, list[Job[Any]])
