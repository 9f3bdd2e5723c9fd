"""The heartbeat: the lease, who is told what, and progress; by tick, on a clock that is told."""

from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobqueue import JobQueue, State
from jobqueue.errors import AttemptTimeout, ClaimLost, JobCancelled
from jobqueue.records import Succeeded
from jobqueue.store.leases import Leases
from jobqueue.store.schema import workers
from jobqueue.worker.handler.context import Attempt
from tests.worker.conftest import Stepped

ERROR = 40


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task
    def work() -> int:
        return 1

    return work


def begin(worker: Any) -> Attempt:
    """Take one claim out of the inbox and begin it."""
    claim = worker.inflight.inbox.get_nowait()
    context = Attempt(claim, None, str)  # type: ignore[arg-type]
    worker.inflight.begin(context)
    return context


def test_a_beat_is_sent_three_times_a_lease(stepped: Stepped, clock: Any) -> None:
    worker = stepped(lease=30)
    (id_,) = worker.workers()
    beats = []
    for _ in range(8):
        worker.heartbeat.tick()
        beats.append(worker.workers()[id_].heartbeats)
        clock.pass_(5)
    assert beats == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_beat_tells_what_the_worker_does(work: Any, stepped: Stepped, clock: Any) -> None:
    work.enqueue()
    worker = stepped(lease=30, concurrency=7, name="mia")
    worker.claim()
    begin(worker)
    worker.inflight.processed, worker.inflight.errored = 5, 2
    clock.pass_(10)
    worker.heartbeat.tick()
    (row,) = worker.workers().values()
    assert (row.name, row.concurrency) == ("mia", 7)
    assert (row.running, row.processed, row.errored) == (1, 5, 2)


def test_a_worker_that_stops_while_jobs_run_says_once_that_it_is_draining(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    work.enqueue()
    worker = stepped(lease=30)
    worker.heartbeat.tick()
    worker.claim()
    context = begin(worker)
    worker.heartbeat.tick()
    assert [row.stopping_at for row in worker.workers().values()] == [None]
    worker.inflight.close()
    worker.heartbeat.tick()
    (row,) = worker.workers().values()
    assert row.stopping_at is not None and row.heartbeats == 0  # At once, not with the next beat.
    clock.pass_(10)
    worker.heartbeat.tick()
    (later,) = worker.workers().values()
    assert (later.stopping_at, later.heartbeats) == (row.stopping_at, 1)
    with worker.store.write() as connection:  # Its lease is lost: the new one says it too.
        connection.execute(workers.delete())
    clock.pass_(10)
    worker.inflight.begin(context)
    for _ in range(2):
        worker.heartbeat.tick()
        worker.inflight.begin(context)  # It had no claim any more, and goes on all the same.
    (anew,) = worker.workers().values()
    assert anew.id != row.id and anew.stopping_at is not None


def test_a_worker_that_runs_nothing_stops_without_a_word(
    stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    worker.heartbeat.tick()
    worker.inflight.close()
    monkeypatch.setattr(Leases, "note_stop", None)
    worker.heartbeat.tick()
    assert worker.heartbeat.failing is False


def test_a_beat_that_fails_is_tried_again_and_confirms_nothing(
    stepped: Stepped, clock: Any
) -> None:
    worker = stepped(lease=30)
    beat = worker.heartbeat._leases.renew

    def refuse(*_: Any, **__: Any) -> bool:
        raise OperationalError("beat", {}, Exception("no database"))

    worker.heartbeat._leases.renew = refuse
    clock.pass_(10)
    assert worker.heartbeat.round() <= 2.0
    clock.pass_(19.9)
    assert worker.inflight.lease.good()
    clock.pass_(0.1)
    assert not worker.inflight.lease.good()
    worker.heartbeat._leases.renew = beat
    worker.heartbeat.round()
    assert worker.inflight.lease.good()
    assert len(worker.workers()) == 1


def test_a_lease_counts_from_when_the_beat_was_sent(stepped: Stepped, clock: Any) -> None:
    worker = stepped(lease=30)
    beat = worker.heartbeat._leases.renew

    def slow(*given: Any, **more: Any) -> bool:
        clock.pass_(20)
        return bool(beat(*given, **more))

    worker.heartbeat._leases.renew = slow
    clock.pass_(10)
    worker.heartbeat.tick()
    clock.pass_(9.9)
    assert worker.inflight.lease.good()
    clock.pass_(0.2)
    assert not worker.inflight.lease.good()


def test_claims_stay_valid_when_the_row_is_there_however_late_the_beat(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    handle = work.enqueue()
    worker = stepped(lease=30)
    worker.claim()
    holder = worker.inflight.lease.worker
    clock.pass_(100_000)
    worker.heartbeat.tick()
    assert worker.inflight.lease.worker is holder
    assert worker.inflight.lease.good()
    worker.execute()
    worker.complete()
    assert handle.result(0) == 1


def test_a_row_that_is_gone_abandons_the_claims_and_registers_anew(
    work: Any, jobs: JobQueue, stepped: Stepped, clock: Any, lines: Any
) -> None:
    handles = [work.enqueue() for _ in range(3)]
    worker = stepped(lease=30)
    worker.claim()
    context = begin(worker)
    worker.inflight._cancel_requested.add((handles[1].id, 1))
    old = worker.inflight.lease.worker
    worker.execute_sql("DELETE FROM jobqueue_workers")
    worker.heartbeat.tick()
    assert context.stop_reason is None, "between two beats it cannot know"
    clock.pass_(10)
    worker.heartbeat.tick()
    new = worker.inflight.lease.worker
    assert new.id != old.id
    assert new.name == old.name
    assert set(worker.workers()) == {new.id}
    assert (worker.inflight.held, worker.inflight._cancel_requested) == ({}, set())
    assert context.stop_reason
    with pytest.raises(ClaimLost):
        context.check()
    assert len(lines(ERROR, "lost its lease")) == 1
    assert worker.inflight.lease.good()
    worker.execute()
    assert [handle.state for handle in handles] == [State.RUNNING] * 3


def test_the_outcome_of_an_abandoned_claim_is_offered_and_the_fence_decides(
    work: Any, jobs: JobQueue, stepped: Stepped, clock: Any
) -> None:
    accepted, refused = work.enqueue(), work.enqueue()
    worker = stepped(lease=30, concurrency=2)
    first, second = worker.claim()
    worker.execute()
    worker.inflight.abandon()
    worker.change(second.id, fence=second.fence + 1)  # A reaper was faster.
    worker.complete()
    assert accepted.state is State.SUCCEEDED
    assert refused.state is State.RUNNING
    assert first.id == accepted.id


def test_while_it_cannot_register_the_worker_has_no_lease(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    work.enqueue()
    worker = stepped(lease=30)
    register = worker.heartbeat._leases.register

    def refuse(_: Any) -> int:
        raise OperationalError("register", {}, Exception("no database"))

    worker.heartbeat._leases.register = refuse
    worker.execute_sql("DELETE FROM jobqueue_workers")
    clock.pass_(10)
    for _ in range(3):
        worker.heartbeat.round()
        assert worker.inflight.lease.worker is None
        assert worker.planner.wanted() == 0
    worker.heartbeat._leases.register = register
    worker.heartbeat.round()
    assert worker.inflight.lease.worker is not None
    assert len(worker.claim()) == 1


def test_running_jobs_are_told_that_they_are_to_be_cancelled(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handles = [work.enqueue(), work.enqueue()]
    worker = stepped()
    worker.claim()
    contexts = [begin(worker), begin(worker)]
    assert worker.heartbeat.tick() <= 0.5
    jobs.cancel(handles[0].id)
    worker.heartbeat.tick()
    assert [context.stop_reason is not None for context in contexts] == [True, False]
    with pytest.raises(JobCancelled):
        contexts[0].check()
    contexts[1].check()


def test_a_wish_to_cancel_an_older_claim_of_the_job_tells_nobody(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handle = work.enqueue()
    worker = stepped()
    worker.claim()
    context = begin(worker)
    cancels = worker.heartbeat._leases.cancel_requests
    worker.heartbeat._leases.cancel_requests = lambda worker: [(handle.id, 0)]
    worker.heartbeat.tick()
    assert context.stop_reason is None
    assert worker.inflight._cancel_requested == set()
    worker.heartbeat._leases.cancel_requests = cancels


def test_the_first_thing_that_a_job_was_told_holds(work: Any, stepped: Stepped) -> None:
    work.enqueue()
    worker = stepped()
    worker.claim()
    context = begin(worker)
    context.request_stop(JobCancelled)
    context.request_stop(ClaimLost)
    with pytest.raises(JobCancelled):
        context.check()


def test_a_timeout_is_told_by_check_alone(
    jobs: JobQueue, stepped: Stepped, monkeypatch: Any
) -> None:
    @jobs.task(timeout=3)
    def slow() -> None: ...

    slow.enqueue()
    worker = stepped()
    worker.claim()
    context = begin(worker)
    context.check()
    monkeypatch.setattr(context, "_deadline", 0.0)
    worker.heartbeat.tick()
    assert context.stop_reason is None
    with pytest.raises(AttemptTimeout):
        context.check()


def test_progress_is_written_once_and_only_by_the_claims_owner(work: Any, stepped: Stepped) -> None:
    handle = work.enqueue()
    worker = stepped()
    worker.claim()
    context = begin(worker)
    context.report(0.1, "first")
    context.report(0.2, "second")
    worker.heartbeat.tick()
    row = worker.row(handle.id)
    assert (row.progress, row.progress_message) == (0.2, "second")
    worker.change(handle.id, progress=None, progress_message=None)
    worker.heartbeat.tick()
    assert worker.row(handle.id).progress is None, "what was said is written once"
    worker.change(handle.id, fence=context.claim.fence + 1)
    context.report(0.9, "stale")
    worker.heartbeat.tick()
    assert worker.row(handle.id).progress is None


def test_progress_that_could_not_be_written_is_written_later_unless_there_is_newer(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = work.enqueue()
    worker = stepped()
    worker.claim()
    context = begin(worker)
    context.report(0.1, "the last word")
    with monkeypatch.context() as away:
        away.setattr(worker.heartbeat._completion, "save_progress", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            worker.heartbeat.tick()
    worker.heartbeat.tick()
    assert worker.row(handle.id).progress_message == "the last word"
    context.report(0.2, "older")
    report = worker.heartbeat._completion.save_progress
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(
            worker.heartbeat._completion,
            "save_progress",
            lambda *rows: (context.report(0.3, "newer"), report(*rows)),
        )
        worker.heartbeat.tick()
    assert worker.row(handle.id).progress_message == "older"
    worker.heartbeat.tick()
    assert worker.row(handle.id).progress_message == "newer"


@pytest.mark.parametrize("fails", [True, False])
def test_progress_that_a_heartbeat_is_about_to_write_is_not_lost_when_the_attempt_ends(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    handle = work.enqueue()
    worker = stepped()
    worker.claim()
    context = begin(worker)
    context.report(1.0, "done")
    report = worker.heartbeat._completion.save_progress

    def slow(*rows: Any) -> None:
        worker.inflight.end(context, Succeeded(context.claim, None, None, 0.0, 0.0))
        worker.complete()
        if fails:
            raise ConnectionError
        report(*rows)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(worker.heartbeat._completion, "save_progress", slow)
        with pytest.raises(ConnectionError) if fails else nullcontext():
            worker.heartbeat.tick()
    row = worker.row(handle.id)
    assert (row.state, row.progress_message) == (State.SUCCEEDED, "done")


def test_a_worker_that_claims_a_lost_job_again_knows_the_new_attempt_only(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handle = work.enqueue()
    worker = stepped()
    worker.claim()
    old = begin(worker)
    worker.execute_sql("DELETE FROM jobqueue_workers")
    worker.heartbeat._beat(worker.inflight.lease.worker)
    worker.heartbeat._leases.reap()
    worker.claim()
    new = begin(worker)
    assert new.claim.fence > old.claim.fence
    worker.inflight.end(old, worker.writer and _released(old))
    assert worker.inflight.running, "the new attempt still runs"
    jobs.cancel(handle.id)
    worker.heartbeat.tick()
    assert new.stop_reason


def _released(context: Attempt) -> Any:
    from jobqueue.worker.handler.outcomes import released

    return released(context.claim, None)


def test_a_wish_to_cancel_that_comes_late_does_not_reach_a_later_attempt(
    jobs: JobQueue, stepped: Stepped
) -> None:
    """The heartbeat has read the wish; the claim ends; an operator runs the job again."""
    runs: list[int] = []

    @jobs.task
    def work() -> None:
        runs.append(1)

    handle = work.enqueue()
    worker = stepped()
    (claim,) = worker.claim()
    jobs.cancel(handle.id)
    held = worker.inflight._held

    class Late(dict):  # type: ignore[type-arg]
        def get(self, key: Any, default: Any = None) -> Any:
            found = dict.get(self, key, default)
            if worker.inflight._held is self:
                worker.inflight._held = held
                worker.execute()
                worker.complete()
            return found

    worker.inflight._held = Late(held)
    worker.heartbeat.tick()
    assert handle.state is State.CANCELLED
    jobs.retry(handle.id)
    runs.clear()
    worker.step()
    assert runs == [1]
    assert handle.state is State.SUCCEEDED
