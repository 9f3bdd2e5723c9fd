"""A job that holds its unique key until it starts frees it as it begins, and not before."""

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobqueue import JobQueue, State
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.claims import Claims
from jobqueue.tasks import Task
from tests.worker.conftest import Stepped

WARNING, ERROR = 30, 40


class KeyedJobs:
    """A task whose jobs hold a key until they start, and what its handler has seen."""

    def __init__(self, jobs: JobQueue, **options: Any) -> None:
        self.ran: list[int] = []
        self.seen: list[Any] = []

        @jobs.task(**options)
        def rebuild(n: int) -> None:
            self.ran.append(n)
            self.seen.append(self.put(n + 1))
            if n < 0:
                raise ValueError("no")

        self.task: Task[Any, None] = rebuild.options(unique_key="k", unique_until="started")

    def put(self, n: int = 1) -> Any:
        return self.task.enqueue(n)


@pytest.fixture
def keyed(jobs: JobQueue) -> KeyedJobs:
    return KeyedJobs(jobs)


def test_its_key_is_free_when_its_handler_is_entered(keyed: KeyedJobs, stepped: Stepped) -> None:
    job = keyed.put()
    worker = stepped(concurrency=1)
    worker.claim()
    assert not keyed.put().created
    worker.execute()
    assert keyed.ran == [1]
    assert keyed.seen[0].created and keyed.seen[0].id != job.id
    worker.complete()
    assert worker.state(job.id) is State.SUCCEEDED


def test_a_retry_after_an_error_does_not_take_the_key_again(
    keyed: KeyedJobs, stepped: Stepped
) -> None:
    job = keyed.put(-1)
    worker = stepped(concurrency=1)
    worker.step()
    (other,) = keyed.seen
    assert other.created and worker.state(job.id) is State.SCHEDULED
    assert keyed.put().id == other.id
    worker.queue.retry(job.id)
    for _ in range(2):
        worker.step()
    assert sorted(keyed.ran) == [-1, -1, 0]
    assert worker.state(other.id) is State.SUCCEEDED


def test_what_is_given_back_at_a_stop_keeps_its_key(keyed: KeyedJobs, stepped: Stepped) -> None:
    job = keyed.put()
    worker = stepped(concurrency=1)
    assert len(worker.claim()) == 1
    worker.inflight.close()
    worker.execute()
    worker.complete()
    assert (worker.state(job.id), keyed.ran) == (State.AVAILABLE, [])
    assert keyed.put().id == job.id


def test_a_job_of_an_unknown_task_keeps_its_key_while_it_waits(
    url: str, keyed: KeyedJobs, stepped: Stepped
) -> None:
    job = keyed.put()
    with JobQueue(url) as older:
        worker = stepped(older)
        worker.step()
        assert (worker.state(job.id), worker.row(job.id).attempt) == (State.SCHEDULED, 0)
    assert keyed.put().id == job.id


def test_a_job_whose_arguments_do_not_fit_never_begins(keyed: KeyedJobs, stepped: Stepped) -> None:
    job = keyed.put()
    worker = stepped()
    worker.change(job.id, args='{"args":["x"],"kwargs":{}}')
    worker.step()
    assert (worker.state(job.id), keyed.ran) == (State.FAILED, [])
    assert worker.column(job.id, "key_released") == 0


def test_a_job_whose_claim_was_lost_does_not_begin(
    keyed: KeyedJobs, stepped: Stepped, lines: Any
) -> None:
    job = keyed.put()
    worker = stepped()
    worker.claim()
    worker.change(job.id, fence=jobs_table.c.fence + 1)  # As if others had taken it.
    worker.execute()
    worker.complete()
    assert keyed.ran == []
    assert lines(ERROR, "the claim with fence 1 was lost")
    assert worker.inflight.held == {} and worker.inflight.capacity.free() == 4
    assert not keyed.put().created


def test_a_job_does_not_begin_when_its_lease_was_taken_while_its_key_was_freed(
    keyed: KeyedJobs, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed.put()
    worker = stepped()
    honest = Claims.mark_started

    def slow(claims: Claims, claim: Any) -> bool:
        answer = honest(claims, claim)
        worker.inflight.abandon()
        return answer

    monkeypatch.setattr(Claims, "mark_started", slow)
    worker.claim()
    assert worker.execute() == []
    assert keyed.ran == [] and worker.inflight.capacity.free() == 4


@pytest.mark.parametrize("meanwhile", ["a stop", "a silence"])
def test_a_job_goes_back_that_may_not_begin_any_more_when_its_key_was_freed(
    keyed: KeyedJobs, stepped: Stepped, clock: Any, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    job = keyed.put()
    worker = stepped(lease=30)
    honest = Claims.mark_started

    def slow(claims: Claims, claim: Any) -> bool:
        answer = honest(claims, claim)
        if meanwhile == "a stop":
            worker.inflight.close()
        else:
            clock.pass_(31)
        return answer

    monkeypatch.setattr(Claims, "mark_started", slow)
    worker.claim()
    worker.execute()
    worker.complete()
    assert keyed.ran == []
    assert (worker.state(job.id), worker.row(job.id).attempt) == (State.AVAILABLE, 0)


def test_a_job_goes_back_when_the_database_does_not_answer_and_begins_later(
    keyed: KeyedJobs, stepped: Stepped, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    job = keyed.put()
    worker = stepped()
    with monkeypatch.context() as away:
        away.setattr(Claims, "mark_started", _away)
        worker.claim()
        worker.execute()
    worker.complete()
    row = worker.row(job.id)
    assert (row.state, row.attempt, keyed.ran) == (State.AVAILABLE, 0, [])
    assert row.reason == "given back before it began: its key could not be freed (OperationalError)"
    assert len(lines(WARNING, "its key could not be freed")) == 1
    assert worker.attempts(job.id) == [] and not keyed.put().created
    worker.step()
    assert keyed.ran == [1] and worker.state(job.id) is State.SUCCEEDED


def _away(*_: object) -> bool:
    raise OperationalError("UPDATE", {}, Exception("the server is gone"))


def test_no_other_job_pays_for_it(
    jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[int] = []
    honest = Claims.mark_started
    monkeypatch.setattr(
        Claims, "mark_started", lambda self, c: began.append(c.id) or honest(self, c)
    )

    @jobs.task
    def work() -> None: ...

    work.enqueue()
    for scope in ("finished", "deleted"):
        work.options(unique_key=scope, unique_until=scope).enqueue()
    keyed = work.options(unique_key="k", unique_until="started").enqueue()
    worker = stepped(concurrency=8)
    worker.step()
    worker.step()
    assert began == [keyed.id]
    assert worker.counted("succeeded") == 4


@pytest.mark.parametrize("concurrency", [8])
def test_many_such_jobs_run_at_once_in_a_whole_worker(jobs: JobQueue, concurrency: int) -> None:
    @jobs.task
    def work(n: int) -> int:
        return n

    handles = [
        work.options(unique_key=f"k{n}", unique_until="started").enqueue(n) for n in range(60)
    ]
    with jobs.worker(concurrency=concurrency):
        assert [handle.result(60) for handle in handles] == list(range(60))
