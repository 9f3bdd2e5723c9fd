"""What surrounds a handler: middleware, current_job(), and its own transaction."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue import (
    JobContext,
    JobQueue,
    JobQueueError,
    Snooze,
    State,
    current_job,
)
from jobqueue.errors import ClaimLost, InvalidArguments, JobCancelled
from tests.worker.conftest import Stepped

# Middleware


def test_middleware_wraps_in_the_order_in_which_it_was_given(
    jobs: JobQueue, stepped: Stepped
) -> None:
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
    stepped().step()
    assert handle.result(0) == 42
    assert story == ["outer work", "inner", "work", "outer done"]


def test_middleware_may_answer_itself_try_again_turn_errors_and_raise(
    jobs: JobQueue, stepped: Stepped
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
    worker = stepped(concurrency=9)
    worker.step()
    states = [worker.state(handle.id) for handle in handles]
    done, later = State.SUCCEEDED, State.SCHEDULED
    assert states == [done, done, later, later, done]
    assert [handles[0].result(0), handles[1].result(0)] == [7, 3]
    assert runs == ["twice", "twice", "turned", "plain"]
    assert worker.attempts(handles[2].id) == [(1, "snoozed", None)]
    assert worker.attempts(handles[3].id) == [(1, "errored", "RuntimeError")]


# current_job()


def test_current_job_knows_the_attempt(jobs: JobQueue, stepped: Stepped, lines: Any) -> None:
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
    worker = stepped()
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


def test_an_attempt_without_a_timeout_has_no_deadline(jobs: JobQueue, stepped: Stepped) -> None:
    @jobs.task
    def look() -> list[bool]:
        job = current_job()
        job.check()
        return [job.deadline is None, job.remaining() is None]

    handle = look.enqueue()
    stepped().step()
    assert handle.result(0) == [True, True]


def test_current_job_outside_of_a_job_is_an_error(jobs: JobQueue, stepped: Stepped) -> None:
    @jobs.task
    def work() -> None: ...

    with pytest.raises(JobQueueError, match="current_job"):
        current_job()
    work.enqueue()
    stepped().step()
    with pytest.raises(JobQueueError, match="current_job"):
        current_job()


def test_progress_that_is_none_is_refused_and_the_job_goes_on(
    jobs: JobQueue, stepped: Stepped
) -> None:
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
    worker = stepped()
    worker.step()
    assert handle.result(0) == 1
    assert len(refused) == 10
    row = worker.row(handle.id)
    assert (row.progress, row.progress_message) == (0.25, "a quarter")


@pytest.mark.parametrize("succeeds", [True, False])
def test_the_last_word_of_progress_is_written_with_the_end(
    jobs: JobQueue, stepped: Stepped, succeeds: bool
) -> None:
    worker: Any = None

    @jobs.task(max_attempts=1)
    def work() -> None:
        current_job().progress(0.5, "half")
        worker.heartbeat.tick()
        current_job().progress(0.75, "three quarters")
        assert succeeds

    handle = work.enqueue()
    worker = stepped()
    worker.step()
    row = worker.row(handle.id)
    assert row.state is (State.SUCCEEDED if succeeds else State.FAILED)
    assert (row.progress, row.progress_message) == (0.75, "three quarters")
    assert not worker.inflight._progress, "it is kept no longer than its outcome"


def test_progress_of_a_claim_that_was_lost_is_not_written_with_the_end(
    jobs: JobQueue, stepped: Stepped
) -> None:
    worker: Any = None

    @jobs.task
    def work() -> None:
        current_job().progress(0.5, "half")
        worker.change(handle.id, state="available", worker_id=None, fence=2)  # As a reaper does.

    handle = work.enqueue()
    worker = stepped()
    worker.step()
    assert worker.row(handle.id).progress is None


def test_only_the_last_word_of_progress_is_written_made_safe_and_short(
    jobs: JobQueue, stepped: Stepped
) -> None:
    worker: Any = None

    @jobs.task
    def work() -> None:
        current_job().progress(0)
        current_job().progress(1, "a\0b\ud800" + "x" * 10_000_000)
        worker.heartbeat.tick()

    handle = work.enqueue()
    worker = stepped()
    worker.step()
    row = worker.row(handle.id)
    assert row.state is State.SUCCEEDED
    assert row.progress == 1.0
    assert str(row.progress_message).startswith("a\\x00b\\ud800xxx")
    assert len(str(row.progress_message)) == 1000


# finish_within


def test_a_job_that_finishes_within_the_handlers_transaction_succeeds_with_it(
    url: str, jobs: JobQueue, stepped: Stepped
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
    worker = stepped(concurrency=1, lease=60)
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


def test_a_stale_claim_cannot_finish_within_a_transaction(jobs: JobQueue, stepped: Stepped) -> None:
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
    worker = stepped(concurrency=1)
    worker.step()
    worker.step()
    assert caught == [ClaimLost, JobCancelled]
    assert worker.state(stale.id) is State.RUNNING  # It is another's, as far as this one knows.
    assert worker.state(cancelled.id) is State.CANCELLED
