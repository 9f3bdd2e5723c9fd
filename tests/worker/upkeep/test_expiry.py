"""Expiry: a job that has not begun in time is cancelled, and one that has begun is not."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import literal, update

from jobqueue import JobCancelled, JobQueue, Retry, State, fixed
from jobqueue.errors import InvalidOption
from jobqueue.records import JobFilter, Registration
from jobqueue.store.claims import Claims, WorkerRef
from jobqueue.store.clock import after, plus
from jobqueue.store.jobs import Jobs
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.schema import jobs as jobs_table
from tests.worker.conftest import Stepped


@pytest.fixture
def add(jobs: JobQueue) -> Any:
    @jobs.task
    def add(x: int, y: int = 1) -> int:
        return x + y

    return add


def pass_expiry(jobs: JobQueue, *ids: int) -> None:
    with jobs.store.write() as connection:
        late = update(jobs_table).where(jobs_table.c.id.in_(ids)).values(expires_at=after(-1.0))
        connection.execute(late)


def cancelled(jobs: JobQueue) -> int:
    with jobs.store.read() as connection:
        counted = "SELECT coalesce(sum(cancelled), 0) FROM jobqueue_counters"
        return int(connection.exec_driver_sql(counted).scalar_one())


def test_the_row_says_when_it_expires(jobs: JobQueue, add: Any) -> None:
    task = add.options(expires="5m", headers={"a": "b"})
    for job in (
        task.enqueue(1),
        *jobs.enqueue_many([task.call(1), add.call(1), task.call(2)])[::2],
    ):
        record = job.record()
        assert record.expires_at is not None
        assert 299 < (record.expires_at - record.created_at).total_seconds() < 301
        assert record.to_json()["expires_at"] == record.expires_at.isoformat()
    assert add.options(delay=1, expires=2).options(expires=None).enqueue(1).record().lane is None
    assert task.options(expires=None, headers={}).call(1).to_new_job().extra is None


@pytest.mark.parametrize("delay", [None, 60], ids=["available", "scheduled"])
def test_upkeep_cancels_a_job_that_has_not_begun_in_time(
    jobs: JobQueue, add: Any, wait_until: Callable[..., Any], delay: float | None
) -> None:
    late, later, never = (
        add.options(delay=delay, **options).enqueue(1)
        for options in ({"expires": 300}, {"expires": 600}, {})
    )
    jobs.pause("default")
    told: list[Any] = []
    jobs.on("cancelled", told.append)
    pass_expiry(jobs, late.id)
    with jobs.worker(poll=0.05):
        with pytest.raises(JobCancelled):
            late.result(timeout=30)
        wait_until(lambda: told)
    record = late.record()
    assert (record.state, record.reason, record.attempt) == (State.CANCELLED, "expired", 0)
    assert {later.state, never.state} == {"available" if delay is None else "scheduled"}
    assert [event.job for event in told] == [late.id]
    assert cancelled(jobs) == 1


def test_a_job_that_is_claimed_too_late_does_not_begin(stepped: Stepped) -> None:
    stepped, began, told = stepped(), [], []
    stepped.queue.on("cancelled", lambda event: told.append(event.job))

    @stepped.queue.task(expires=60, name="late")
    def late() -> None:
        began.append(1)

    job = late.enqueue()
    pass_expiry(stepped.queue, job.id)
    stepped.step()
    record = job.record()
    assert (record.state, record.reason, record.attempt) == (State.CANCELLED, "expired", 0)
    assert (began, Jobs(stepped.store).attempts(record)) == ([], [])
    assert cancelled(stepped.queue) == 1


@pytest.mark.parametrize("too_late", [True, False])
def test_a_job_that_was_claimed_too_late_does_not_begin_after_its_worker_was_lost_either(
    jobs: JobQueue, add: Any, too_late: bool
) -> None:
    job = add.options(expires=60).enqueue(1)
    who = Registration("w", "h", 1, None, None, None, None, None, ("add",), 4, 30.0)
    leases = Leases(jobs.store)
    worker = WorkerRef(leases.register(who), "w")
    assert [claim.id for claim in Claims(jobs.store).claim_first(worker, "default", 9)] == [job.id]
    leases.deregister(worker.id)
    at = jobs_table.c.started_at  # Later, it may have begun before it expired.
    with jobs.store.write() as connection:
        expires = {"expires_at": at if too_late else plus(at, literal(0.001))}
        connection.execute(update(jobs_table).values(expires))
    assert [lost.id for lost in leases.reap()] == [job.id]
    record = job.record()
    expected = (State.CANCELLED, "expired") if too_late else (State.AVAILABLE, "worker lost")
    assert ((record.state, record.reason), cancelled(jobs)) == (expected, int(too_late))


def test_a_job_that_has_begun_does_not_expire(jobs: JobQueue) -> None:
    attempts: list[int] = []

    @jobs.task(expires=60, backoff=fixed(0.01))
    def twice() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            pass_expiry(jobs, job.id)
            raise Retry
        return "done"

    job = twice.enqueue()
    with jobs.worker(poll=0.05):
        assert job.result(timeout=30) == "done"
    assert Maintenance(jobs.store).expire() == []


def test_an_operators_retry_removes_the_expiry_of_a_job_that_has_ended(
    jobs: JobQueue, add: Any
) -> None:
    job = add.options(expires=60).enqueue(1)
    pass_expiry(jobs, job.id)
    assert [one.id for one in Maintenance(jobs.store).expire()] == [job.id]
    assert Jobs(jobs.store).retry(JobFilter(ids=(job.id,)))[0] == [job.id]
    with jobs.worker(poll=0.05):
        assert job.result(timeout=30) == 2


@pytest.mark.parametrize("expires", [0, -1, "soon", True, float("inf"), "4000d"])
def test_what_is_no_time_to_expire_is_refused(expires: Any) -> None:
    with JobQueue("sqlite:///never-made.db") as jobs:

        @jobs.task
        def work() -> None: ...

        with pytest.raises(InvalidOption, match="expires: ") as refused:
            work.options(expires=expires)
        assert refused.value.field == "expires"
        with pytest.raises(InvalidOption, match="expires: 5 s from now it would not even be due"):
            work.options(expires=5, delay=5)
