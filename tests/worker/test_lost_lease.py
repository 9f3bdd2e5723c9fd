"""Claims under a lease that was lost: another worker has them, and this one neither begins nor gives back any."""

import pytest
from sqlalchemy import delete

from jobqueue.states import State
from jobqueue.store.schema import workers
from tests.worker.conftest import Stepped


@pytest.mark.databases("sqlite")
def test_a_claim_under_a_lost_lease_is_neither_handed_out_nor_given_back(stepped: Stepped) -> None:
    worker = stepped()

    @worker.queue.task
    def work() -> None: ...

    work.enqueue()
    claims, inflight = worker.claim(), worker.inflight
    holder = inflight.lease.worker
    assert holder is not None and len(claims) == 1
    assert inflight.abandon() == 1
    inflight.dispatch(claims, holder)  # As where the lease was lost while the claim was committed.
    assert (dict(inflight.held), worker.inbox()) == ({}, claims)
    assert inflight.release_unknown(claims, holder) is False
    assert inflight.release_prefetched() == 0
    assert (worker.inbox(), worker.outbox()) == ([], [])


def test_outcomes_of_two_leases_are_each_written_under_their_own(stepped: Stepped) -> None:
    """The jobs of the lost lease were not reaped yet: their outcomes are accepted."""
    worker = stepped()

    @worker.queue.task
    def work() -> None: ...

    jobs = [work.enqueue()]
    worker.claim()
    worker.execute()
    late = worker.inflight.outbox.get()  # As of a handler that takes longer.
    first = worker.inflight.lease.worker
    with worker.store.write() as connection:
        connection.execute(delete(workers))
    worker.heartbeat._beat_at = float("-inf")
    worker.heartbeat.tick()
    assert worker.inflight.lease.worker not in (None, first)
    jobs.append(work.enqueue())
    worker.claim()
    worker.execute()
    worker.inflight.outbox.put(late)
    assert len({outcome.claim.worker_id for outcome in worker.outbox()}) == 2
    worker.complete()
    assert [worker.row(job.id).state for job in jobs] == [State.SUCCEEDED] * 2
