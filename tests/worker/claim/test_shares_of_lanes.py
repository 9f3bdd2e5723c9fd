"""How a worker shares its slots among queues with lanes, when it looks again, and which lanes its claims are of."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import insert, update

from jobqueue import JobQueue
from jobqueue.store.lanes import Lanes
from jobqueue.store.schema import Parked, lanes, queues
from jobqueue.worker.claim import lanes as lane_planner
from tests.worker.claim.conftest import ids


class TwoQueues:
    """A worker that knows of two limited queues with nine jobs each. What it claims never ends."""

    def __init__(self, jobs: JobQueue, work: Any, worker: Any) -> None:
        self.store, self.worker, self.lanes = jobs.store, worker, worker.planner.lanes
        names = ("one", "two")
        with jobs.store.write() as connection:
            connection.execute(
                insert(queues), [{"name": name, "max_running": 20} for name in names]
            )
        jobs.enqueue_many([work.options(queue=name).call() for name in names for _ in range(9)])
        with jobs.store.read() as connection:
            self.lanes.look(connection, announced=True)
        self.lanes.refresh()

    def claim(self, limit: int, room: int = 20) -> Counter[str]:
        with self.store.write() as connection:
            claims = self.lanes.claim(
                connection,
                self.worker.inflight.lease.worker,
                limit=limit,
                room=lambda *_: room,
            )
        return Counter(claim.queue for claim in claims)


@pytest.fixture
def two(jobs: JobQueue, work: Any, stepped: Any) -> TwoQueues:
    return TwoQueues(jobs, work, stepped())


def test_each_queue_gets_its_share_of_the_slots(two: TwoQueues) -> None:
    assert two.claim(4) == {"one": 2, "two": 2}


def test_queues_take_turns_at_a_single_slot(two: TwoQueues) -> None:
    assert sum((two.claim(1) for _ in range(6)), Counter()) == {"one": 3, "two": 3}


def test_a_queue_without_room_in_this_worker_is_kept_and_not_asked_without_a_rest(
    two: TwoQueues,
) -> None:
    assert two.claim(4, room=0) == {}
    assert two.lanes.due_in() == lane_planner.ROOM_INTERVAL
    assert two.claim(4) == {"one": 2, "two": 2}
    assert two.lanes.due_in() == 0


def test_what_was_claimed_from_a_lane_is_not_given_back_as_if_it_were_prefetched(
    jobs: JobQueue, work: Any, stepped: Any
) -> None:
    """A limited queue is claimed from its lane only: what was claimed before the limit is not."""
    with jobs.store.write() as connection:
        connection.execute(insert(queues).values(name="default", max_running=3))
    job, worker = work.enqueue(), stepped(concurrency=2)
    worker.planner.hint_work(announced=True)
    for _ in range(3):
        worker.parts.claimer.round()
    assert ids(worker.inbox()) == [job.id]
    worker.planner._limits_at = 0.0
    worker.planner.release_stale_prefetch()
    assert ids(worker.inbox()) == [job.id]


def test_lanes_that_come_back_after_the_loss_of_a_worker_are_claimed_from_at_once(
    two: TwoQueues,
) -> None:
    with two.store.write() as connection:
        connection.execute(update(lanes).values(parked=Parked.FULL))
    two.lanes._queues.clear()  # As after a look.
    two.lanes.recheck()
    assert two.claim(4) == {"one": 2, "two": 2}


def test_claims_that_are_lost_are_forgotten_and_bring_their_lanes_back(
    two: TwoQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_planner, "FORGOTTEN_LATE", 1)
    two.claim(4)
    assert not two.lanes.has_ended()
    two.lanes.forget_all_but([])
    assert two.lanes.lanes_of == {}
    assert two.lanes.has_ended()


def test_a_worker_looks_again_into_a_queue_when_its_rate_allows_the_next_start(
    jobs: JobQueue, work: Any, stepped: Any
) -> None:
    with jobs.store.write() as connection:
        rate = {"name": "default", "rate_count": 1, "rate_period": 600.0}
        connection.execute(insert(queues).values(rate))
    jobs.enqueue_many([work.call() for _ in range(2)])
    worker = stepped(concurrency=2)
    worker.planner.hint_work(announced=True)
    for _ in range(3):
        worker.parts.claimer.round()
    assert len(worker.inbox()) == 1
    assert 500 < worker.planner.lanes.due_in() <= 600
    assert not worker.planner.lanes.has_work()


def test_a_worker_takes_no_job_of_a_key_from_a_queue_that_it_does_not_serve(
    jobs: JobQueue, work: Any, stepped: Any
) -> None:
    """Not even at the end of its own job of that key, which brings the lane back."""
    one = work.options(concurrency_key="k", concurrency_limit=1)
    first, other = one.enqueue(), one.options(queue="other").enqueue()
    worker = stepped(concurrency=2, queues=["default"])
    claimed = []
    for _ in range(2):
        worker.planner.hint_work(announced=True)
        for _ in range(3):
            worker.parts.claimer.round()
        claimed += ids(worker.inbox())
        worker.execute()
        worker.complete()
        Lanes(jobs.store).sweep(every=None)
    assert (claimed, other.state) == ([first.id], "available")


def test_an_error_that_is_no_lock_on_a_table_is_not_passed_over(stepped: Any) -> None:
    lanes = stepped().planner.lanes
    assert not lanes.skip(OSError("no database"))
    assert lanes._skipped_until == 0
