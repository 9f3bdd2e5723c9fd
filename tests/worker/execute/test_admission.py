"""What is asked when a child process is ready for a job: the lease, the claim, wishes, the stop, the deadline; then the key is freed.
And what a claim leaves behind that does not begin."""

import gc
import time
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import JobQueue, State
from jobqueue.store.claims import Claims
from jobqueue.worker.handler.outcomes import UNBEGUN
from jobqueue.worker.inflight import Unbegun
from jobqueue.worker.isolate.remote_attempt import RemoteAttempt
from tests.worker.conftest import Stepped

LEASE = 30.0


class Start:
    """One job of a worker, claimed, whose child process is about to be ready."""

    def __init__(self, jobs: JobQueue, stepped: Stepped, **options: Any) -> None:
        @jobs.task
        def work() -> None: ...

        self.task = work.options(**options)
        self.job = self.task.enqueue()
        self.worker: Any = stepped(jobs, concurrency=1, lease=LEASE)
        (self.claim,) = self.worker.claim()
        self.inflight = self.worker.inflight
        assert self.inflight.inbox.get() is self.claim
        executor = self.worker.executor
        self.context = RemoteAttempt(
            *(self.claim, executor._transactions, work, self.inflight, executor._free_key)
        )
        self.inflight.start(self.context)

    @property
    def begun(self) -> bool:
        return self.context.key in self.inflight.running


@pytest.fixture
def start(jobs: JobQueue, stepped: Stepped) -> Callable[..., Start]:
    return lambda **options: Start(jobs, stepped, **options)


def test_a_job_begins_when_nothing_is_against_it(start: Callable[..., Start]) -> None:
    it = start()
    assert not it.begun and it.context.refusal() is None
    assert it.context.begin() and it.begun
    assert it.inflight.starting == {}


def test_it_waits_while_the_lease_is_in_doubt_and_begins_when_a_beat_lands(
    start: Callable[..., Start], clock: Any
) -> None:
    it = start()
    clock.pass_(LEASE + 1)
    assert not it.context.begin() and it.context.refusal() is None
    it.worker.heartbeat.tick()
    assert it.context.begin() and it.begun


def test_it_does_not_begin_once_its_lease_is_lost(start: Callable[..., Start], clock: Any) -> None:
    it = start()
    it.worker.execute_sql("DELETE FROM jobqueue_workers")
    clock.pass_(LEASE + 1)
    it.worker.heartbeat.tick()
    assert it.inflight.lease.good(), "it has another lease"
    assert it.context.refusal().outcome is None
    assert not it.context.begin() and not it.begun
    assert it.context.stop_reason, "its slot is woken"
    assert it.worker.outbox() == []


def test_it_does_not_begin_once_it_is_to_be_cancelled(start: Callable[..., Start]) -> None:
    it = start()
    it.job.cancel()
    it.worker.heartbeat.tick()
    assert it.context.stop_reason, "its slot is woken"
    refusal = it.context.refusal()
    assert refusal is not None and refusal.outcome is not None
    assert (refusal.outcome.state, refusal.outcome.refund) == (State.CANCELLED, True)
    assert not it.context.begin() and not it.begun


@pytest.mark.parametrize("attempts", [1, 10])
def test_a_stop_gives_it_back_at_once_and_it_does_not_begin(
    start: Callable[..., Start], attempts: int
) -> None:
    it = start(max_attempts=attempts)
    assert it.inflight.close() == 1
    assert it.context.stop_reason, "its slot is woken"
    (outcome,) = it.worker.outbox()
    assert (outcome.outcome, outcome.reason) == ("released", UNBEGUN)
    assert it.context.refusal().outcome is None, "it is written already"
    assert not it.context.begin() and not it.begun
    it.inflight.withdraw(it.context, outcome)
    assert len(it.worker.outbox()) == 1, "once"
    it.worker.complete()
    record = it.job.record()
    assert (record.state, record.attempt) == (State.AVAILABLE, 0)


@pytest.mark.parametrize("meanwhile", ["a stop", "a lost lease", "a wish"])
def test_what_happens_between_the_questions_and_the_begin_keeps_it_from_beginning(
    start: Callable[..., Start], monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    it = start()
    monkeypatch.setattr(it.context, "refusal", lambda: None)  # As it was a moment ago.
    if meanwhile == "a stop":
        it.inflight.close()
    elif meanwhile == "a lost lease":
        it.inflight.abandon()
    else:
        it.inflight._cancel_requested.add(it.context.key)
    assert not it.context.begin() and not it.begun


def test_a_job_that_has_begun_is_not_given_back_at_a_stop(start: Callable[..., Start]) -> None:
    it = start()
    it.context.begin()
    assert it.inflight.close() == 0 and it.begun and it.worker.outbox() == []


def test_it_does_not_begin_after_its_deadline(start: Callable[..., Start]) -> None:
    it = start(deadline=60)
    it.context._budget = time.monotonic()
    refusal = it.context.refusal()
    assert refusal is not None and refusal.outcome is not None
    assert refusal.outcome.reason == "its deadline passed before this attempt could begin"
    assert not it.context.begin() and not it.begun


def test_its_timeout_counts_from_its_begin(start: Callable[..., Start]) -> None:
    it = start(timeout=60)
    it.context._deadline = time.monotonic() - 1  # The start took longer than that.
    assert it.context.begin()
    remaining = it.context.remaining()
    assert remaining is not None and 0 < remaining <= 60


# The key of a job that holds it until it starts


def started_key(start: Callable[..., Start]) -> Start:
    return start(unique_key="k", unique_until="started")


def test_its_key_is_free_once_it_has_begun_and_not_before(start: Callable[..., Start]) -> None:
    it = started_key(start)
    assert not it.task.enqueue().created
    assert it.context.begin()
    assert it.task.enqueue().created


def test_its_key_is_not_freed_while_the_lease_is_in_doubt(
    start: Callable[..., Start], clock: Any
) -> None:
    it = started_key(start)
    clock.pass_(LEASE + 1)
    assert not it.context.begin()
    assert not it.task.enqueue().created


def test_its_key_is_not_freed_at_a_stop(start: Callable[..., Start]) -> None:
    it = started_key(start)
    it.inflight.close()
    assert not it.context.begin()
    it.worker.complete()
    assert it.job.state is State.AVAILABLE and not it.task.enqueue().created


@pytest.mark.parametrize("meanwhile", ["a stop", "a silence"])
def test_what_happens_while_its_key_is_freed_still_keeps_it_from_beginning(
    start: Callable[..., Start], clock: Any, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    it = started_key(start)
    honest = Claims.mark_started

    def slow(claims: Claims, claim: Any) -> bool:
        answer = honest(claims, claim)
        if meanwhile == "a stop":
            it.inflight.close()
        else:
            clock.pass_(LEASE + 1)
        return answer

    monkeypatch.setattr(Claims, "mark_started", slow)
    assert not it.context.begin() and not it.begun
    it.inflight.withdraw(it.context, it.context.refusal().outcome)
    (outcome,) = it.worker.outbox()
    assert (outcome.outcome, outcome.reason) == ("released", UNBEGUN)


def test_it_goes_back_when_its_claim_was_lost_before_its_key_could_be_freed(
    start: Callable[..., Start],
) -> None:
    it = started_key(start)
    it.worker.change(it.job.id, fence=it.claim.fence + 1)
    assert not it.context.begin() and not it.begun
    refusal = it.context.refusal()
    assert refusal is not None and refusal.outcome is not None
    assert refusal.outcome.reason == "its claim was lost before it began"


def test_progress_of_the_job_before_is_not_taken_for_that_of_the_next(
    start: Callable[..., Start],
) -> None:
    """A child's thread may send it after that job's end; it then comes with the next one."""
    it = start()
    id_, fence = it.context.key
    it.context.handle_message({"progress": [id_ + 1, fence, 0.5, "another job's"]})
    assert it.context.reported is None
    it.context.handle_message({"progress": [id_, fence, 0.5, "its own"]})
    assert it.context.reported == (0.5, "its own")


@pytest.mark.parametrize("unique_until", ["finished", "started"])
def test_a_claim_that_may_not_begin_leaves_nothing_to_the_garbage_collector(
    jobs: JobQueue, stepped: Stepped, unique_until: Any
) -> None:
    @jobs.task
    def work() -> None: ...

    work.options(unique_key="a", unique_until=unique_until).enqueue()
    worker = stepped()
    (claim,) = worker.claim()
    if unique_until == "started":  # Refused by the database, else by the worker itself.
        worker.change(claim.id, fence=claim.fence + 5)
    else:
        worker.inflight.request_cancel(claim.id, claim.fence)
    gc.collect()
    gc.disable()
    try:
        worker.execute()
        assert not [each for each in gc.get_objects() if type(each) is Unbegun]
    finally:
        gc.enable()
