"""Enqueueing, and what comes back: handles, their order and their results."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from jobqueue import (
    InvalidArguments,
    InvalidOption,
    Job,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobQueue,
    JobQueueError,
    ResultTimeout,
    State,
    current_job,
    fixed,
)
from tests.queue.conftest import count, ids

# Enqueueing


def test_an_enqueued_job_is_there_with_its_options(jobs: JobQueue, add: Any) -> None:
    at = datetime(2030, 1, 1, 12, tzinfo=UTC)
    handle = add.options(
        queue="mail",
        priority=3,
        at=at,
        max_attempts=4,
        timeout=timedelta(minutes=1),
        unique_key="k",
        tags=["a", "b", "a"],
    ).enqueue(2, y=3)
    assert isinstance(handle, Job)
    assert handle.created
    record = handle.record()
    assert (record.task, record.queue, record.priority) == ("add", "mail", 3)
    assert (record.run_at, record.state) == (at, State.SCHEDULED)
    assert (record.max_attempts, record.attempt, record.timeout) == (4, 0, 60.0)
    assert (record.unique_key, record.tags) == ("k", ("a", "b"))
    assert record.args == '{"args":[2],"kwargs":{"y":3}}'


def test_many_calls_are_written_in_order_and_in_one_transaction(jobs: JobQueue, add: Any) -> None:
    @jobs.task
    def other(text: str) -> str:
        return text

    add.enqueue(1)  # What it reads once a second is read.
    commits: list[int] = []
    event.listen(jobs.store.engine, "commit", lambda _: commits.append(1))
    calls = [add.call(n) if n % 2 else other.call(str(n)) for n in range(6000)]
    handles = jobs.enqueue_many(iter(calls))
    assert len(commits) == 1
    assert ids(handles) == sorted(ids(handles))
    assert [handles[n].record().task for n in (0, 1, 5998, 5999)] == ["other", "add"] * 2
    assert count(jobs) == 6001
    assert jobs.enqueue_many([]) == []


def test_of_many_calls_all_are_written_or_none(jobs: JobQueue, add: Any) -> None:
    def calls() -> Iterator[Any]:
        yield add.call(1)
        yield add.call("2")

    with pytest.raises(InvalidArguments):
        jobs.enqueue_many(calls())
    assert count(jobs) == 0

    inserts: list[str] = []

    def fails_the_second_time(*given: Any) -> None:
        inserts.append(given[2])
        if sum("INSERT" in statement for statement in inserts) == 2:
            raise RuntimeError("the machine stops here")

    event.listen(jobs.store.engine, "before_cursor_execute", fails_the_second_time)
    with pytest.raises(RuntimeError):
        later = add.options(delay=1)
        jobs.enqueue_many([later.call(n) for n in range(6000)])  # more than one INSERT
    event.remove(jobs.store.engine, "before_cursor_execute", fails_the_second_time)
    assert count(jobs) == 0


def test_a_second_job_of_a_unique_key_is_the_first(
    jobs: JobQueue, add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    welcome = add.options(unique_key="welcome-7")
    first, second = welcome.enqueue(7), welcome.enqueue(7)
    assert (first.created, second.created) == (True, False)
    assert first == second
    assert hash(first) == hash(second)
    assert caplog.records == []
    third = welcome.enqueue(8)
    assert (third.id, third.created) == (first.id, False)
    assert "unique key" in caplog.text
    both = jobs.enqueue_many([welcome.call(7), add.options(unique_key="new").call(1)] * 2)
    assert [job.created for job in both] == [False, True, False, False]
    jobs.cancel(first.id)
    assert welcome.enqueue(7).created, "by default a key is free once its job has ended"
    kept = add.options(unique_key="once", unique_until="deleted")
    jobs.cancel(kept.enqueue(1).id)
    assert not kept.enqueue(1).created


def test_within_a_users_transaction_a_job_is_committed_with_it_or_not_at_all(
    jobs: JobQueue, add: Any, engine: Any
) -> None:
    with Session(engine) as session:
        add.within(session).enqueue(1)
        session.rollback()
    assert count(jobs) == 0
    with engine.begin() as connection:
        handle = add.within(connection).enqueue(1)
        with pytest.raises(JobQueueError, match="not been committed"):
            handle.result(0.1)
        more = jobs.enqueue_many([add.call(2), add.call(3)], within=connection)
    assert handle.state is State.AVAILABLE
    assert count(jobs) == 1 + len(more)
    with pytest.raises(InvalidOption, match="within"):
        add.within("a session")


# Results


def test_results_come_in_the_order_in_which_jobs_end(jobs: JobQueue) -> None:
    gates = {name: threading.Event() for name in "abc"}

    @jobs.task
    def wait(name: str) -> str:
        gates[name].wait(30)
        return name

    handles = [wait.enqueue(name) for name in "abc"]
    got = []
    with jobs.worker(concurrency=3):
        gates["b"].set()
        for job in jobs.as_completed(handles, timeout=30):
            got.append(job.result(0))
            gates["c" if len(got) == 1 else "a"].set()
    assert got == ["b", "c", "a"]


def test_a_handle_that_is_given_twice_comes_twice(jobs: JobQueue, add: Any) -> None:
    handle = add.enqueue(1)
    jobs.cancel(handle.id)
    assert list(jobs.as_completed([handle, handle], timeout=0)) == [handle, handle]
    assert list(jobs.as_completed([])) == []


def test_jobs_of_two_databases_with_one_id_are_two_jobs(
    jobs: JobQueue, add: Any, tmp_path: Any
) -> None:
    ended = add.enqueue(1)
    jobs.cancel(ended.id)
    with JobQueue(f"sqlite:///{tmp_path}/other.db") as others:
        others.task(name="add")(add.function)
        waits = others.enqueue_many([others.registry["add"].call(1)] * ended.id)[-1]
        assert waits.id == ended.id
        assert waits != ended and waits == others.get(waits.id)
        completed = jobs.as_completed([ended, waits], timeout=0)
        assert next(completed) is ended
        with pytest.raises(ResultTimeout):
            next(completed)


def test_waiting_ends_when_the_time_is_up_and_the_job_goes_on(jobs: JobQueue, add: Any) -> None:
    handles = [add.options(delay=60).enqueue(n) for n in range(8)]
    for wait in (
        lambda: handles[0].result(timeout=0.01),
        lambda: handles[0].result(timeout=timedelta(0)),
        lambda: list(jobs.as_completed(handles, timeout=0.01)),
    ):
        with pytest.raises(ResultTimeout) as caught:
            wait()
        assert isinstance(caught.value, TimeoutError)
        assert str(handles[0].id) in str(caught.value)
    with pytest.raises(ResultTimeout, match="3 more"):
        list(jobs.as_completed(handles, timeout=0))
    assert handles[0].state is State.SCHEDULED
    with pytest.raises(InvalidOption):
        handles[0].result(timeout=-1)


def test_a_result_is_the_value_or_says_why_there_is_none(jobs: JobQueue) -> None:
    @jobs.task(max_attempts=2, backoff=fixed(0.01))
    def work(how: str) -> tuple[int, ...]:
        if how == "fails":
            raise ValueError(f"attempt {current_job().attempt}")
        return (1, 2)

    good, bad, cancelled = (work.enqueue(how) for how in ("good", "fails", "good"))
    jobs.cancel(cancelled.id)
    with pytest.raises(ResultTimeout, match=f"job {good.id}; why: .* why {good.id}"):
        good.result(timeout=0)
    with jobs.worker(poll=0.1):
        assert good.result(30) == (1, 2), "by the annotation: a tuple again"
        assert jobs.get(good.id).result(0) == (1, 2)
        with pytest.raises(JobFailed, match="after 2 attempts: ValueError: attempt 2") as caught:
            bad.result(30)
    assert [(error.type, error.message) for error in caught.value.errors] == [
        ("ValueError", "attempt 1"),
        ("ValueError", "attempt 2"),
    ]
    with pytest.raises(JobCancelled, match=str(cancelled.id)):
        cancelled.result(0)
    assert good.done() and bad.done() and cancelled.done()


def test_a_job_that_was_deleted_while_someone_waits_is_not_there(jobs: JobQueue, add: Any) -> None:
    handle = add.options(delay=60).enqueue(1)
    jobs.delete(handle.id)
    with pytest.raises(JobNotFound):
        handle.result(5)
    with pytest.raises(JobNotFound):
        handle.record()


def test_jobs_can_be_enqueued_and_awaited_from_asyncio(jobs: JobQueue, add: Any) -> None:
    @jobs.task(max_attempts=1)
    def boom() -> None:
        raise ValueError("no")

    async def main() -> list[Any]:
        first, second = await add.aenqueue(1, 2), await add.aenqueue(3)
        bad = await boom.aenqueue()
        results: list[Any] = list(await asyncio.gather(first, second))
        with pytest.raises(JobFailed):
            await bad
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(await add.options(delay=60).aenqueue(1), 0.05)
        with pytest.raises(InvalidArguments):
            await add.aenqueue("x")
        return results

    with jobs.worker(poll=0.1):
        assert asyncio.run(main()) == [3, 4]
