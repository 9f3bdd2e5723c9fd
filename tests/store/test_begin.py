"""A unique key that is held until the start is held until the job has begun; on both databases."""

from typing import Any

import pytest
from sqlalchemy import update

from jobqueue.records import Unsuccessful, Inserted
from jobqueue.store.schema import jobs
from jobqueue.states import State
from jobqueue.store.claims import WorkerRef

KEYED = {"unique_key": "k", "unique_until": "started"}


def put(desk: Any) -> Inserted:
    """What enqueueing another job with the key gives."""
    (made,) = desk.insert(desk.new(**KEYED))
    return made


def unknown_task(desk: Any, claim: Any) -> Unsuccessful:
    return Unsuccessful(claim, "unknown task", State.SCHEDULED, delay=10.0, refund=True)


def finish(desk: Any, outcome: Unsuccessful) -> None:
    """Write an outcome under the lease that its job was claimed under."""
    desk.finish(WorkerRef(outcome.claim.worker_id, "w1"), outcome)


GIVEN_BACK = {
    "released": lambda desk, claim: finish(desk, desk.released(claim)),
    "snoozed": lambda desk, claim: finish(desk, desk.snoozed(claim)),
    "unknown task": lambda desk, claim: finish(desk, unknown_task(desk, claim)),
    "worker lost": lambda desk, claim: (
        desk.leases.deregister(claim.worker_id),
        desk.leases.reap(),
    ),
}


def test_a_claim_alone_frees_no_key(desk: Any) -> None:
    id_ = desk.add(**KEYED)
    claim = desk.take_one(desk.worker())
    assert claim.releases_key_on_start
    assert put(desk) == Inserted(id_, False)


@pytest.mark.parametrize("how", GIVEN_BACK)
def test_a_job_that_is_given_back_unbegun_keeps_its_key(desk: Any, how: str) -> None:
    id_ = desk.add(**KEYED)
    holder = desk.worker()
    GIVEN_BACK[how](desk, desk.take_one(holder))
    assert desk.state(id_) in (State.AVAILABLE, State.SCHEDULED)
    assert put(desk) == Inserted(id_, False)
    desk.change(id_, state=State.AVAILABLE.value)
    assert desk.take_one(desk.worker()).releases_key_on_start


@pytest.mark.parametrize("how", [*GIVEN_BACK, "errored"])
def test_a_job_that_has_begun_never_takes_its_key_again(desk: Any, how: str) -> None:
    id_ = desk.add(**KEYED)
    claim = desk.take_one(desk.worker())
    assert desk.claims.mark_started(claim)
    other = put(desk)
    assert other.created
    ends = GIVEN_BACK | {"errored": lambda desk, claim: finish(desk, desk.errored(claim))}
    ends[how](desk, claim)
    assert desk.state(id_) in (State.AVAILABLE, State.SCHEDULED)
    assert put(desk) == Inserted(other.id, False)
    desk.change(id_, state=State.AVAILABLE.value)
    again = desk.take(desk.worker())
    assert {claim.id: claim.releases_key_on_start for claim in again} == {
        id_: False,
        other.id: True,
    }


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_job_that_ended_without_having_begun_holds_no_key(desk: Any, end: str) -> None:
    desk.add(**KEYED)
    holder = desk.worker()
    desk.finish(holder, getattr(desk, end)(desk.take_one(holder)))
    assert put(desk).created


def test_a_stale_claim_begins_nothing(desk: Any) -> None:
    id_ = desk.add(**KEYED)
    holder = desk.worker()
    stale = desk.take_one(holder)
    desk.finish(holder, desk.released(stale))
    assert not desk.claims.mark_started(stale)
    fresh = desk.take_one(holder)
    assert not desk.claims.mark_started(stale)
    assert put(desk) == Inserted(id_, False)
    assert desk.claims.mark_started(fresh) and desk.claims.mark_started(
        fresh
    )  # Its answer may have been lost.


@pytest.mark.parametrize("scope", [None, "finished", "deleted"])
def test_other_jobs_free_no_key_when_they_begin(desk: Any, scope: str | None) -> None:
    desk.add(unique_key=scope and "k", unique_until=scope)
    assert not desk.take_one(desk.worker()).releases_key_on_start


@pytest.mark.databases("postgres")  # SQLite has no locks on rows.
def test_beginning_does_not_wait_long_for_a_lock_on_the_job(desk: Any) -> None:
    id_ = desk.add(**KEYED)
    claim = desk.take_one(desk.worker())
    with desk.store.engine.begin() as someone:
        someone.execute(update(jobs).where(jobs.c.id == id_).values(priority=1))
        with pytest.raises(Exception, match="lock timeout"):
            desk.claims.mark_started(claim)
    assert desk.claims.mark_started(claim)
