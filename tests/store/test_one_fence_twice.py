"""A server that has lost a commit may give one fence to two attempts: the lease tells them apart; on both databases."""

from typing import Any, NamedTuple

import pytest

from jobqueue.errors import ClaimLost
from jobqueue.records import Claim
from jobqueue.states import State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.completion import BULK
from jobqueue.store.user_transactions import UserTransactions
from tests.store.conftest import StoreKit

WAYS = ["succeeded", "errored", "failed", "snoozed", "released", "cancelled"]


class Twice(NamedTuple):
    """Claims of the same jobs with the same fences by two workers; those of the first were lost."""

    first: WorkerRef
    second: WorkerRef
    lost: list[Claim]
    kept: list[Claim]


def claim_twice(kit: StoreKit, count: int = 1) -> Twice:
    first, second = kit.worker("w1"), kit.worker("w2")
    ids = kit.add_many(count)
    lost = kit.take(first)
    kit.change(*ids, state="available", fence=0, attempt=0, worker_id=None, worker=None)
    kept = kit.take(second)
    assert [(claim.id, claim.fence) for claim in lost] == [
        (claim.id, claim.fence) for claim in kept
    ]
    return Twice(first, second, lost, kept)


@pytest.mark.parametrize("count", [1, BULK])
@pytest.mark.parametrize("way", WAYS)
def test_the_outcome_of_the_lost_claim_is_refused(kit: StoreKit, way: str, count: int) -> None:
    twice = claim_twice(kit, count)
    outcomes = [getattr(kit, way)(claim) for claim in twice.lost]
    assert kit.finish(twice.first, *outcomes) == {}
    assert {kit.state(claim.id) for claim in twice.kept} == {State.RUNNING}
    accepted = kit.finish(twice.second, *map(kit.succeeded, twice.kept))
    assert len(accepted) == count


def test_the_success_of_the_one_is_not_taken_for_that_of_the_other(kit: StoreKit) -> None:
    """An outcome that is offered again is accepted where the job has ended so: by this worker."""
    twice = claim_twice(kit)
    kit.finish(twice.second, kit.succeeded(twice.kept[0]))
    assert kit.finish(twice.first, kit.succeeded(twice.lost[0])) == {}
    assert len(kit.finish(twice.second, kit.succeeded(twice.kept[0]))) == 1


def test_progress_of_the_lost_claim_is_not_written(kit: StoreKit) -> None:
    twice = claim_twice(kit)
    [claim] = twice.lost
    kit.completion.save_progress(twice.first, [(claim.id, claim.fence, 0.5, "lost")])
    assert kit.row(claim.id).progress is None
    kit.completion.save_progress(twice.second, [(claim.id, claim.fence, 0.25, "kept")])
    assert kit.row(claim.id).progress == 0.25


def test_the_lost_claim_begins_nothing(kit: StoreKit) -> None:
    twice = claim_twice(kit)
    assert not kit.claims.mark_started(twice.lost[0])
    assert kit.claims.mark_started(twice.kept[0])


def test_the_lost_claim_finishes_within_no_transaction(kit: StoreKit) -> None:
    twice = claim_twice(kit)
    transactions = UserTransactions(kit.store)
    with pytest.raises(ClaimLost), kit.store.write() as connection:
        transactions.finish(connection, twice.lost[0], "1")
    with kit.store.write() as connection:
        transactions.finish(connection, twice.kept[0], "2")
    assert kit.row(twice.kept[0].id).result == "2"


def test_the_number_of_a_worker_is_not_that_of_one_whose_registration_was_lost(
    kit: StoreKit,
) -> None:
    """A sequence goes back with the commits; two workers of one number would share a lease."""
    first = kit.worker("w1")
    kit.leases.deregister(first.id)
    if kit.store.backend.single_writer:
        reset = "DELETE FROM sqlite_sequence WHERE name = 'jobqueue_workers'"
    else:
        reset = "SELECT setval('jobqueue_workers_id_seq', 1, false)"
    with kit.store.write() as connection:
        connection.exec_driver_sql(reset)
    assert kit.worker("w2").id != first.id
