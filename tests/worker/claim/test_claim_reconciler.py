"""Reconciliation: what the database says a worker holds, against what it knows of; on both databases."""

from typing import Any

import pytest

from jobqueue import JobQueue, State, current_job
from jobqueue.worker.claim import claim_reconciler
from tests.worker.conftest import Stepped

WARNING = 30
TOLD = "that it did not run"


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task(max_attempts=3)
    def work(text: str = "fine") -> str:
        if text.startswith("lost"):
            current_job().progress(0.5, "half")
        return text

    return work


def set_back(worker: Any, *ids: int) -> None:
    """What a server does that loses the commit of the outcomes: the rows are as they were before."""
    for id_ in ids:
        row = worker.row(id_)
        worker.change(
            id_,
            state="running",
            fence=row.fence - 1,
            worker_id=worker.inflight.lease.worker.id,
            finished_at=None,
            result=None,
        )


def claimers_round(worker: Any) -> None:
    """A round of the claimer that claims nothing, and the writing down of what it gives back."""
    worker.planner.closed = True
    worker.parts.claimer.round()
    worker.planner.closed = False
    worker.complete()


def compare_now(worker: Any) -> None:
    """A round as late as the interval says."""
    worker.planner._reconciler._compared_at = float("-inf")
    claimers_round(worker)


def test_a_job_whose_success_the_server_has_lost_is_run_again(
    work: Any, stepped: Stepped, lines: Any
) -> None:
    worker = stepped()
    lost, kept = work.enqueue(), work.enqueue()
    worker.step()
    set_back(worker, lost.id)
    compare_now(worker)
    assert (lost.state, kept.state) == (State.AVAILABLE, State.SUCCEEDED)
    row = worker.row(lost.id)
    assert (row.attempt, row.crashes, row.reason) == (0, 0, "interrupted")
    assert worker.inflight.held == {}
    assert len(lines(WARNING, TOLD)) == 1
    worker.step()
    assert lost.state is State.SUCCEEDED


def test_a_job_that_may_begin_once_and_whose_end_was_lost_has_failed(
    work: Any, stepped: Stepped
) -> None:
    once = work.options(max_attempts=1)
    worker, lost = stepped(), once.enqueue()
    worker.step()
    set_back(worker, lost.id)
    waiting = once.enqueue()
    compare_now(worker)
    row = worker.row(lost.id)
    assert (row.state, row.reason) == (State.FAILED, "interrupted")
    assert worker.attempts(lost.id) == [(1, "interrupted", None)]
    assert waiting.state is State.AVAILABLE


def test_a_job_that_may_begin_once_and_was_never_handed_out_goes_back(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the claim was lost; what was handed out before is older."""
    worker = stepped()
    work.enqueue()
    worker.step()
    once = work.options(max_attempts=1).enqueue()
    monkeypatch.setattr(worker.inflight, "dispatch", lambda *_: None)
    worker.claim()
    monkeypatch.undo()
    assert once.state is State.RUNNING
    compare_now(worker)
    row = worker.row(once.id)
    assert (row.state, row.attempt) == (State.AVAILABLE, 0)
    assert worker.attempts(once.id) == []
    worker.step()
    assert once.state is State.SUCCEEDED


def test_what_this_worker_runs_or_is_about_to_is_left_alone(work: Any, stepped: Stepped) -> None:
    worker, other = stepped(concurrency=1), stepped()
    [mine, inbox] = [work.enqueue() for _ in range(2)]
    worker.inflight.capacity.mean_duration = 1e-6  # So that it prefetches.
    assert len(worker.claim()) == 2
    theirs = work.enqueue()
    assert [claim.id for claim in other.claim()] == [theirs.id]
    compare_now(worker)
    assert worker.outbox() == []
    assert {mine.state, inbox.state, theirs.state} == {State.RUNNING}


def test_only_the_claim_that_is_not_known_goes_back_where_the_same_worker_has_a_newer_one(
    work: Any, stepped: Stepped
) -> None:
    """By the id alone the two could not be told apart; and the older one may still be running."""
    worker = stepped()
    job = work.enqueue()
    [first] = worker.claim()
    worker.change(
        job.id, fence=first.fence + 2
    )  # Unsuccessful, and claimed again by a lost answer.
    compare_now(worker)
    row = worker.row(job.id)
    assert (row.state, row.fence) == (State.AVAILABLE, first.fence + 3)


@pytest.mark.parametrize("begun", [False, True])
def test_a_claim_whose_commit_was_lost_and_that_is_made_again_is_one_claim(
    work: Any, stepped: Stepped, begun: bool
) -> None:
    """The row has the same fence again: either of two runs could end the other's."""
    worker = stepped()
    job = work.enqueue()
    [claim] = worker.claim()
    if begun:
        worker.execute()
    worker.change(job.id, state="available", fence=0, attempt=0, worker_id=None, worker=None)
    with worker.store.write() as connection:
        worker.cursors.rescan(connection)
        worker.planner.claim(connection, 1)
    worker.planner.dispatch()
    assert [(one.id, one.fence) for one in worker.planner.batch] == [(claim.id, claim.fence)]
    assert worker.inflight.held[job.id] is claim
    assert len(worker.inbox()) == (not begun)
    worker.execute()
    worker.complete()
    assert (job.state, worker.inflight.processed) == (State.SUCCEEDED, 1)


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_got_the_id_of_one_that_the_server_has_lost_is_run_itself(
    work: Any, stepped: Stepped, begun: bool
) -> None:
    """Both have the same id and the same fence: the first one's outcome could end the other."""
    worker = stepped()
    job = work.enqueue("lost with the server's last commits")
    worker.claim()
    if begun:
        worker.execute()
    other = work.call("another job").args
    nobody = {"state": "available", "fence": 0, "attempt": 0, "worker_id": None, "worker": None}
    worker.change(job.id, **nobody, args=other)
    with worker.store.write() as connection:
        worker.cursors.rescan(connection)
        worker.planner.claim(connection, 1)
    worker.planner.dispatch()
    worker.execute()
    worker.complete()
    row = worker.row(job.id)
    assert (row.state, row.attempt, row.progress_message) == (State.AVAILABLE, 0, None)
    worker.step()
    assert job.result(timeout=0) == "another job"
    inflight = worker.inflight
    assert inflight.held == inflight._replaced == inflight._progress == {}


@pytest.mark.parametrize("reason", ["a failed round", "a reconnection", "the interval"])
def test_claims_are_compared_after_a_failed_round_a_reconnection_and_an_interval(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    worker = stepped()
    lost = work.enqueue()
    worker.step()
    claimers_round(worker)  # Whatever reason there was before is gone.
    set_back(worker, lost.id)
    claimers_round(worker)
    assert lost.state is State.RUNNING
    if reason == "a failed round":
        monkeypatch.setattr(worker.heartbeat._leases, "renew", fail)
        worker.heartbeat._beat_at = float("-inf")
        worker.heartbeat.round()
    elif reason == "a reconnection":
        worker.store.engine.dispose()
        with worker.store.read():
            pass
    else:
        monkeypatch.setattr(claim_reconciler, "INTERVAL", 0.0)
    claimers_round(worker)
    assert lost.state is State.AVAILABLE


def test_a_completion_that_fails_gives_reason_to_compare(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    work.enqueue()
    worker.claim()
    worker.execute()
    monkeypatch.setattr(worker.writer, "write", fail)
    worker.parts.completer.round()
    assert worker.planner._reconciler.due()


def test_a_comparison_that_fails_is_made_again(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    lost = work.enqueue()
    worker.step()
    claimers_round(worker)
    set_back(worker, lost.id)
    worker.inflight.failed_rounds += 1
    monkeypatch.setattr(worker.planner._claims, "unknown", fail)
    claimers_round(worker)
    monkeypatch.undo()
    assert lost.state is State.RUNNING
    claimers_round(worker)
    assert lost.state is State.AVAILABLE


def fail(*_: Any, **__: Any) -> Any:
    """What a store does whose database is away."""
    raise ConnectionError("away")
