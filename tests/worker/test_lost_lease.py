"""Claims under a lease that was lost: another worker has them, and this one neither begins nor gives back any."""

import pytest

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
