"""The planner: how many jobs are claimed, how many of them wait, and when they are given back."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import JobQueue, State
from jobqueue.records import Unsuccessful
from jobqueue.store.queue_control import QueueControl
from jobqueue.worker.claim import planner as planner_module
from jobqueue.worker.handler.context import Attempt
from tests.worker.conftest import Stepped


def test_before_anything_is_known_of_durations_only_free_slots_are_filled(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    jobs.enqueue_many([work.call() for _ in range(50)])
    worker = stepped(concurrency=3)
    assert worker.planner.prefetch() == 0
    assert len(worker.claim()) == 3
    assert worker.planner.wanted() == 0
    assert len(worker.claim()) == 3


@pytest.mark.parametrize("mean", [1.0, 60.0, 3600.0])
def test_long_jobs_are_not_prefetched(
    work: Any, jobs: JobQueue, stepped: Stepped, mean: float
) -> None:
    jobs.enqueue_many([work.call() for _ in range(50)])
    worker = stepped(concurrency=4)
    worker.inflight.capacity.mean_duration = mean
    assert worker.planner.prefetch() == 0
    assert len(worker.claim()) == 4


def test_short_jobs_are_prefetched_up_to_a_batch(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped(concurrency=4)
    batch_max = worker.store.backend.batch_max
    jobs.enqueue_many([work.call() for _ in range(batch_max + 50)])
    worker.inflight.capacity.mean_duration = 1e-7
    assert worker.planner.prefetch() == batch_max
    assert len(worker.claim()) == batch_max
    assert len(worker.claim()) <= batch_max + 4


def test_no_claim_is_larger_than_a_batch(work: Any, jobs: JobQueue, stepped: Stepped) -> None:
    worker = stepped(concurrency=1024)
    assert worker.planner.wanted() == worker.store.backend.batch_max <= 500


def test_claims_that_no_slot_is_free_for_are_given_back_uncharged(
    work: Any, jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = jobs.enqueue_many([work.call() for _ in range(10)])
    worker = stepped(concurrency=1)
    worker.planner.prefetch = lambda: 5
    worker.claim()
    running = worker.inflight.inbox.get()  # A slot takes the first, and does not come back.
    worker.inflight.begin(Attempt(running, None, None))  # type: ignore[arg-type]
    worker.planner.release_stale_prefetch()
    assert worker.inflight.inbox.qsize() == 5
    worker.inflight.capacity.last_start -= planner_module.STALE_PREFETCH_AGE + 1
    worker.planner.release_stale_prefetch()
    assert worker.inbox() == []
    assert {type(outcome) for outcome in worker.outbox()} == {Unsuccessful}
    worker.complete()
    assert worker.state(running.id) is State.RUNNING
    for handle in handles[1:]:
        row = worker.row(handle.id)
        assert (row.state, row.attempt) == (State.AVAILABLE, 0)
        assert worker.attempts(handle.id) == []
    assert set(worker.inflight.held) == {running.id}
    assert worker.inflight.capacity.mean_duration > planner_module.STALE_PREFETCH_AGE, (
        "and they are not claimed again at once"
    )


@pytest.mark.parametrize(
    "hold",
    [
        lambda jobs: QueueControl(jobs.store).limit("other", 2),
        lambda jobs: jobs.pause("other"),
        lambda jobs: jobs.pause(tag="bulk"),
    ],
    ids=["limit", "queue paused", "tag paused"],
)
def test_prefetched_claims_that_are_held_back_meanwhile_are_given_back(
    work: Any, jobs: JobQueue, stepped: Stepped, hold: Callable[[JobQueue], None]
) -> None:
    jobs.enqueue_many([work.call() for _ in range(4)])
    jobs.enqueue_many([work.options(queue="other", tags=["bulk"]).call() for _ in range(4)])
    worker = stepped(concurrency=1)
    worker.planner.prefetch = lambda: 7
    assert len(worker.claim()) == 8
    hold(jobs)
    worker.planner.release_stale_prefetch()
    assert [claim.queue for claim in worker.inbox()] == ["default"] * 4
    worker.complete()
    assert sorted(job.state for job in jobs.list()) == [*["available"] * 4, *["running"] * 4]


@pytest.mark.parametrize("busy", [False, True])
def test_claims_for_a_slot_that_had_nothing_to_do_for_long_are_not_given_back_before_it_wakes(
    work: Any, jobs: JobQueue, stepped: Stepped, *, busy: bool
) -> None:
    worker = stepped(concurrency=2)
    if busy:
        jobs.enqueue_many([work.call()])
        worker.claim()
        long = worker.inflight.inbox.get()  # The other slot runs something long.
        worker.inflight.begin(Attempt(long, None, None))  # type: ignore[arg-type]
    worker.inflight.capacity.last_start -= 100
    jobs.enqueue_many([work.call() for _ in range(5)])
    claims = worker.claim()
    assert len(claims) == 2 - busy
    worker.planner.release_stale_prefetch()
    assert worker.inbox() == claims


def test_a_look_for_async_jobs_that_found_others_is_not_repeated_at_once(
    work: Any, jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.enqueue_many([work.call() for _ in range(30)])
    worker = stepped(concurrency=1)
    worker.claim()
    long = worker.inflight.inbox.get()  # The only slot runs something long.
    worker.inflight.begin(Attempt(long, None, None))  # type: ignore[arg-type]
    worker.inflight.capacity.asynchronous.limit = 100  # The app has an async task, too.
    assert len(worker.claim()) == planner_module.ASYNC_PROBE
    worker.inflight.capacity.last_start -= 100
    worker.planner.release_stale_prefetch()
    assert worker.inbox() == []
    assert worker.planner.wanted() == 0
    monkeypatch.setattr(worker.planner, "_probe_at", 0.0)  # Once the time is over.
    assert worker.planner.wanted() == planner_module.ASYNC_PROBE


def test_a_hoard_is_kept_while_the_lease_is_in_doubt(
    work: Any, jobs: JobQueue, stepped: Stepped, clock: Any
) -> None:
    jobs.enqueue_many([work.call() for _ in range(3)])
    worker = stepped(concurrency=3)
    worker.claim()
    worker.inflight.capacity.last_start -= 100
    clock.pass_(1000)
    worker.planner.release_stale_prefetch()
    assert len(worker.inbox()) == 3


def test_no_more_than_max_jobs_are_claimed_whatever_is_prefetched(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handles = jobs.enqueue_many([work.call() for _ in range(20)])
    worker = stepped(concurrency=2, max_jobs=5)
    worker.planner.prefetch = lambda: 100
    assert len(worker.claim()) == 5
    assert worker.planner.exhausted
    worker.execute()
    worker.complete()
    assert worker.claim() == []
    assert [handle.state for handle in handles].count(State.SUCCEEDED) == 5


def test_a_hoard_that_was_given_back_does_not_count_as_run(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    jobs.enqueue_many([work.call() for _ in range(20)])
    worker = stepped(concurrency=2, max_jobs=5)
    worker.planner.prefetch = lambda: 100
    worker.claim()
    worker.inflight.capacity.last_start -= 100
    worker.planner.release_stale_prefetch()
    assert not worker.planner.exhausted
    worker.complete()
    worker.inflight.capacity.mean_duration = None
    while not worker.planner.exhausted:
        worker.step()
    assert worker.counted("succeeded") == 5


def test_a_database_that_lags_behind_stops_claims(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped(concurrency=4)
    handle = work.enqueue()
    (claim,) = worker.claim()
    # Smaller after a round that took long to begin, as if another program wrote to the file.
    batch_max = worker.inflight.contention.batch_max(worker.store.backend)
    outcome = Unsuccessful(claim, "released", State.AVAILABLE, refund=True)
    for _ in range(2 * batch_max):
        worker.inflight.outbox.put(outcome)
    worker.inflight.inbox.get()
    assert worker.planner.wanted() > 0
    worker.inflight.outbox.put(outcome)
    assert worker.planner.wanted() == 0
    assert handle.state is State.RUNNING


def test_a_worker_that_stops_or_has_no_lease_claims_nothing(
    work: Any, jobs: JobQueue, stepped: Stepped, clock: Any
) -> None:
    work.enqueue()
    worker = stepped(lease=30)
    assert worker.planner.wanted() == 4
    clock.pass_(29.9)
    assert worker.planner.wanted() == 4
    clock.pass_(0.2)
    assert worker.planner.wanted() == 0
    worker.heartbeat.tick()
    assert worker.planner.wanted() == 4
    worker.planner.closed = True
    assert worker.planner.wanted() == 0
    worker.planner.closed = False
    worker.inflight.abandon()
    assert worker.planner.wanted() == 0
    assert worker.claim() == []


def test_claims_of_a_worker_that_stops_meanwhile_go_back(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handle = work.enqueue()
    worker = stepped()
    claim = worker.inflight.dispatch

    def stops_first(*arguments: Any) -> None:
        worker.inflight.close()
        claim(*arguments)

    worker.inflight.dispatch = stops_first
    assert worker.claim() == []
    worker.complete()
    row = worker.row(handle.id)
    assert (row.state, row.attempt) == (State.AVAILABLE, 0)


def test_claims_of_a_lease_that_was_lost_meanwhile_are_dropped(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handle = work.enqueue()
    worker = stepped()
    dispatch = worker.inflight.dispatch

    def loses_first(*arguments: Any) -> None:
        worker.execute_sql("DELETE FROM jobqueue_workers")
        worker.heartbeat._beat(worker.inflight.lease.worker)
        dispatch(*arguments)

    worker.inflight.dispatch = loses_first
    assert worker.claim() == []
    assert worker.inflight.held == {}
    worker.inflight.dispatch = dispatch
    assert worker.claim() == []
    assert handle.state is State.RUNNING  # until a reaper takes it


def without_files(_claim: object) -> bool:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("runs_on_loop", [lambda _claim: True, without_files])
def test_a_worker_that_has_no_loop_leaves_async_jobs_to_others_for_a_while(
    jobs: JobQueue, stepped: Stepped, runs_on_loop: Callable[[object], bool]
) -> None:
    """Else it claims them again with each outcome, and no other worker ever sees them waiting."""

    @jobs.task
    async def fetch() -> None: ...

    handle = fetch.enqueue()
    ill = stepped()
    ill.inflight.send_to_loop(runs_on_loop, without_files)
    with pytest.raises(OSError, match="open files"):
        ill.claim()
    assert ill.planner.wanted() == 0
    ill.claim()
    ill.complete()
    assert handle.state is State.AVAILABLE
    assert ill.claim() == [] and ill.row(handle.id).attempt == 0
    ill.planner._rests_until -= planner_module.REFUSED_REST
    with pytest.raises(OSError, match="open files"):
        ill.claim()


def test_the_rest_is_the_poll_when_there_is_nothing(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped(poll=0.5)
    worker.claim()
    assert 0 <= worker.planner.delay() <= 0.5
