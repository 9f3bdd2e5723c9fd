"""What was announced to an idle worker: it claims there before it looks elsewhere."""

from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.worker.claim import cursors as cursors_module
from jobqueue.worker.claim.cursors import WorkHint
from tests.worker.claim.conftest import ids, prefetching
from tests.worker.conftest import Stepped

PAST = [datetime(2020, 1, 1, 0, 0, n, tzinfo=UTC) for n in range(10)]


def rung(worker: Any, *queues: str | None, work: Any) -> Any:
    """Let a worker run a job of each queue, so that it knows them, and then hear a ring."""
    for queue in queues:
        work.options(queue=queue).enqueue()
        worker.step()
    assert worker.claim() == []
    assert worker.inflight.held == {}
    return prefetching(worker, 0)


def ring(worker: Any) -> list[int]:
    """Ring, and let the worker make one round of claiming."""
    worker.planner.hint_work(announced=True)
    return ids(worker.claim(sweep=False))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often a sweep looked for queues."""
    looked: list[str] = []
    next_queues = cursors_module.Claims.next_queues

    def see(self: Any, connection: Any, first: str, **most: Any) -> Any:
        looked.append(first)
        return next_queues(self, connection, first, **most)

    monkeypatch.setattr(cursors_module.Claims, "next_queues", see)
    return looked


def test_a_ring_makes_an_idle_worker_claim_where_jobs_were_before_it_looks_elsewhere(
    work: Any, stepped: Stepped, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors_module, "HEAD_START", 100.0)
    worker = rung(stepped(concurrency=4), "a", work=work)
    first, elsewhere = work.options(queue="a").enqueue(), work.options(queue="b").enqueue()
    looks.clear()
    assert ring(worker) == [first.id]
    assert looks == []
    assert 0 < worker.cursors.rescan_in() <= 100, "it lets the handler begin first"
    worker.cursors._rescan_not_before = 0.0
    assert ids(worker.claim(sweep=False)) == [first.id, elsewhere.id]


def test_a_ring_finds_the_best_priority_first_whatever_it_was_before(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = rung(stepped(concurrency=1), "default", work=work)
    for priority in (0, 5, -5, -7, 0):
        work.options(priority=priority).enqueue()
    best = work.options(priority=-7, at=PAST[0]).enqueue()
    assert ring(worker) == [best.id]


def test_a_ring_for_another_queue_than_before_finds_it_in_the_same_round(
    work: Any, stepped: Stepped
) -> None:
    worker = rung(stepped(), "a", work=work)
    job = work.options(queue="b").enqueue()
    assert ring(worker) == [job.id]


def test_a_ring_on_a_worker_that_has_run_jobs_of_several_queues_finds_its_job(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped()
    jobs.enqueue_many([work.options(queue=queue).call() for queue in ("a", "b")])
    worker.step()
    job = work.options(queue="b").enqueue()
    assert ring(worker) == [job.id]


def test_the_first_ring_of_all_finds_its_job(work: Any, stepped: Stepped) -> None:
    job = work.enqueue()
    assert ring(stepped()) == [job.id]


def test_a_ring_leaves_slots_to_other_queues(work: Any, jobs: JobQueue, stepped: Stepped) -> None:
    worker = rung(stepped(concurrency=4), "big", work=work)
    big = jobs.enqueue_many([work.options(queue="big").call() for _ in range(30)])
    small = work.options(queue="small").enqueue()
    assert ring(worker) == ids(big[:2])
    worker.cursors._rescan_not_before = 0.0
    assert sorted(ids(worker.claim(sweep=False))) == sorted([*ids(big[:3]), small.id])


def test_a_ring_does_not_break_a_pause_a_queues_limit_or_max_jobs(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = rung(stepped(concurrency=8, queues="mail:1,default", max_jobs=3), "mail", work=work)
    mail = jobs.enqueue_many([work.options(queue="mail").call() for _ in range(4)])
    assert ring(worker) == [mail[0].id]
    worker.execute()
    worker.complete()
    jobs.pause("mail")
    assert ring(worker) == []
    jobs.resume("mail")
    assert ring(worker) == [mail[1].id]
    worker.execute()
    worker.complete()
    assert ring(worker) == []
    assert worker.planner.exhausted


def test_a_ring_claims_no_more_of_a_queue_than_its_limit_in_this_worker(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = rung(stepped(concurrency=8, queues="mail:1,default"), "mail", work=work)
    mail = jobs.enqueue_many([work.options(queue="mail").call() for _ in range(4)])
    assert ring(worker) == [mail[0].id]


def test_a_ring_on_a_busy_worker_waits_for_its_next_sweep(
    work: Any, stepped: Stepped, looks: list[str]
) -> None:
    worker = rung(stepped(concurrency=4), "a", work=work)
    held = work.options(queue="a").enqueue()
    assert ring(worker) == [held.id]
    worker.cursors._rescanned_at = float("inf")  # Never again.
    worker.cursors.hint = WorkHint.NONE
    work.options(queue="a").enqueue()
    looks.clear()
    assert ring(worker) == [held.id]
    assert looks == []
    assert worker.cursors.hint is WorkHint.MAYBE


def test_what_a_ring_may_have_missed_is_swept_for_also_while_its_job_runs(
    work: Any, stepped: Stepped
) -> None:
    """A second hint, which comes while the job runs, does not put the sweep off."""
    worker = rung(stepped(concurrency=4), "a", work=work)
    work.options(queue="a").enqueue()
    elsewhere = work.options(queue="b").enqueue()
    ring(worker)
    worker.planner.hint_work()
    worker.cursors._rescan_not_before = 0.0
    worker.cursors._rescanned_at = float("inf")  # Not because it is time.
    assert elsewhere.id in ids(worker.claim(sweep=False))


@pytest.mark.parametrize(
    "options", [{"max_attempts": 1}, {"unique_key": "k", "unique_until": "started"}]
)
def test_a_ring_claims_a_job_that_may_not_wait_only_if_a_slot_is_free(
    work: Any, stepped: Stepped, options: Any
) -> None:
    worker = prefetching(rung(stepped(concurrency=2), "default", work=work), 10)
    solo = work.options(**options).enqueue()
    worker.inflight.capacity.open |= {(-1, 1), (-2, 1)}  # Two handlers of a lease that was lost.
    assert ring(worker) == []
    worker.inflight.capacity.open.clear()
    assert ring(worker) == [solo.id]


def test_a_ring_for_what_another_worker_took_finds_nothing(work: Any, stepped: Stepped) -> None:
    one, two = rung(stepped(), "default", work=work), rung(stepped(), "default", work=work)
    job = work.enqueue()
    assert (ring(one), ring(two)) == ([job.id], [])
