"""A unique key that is held until the start is held until the job has begun; on both databases."""

from typing import Any

import pytest
from sqlalchemy import update

from jobqueue.new_jobs import Inserted
from jobqueue.records import Unsuccessful
from jobqueue.store.schema import jobs
from jobqueue.states import State
from jobqueue.store.claims import WorkerRef
from tests.store.conftest import StoreKit

KEYED = {"unique_key": "k", "unique_until": "started"}


def put(kit: StoreKit) -> Inserted:
    """What enqueueing another job with the key gives."""
    (made,) = kit.insert(kit.new(**KEYED))
    return made


def unknown_task(kit: StoreKit, claim: Any) -> Unsuccessful:
    return Unsuccessful(claim, "unknown task", State.SCHEDULED, delay=10.0, refund=True)


def finish(kit: StoreKit, outcome: Unsuccessful) -> None:
    """Write an outcome under the lease that its job was claimed under."""
    kit.finish(WorkerRef(outcome.claim.worker_id, "w1"), outcome)


GIVEN_BACK = {
    "released": lambda kit, claim: finish(kit, kit.released(claim)),
    "snoozed": lambda kit, claim: finish(kit, kit.snoozed(claim)),
    "unknown task": lambda kit, claim: finish(kit, unknown_task(kit, claim)),
    "worker lost": lambda kit, claim: (
        kit.leases.deregister(claim.worker_id),
        kit.leases.reap(),
    ),
}


def test_a_claim_alone_frees_no_key(kit: StoreKit) -> None:
    id_ = kit.add(**KEYED)
    claim = kit.take_one(kit.worker())
    assert claim.releases_key_on_start
    assert put(kit) == Inserted(id_, False)


@pytest.mark.parametrize("how", GIVEN_BACK)
def test_a_job_that_is_given_back_unbegun_keeps_its_key(kit: StoreKit, how: str) -> None:
    id_ = kit.add(**KEYED)
    holder = kit.worker()
    GIVEN_BACK[how](kit, kit.take_one(holder))
    assert kit.state(id_) in (State.AVAILABLE, State.SCHEDULED)
    assert put(kit) == Inserted(id_, False)
    kit.change(id_, state=State.AVAILABLE.value)
    assert kit.take_one(kit.worker()).releases_key_on_start


@pytest.mark.parametrize("how", [*GIVEN_BACK, "errored"])
def test_a_job_that_has_begun_never_takes_its_key_again(kit: StoreKit, how: str) -> None:
    id_ = kit.add(**KEYED)
    claim = kit.take_one(kit.worker())
    assert kit.claims.mark_started(claim)
    other = put(kit)
    assert other.created
    ends = GIVEN_BACK | {"errored": lambda kit, claim: finish(kit, kit.errored(claim))}
    ends[how](kit, claim)
    assert kit.state(id_) in (State.AVAILABLE, State.SCHEDULED)
    assert put(kit) == Inserted(other.id, False)
    kit.change(id_, state=State.AVAILABLE.value)
    again = kit.take(kit.worker())
    assert {claim.id: claim.releases_key_on_start for claim in again} == {
        id_: False,
        other.id: True,
    }


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_job_that_ended_without_having_begun_holds_no_key(kit: StoreKit, end: str) -> None:
    kit.add(**KEYED)
    holder = kit.worker()
    kit.finish(holder, getattr(kit, end)(kit.take_one(holder)))
    assert put(kit).created


def test_a_stale_claim_begins_nothing(kit: StoreKit) -> None:
    id_ = kit.add(**KEYED)
    holder = kit.worker()
    stale = kit.take_one(holder)
    kit.finish(holder, kit.released(stale))
    assert not kit.claims.mark_started(stale)
    fresh = kit.take_one(holder)
    assert not kit.claims.mark_started(stale)
    assert put(kit) == Inserted(id_, False)
    assert kit.claims.mark_started(fresh) and kit.claims.mark_started(
        fresh
    )  # Its answer may have been lost.


@pytest.mark.parametrize("scope", [None, "finished", "deleted"])
def test_other_jobs_free_no_key_when_they_begin(kit: StoreKit, scope: str | None) -> None:
    kit.add(unique_key=scope and "k", unique_until=scope)
    assert not kit.take_one(kit.worker()).releases_key_on_start


@pytest.mark.databases("postgres")  # SQLite has no locks on rows.
def test_beginning_does_not_wait_long_for_a_lock_on_the_job(kit: StoreKit) -> None:
    id_ = kit.add(**KEYED)
    claim = kit.take_one(kit.worker())
    with kit.store.engine.begin() as someone:
        someone.execute(update(jobs).where(jobs.c.id == id_).values(priority=1))
        with pytest.raises(Exception, match="lock timeout"):
            kit.claims.mark_started(claim)
    assert kit.claims.mark_started(claim)
