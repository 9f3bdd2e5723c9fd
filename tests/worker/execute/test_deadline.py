"""Deadlines: a job's whole time, over all its attempts and waits; what it enqueues inherits it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from jobqueue import JobFailed, JobQueue, Retry, Snooze, State, current_job, fixed
from jobqueue.store.clock import after
from jobqueue.errors import InvalidOption
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.jobs import Jobs
from jobqueue.worker.handler.context import running_attempt
from tests.worker.conftest import Stepped


def pass_deadline(jobs: JobQueue, id_: int) -> None:
    with jobs.store.write() as connection:
        connection.execute(
            update(jobs_table).where(jobs_table.c.id == id_).values(deadline_at=after(-1.0))
        )


def test_the_row_says_when_it_has_to_have_ended(jobs: JobQueue) -> None:
    @jobs.task(deadline=60)
    def work() -> None: ...

    for job in (work.enqueue(), *jobs.enqueue_many([work.call(), work.call()])):
        record = job.record()
        assert record.deadline_at is not None
        assert 59 < (record.deadline_at - record.created_at).total_seconds() < 61
        assert record.to_json()["deadline_at"] == record.deadline_at.isoformat()
    assert work.options(deadline=None).enqueue().record().deadline_at is None


def test_the_sooner_of_timeout_and_deadline_counts(jobs: JobQueue) -> None:
    @jobs.task
    def left() -> float | None:
        return current_job().remaining()

    with jobs.worker():
        assert left.enqueue().result(30) is None
        assert 900 < left.options(timeout=1000, deadline=9000).enqueue().result(30) <= 1000
        assert 900 < left.options(timeout=9000, deadline=1000).enqueue().result(30) <= 1000


def test_a_job_whose_deadline_has_passed_does_not_begin(stepped: Stepped) -> None:
    stepped = stepped()
    began: list[int] = []

    @stepped.queue.task(deadline=60, name="late")
    def late() -> None:
        began.append(1)

    job = late.enqueue()
    pass_deadline(stepped.queue, job.id)
    stepped.step()
    record = job.record()
    assert (record.state, record.attempt, began) == (State.FAILED, 0, [])
    assert record.reason == "its deadline passed before this attempt could begin"
    (attempt,) = Jobs(stepped.store).attempts(record)
    assert (attempt.outcome, attempt.error.type) == ("timed out", "DeadlinePassed")


def test_no_attempt_is_planned_beyond_the_deadline(stepped: Stepped) -> None:
    stepped = stepped()

    @stepped.queue.task(deadline=60, backoff=fixed(90), name="boom")
    def boom() -> None:
        raise ValueError

    @stepped.queue.task(deadline=60, name="asks")
    def asks() -> None:
        raise Retry(after=90)

    @stepped.queue.task(deadline=60, name="sleepy")
    def sleepy() -> None:
        raise Snooze(90)

    @stepped.queue.task(deadline=60, backoff=fixed(5), name="again")
    def again() -> None:
        raise ValueError

    failed, asked, snoozed, retried = [task.enqueue() for task in (boom, asks, sleepy, again)]
    stepped.step()
    stepped.complete()
    for job in (failed, asked):
        assert job.record().state is State.FAILED
        assert job.record().reason == "its deadline leaves no time for another attempt"
    assert snoozed.record().reason == "it asked to be snoozed beyond its deadline"
    assert retried.record().state is State.SCHEDULED


def test_a_handler_that_ignores_the_deadline_is_given_up_for_good(jobs: JobQueue) -> None:
    gate = threading.Event()

    @jobs.task(deadline=60)
    def deaf() -> None:
        attempt = running_attempt()
        assert attempt is not None
        pass_deadline(jobs, attempt.claim.id)
        attempt._budget = attempt._deadline = time.monotonic()  # It passes now that this has begun.
        gate.wait(60)

    with jobs.worker(concurrency=2, poll=0.05):
        job = deaf.enqueue()
        with pytest.raises(JobFailed, match="1 attempt"):
            job.result(30)
        gate.set()
    assert job.record().reason == "its deadline leaves no time for another attempt"


def test_what_a_job_enqueues_has_to_end_with_it_unless_it_says_otherwise(jobs: JobQueue) -> None:
    @jobs.task
    def leaf() -> float | None:
        return current_job().remaining()

    @jobs.task
    def branch() -> list[int]:
        own = leaf.options(deadline=500)
        return [
            job.id for job in (leaf.enqueue(), own.enqueue(), *jobs.enqueue_many([leaf.call()]))
        ]

    with jobs.worker():
        left, own, many = [
            jobs.get(id_).result(30) for id_ in branch.options(deadline=50).enqueue().result(30)
        ]
        assert 40 < left <= 50
        assert 40 < many <= 50
        assert 490 < own <= 500
        free = branch.options(timeout=20).enqueue().result(30)
        assert jobs.get(free[0]).result(30) is None, "a timeout is the attempt's own"


def test_an_operators_retry_lifts_the_deadline(jobs: JobQueue) -> None:
    @jobs.task(deadline=60)
    def work() -> int:
        return 1

    job = work.enqueue()
    pass_deadline(jobs, job.id)
    with jobs.worker():
        with pytest.raises(JobFailed):
            job.result(30)
        jobs.retry(job.id)
        assert job.result(30) == 1


@pytest.mark.parametrize(
    "options", [{"deadline": 0}, {"deadline": "soon"}, {"deadline": 5, "delay": 6}]
)
def test_a_deadline_that_makes_no_sense_is_refused(jobs: JobQueue, options: dict[str, Any]) -> None:
    @jobs.task
    def work() -> None: ...

    with pytest.raises(InvalidOption, match="deadline"):
        work.options(**options)
