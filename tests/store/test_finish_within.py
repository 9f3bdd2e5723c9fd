"""How a job succeeds in a transaction of its handler's; and how crashes are counted."""

from typing import Any

from msgspec.structs import replace
import pytest

from jobqueue.records import JobFilter
from jobqueue.states import State
from tests.store.conftest import StoreKit, WAYS
from jobqueue.store.claims import WorkerRef

# In a transaction of the user


def finish_within(kit: StoreKit, claim: Any, connection: Any) -> int | None:
    values = {"in_job": claim.id, "in_claimed": claim.fence, "in_worker": claim.worker_id}
    values |= {"in_result": "7"}
    return connection.execute(kit.store.statements.finish_within, values).scalar()


def test_a_job_succeeds_with_the_transaction_of_its_handler(kit: StoreKit, claim: Any) -> None:
    with kit.store.engine.connect() as connection, connection.begin():
        assert finish_within(kit, claim, connection) == claim.id
    job = kit.row(claim.id)
    assert (job.state, job.result, job.fence) == (State.SUCCEEDED, "7", claim.fence + 1)
    assert kit.column(claim.id, "worker_id") is None


def test_a_transaction_of_a_handler_that_rolls_back_ends_nothing(kit: StoreKit, claim: Any) -> None:
    before = kit.row(claim.id)
    with kit.store.engine.connect() as connection:
        transaction = connection.begin()
        finish_within(kit, claim, connection)
        transaction.rollback()
    assert kit.row(claim.id) == before


@pytest.mark.parametrize("fence", [-1, 1])
def test_a_handler_whose_claim_is_lost_cannot_finish_within(
    kit: StoreKit, claim: Any, fence: int
) -> None:
    before = kit.row(claim.id)
    with kit.store.engine.connect() as connection, connection.begin():
        stale = replace(claim, fence=claim.fence + fence)
        assert finish_within(kit, stale, connection) is None
    assert kit.row(claim.id) == before


def test_a_job_that_is_to_be_cancelled_cannot_finish_within(kit: StoreKit, claim: Any) -> None:
    kit.jobs.cancel(JobFilter(ids=(claim.id,)))
    with kit.store.engine.connect() as connection, connection.begin():
        assert finish_within(kit, claim, connection) is None
    assert kit.state(claim.id) is State.RUNNING


def test_whatever_text_a_result_is_comes_back_the_same(kit: StoreKit, holder: WorkerRef) -> None:
    texts = [
        '"NULL"',
        "NULL",
        "{}",
        '{"a": [1, "x,y"]}',
        '"\\\\ \\" \'"',
        '""',
        '" "',
        '"🦆\\n"',
        "",
        None,
    ]
    claims = [kit.take_one(holder) for _ in kit.add_many(len(texts))]
    for one_by_one in (claims[:3], claims[3:]):
        kit.finish(
            holder,
            *(kit.succeeded(claim, texts[claims.index(claim)]) for claim in one_by_one),
        )
    assert [kit.row(claim.id).result for claim in claims] == texts


# Crashes


@pytest.mark.parametrize("way", WAYS)
def test_an_end_in_order_clears_crashes_and_giving_back_keeps_them(kit: StoreKit, way: str) -> None:
    holder, id_ = kit.worker(), kit.add()
    kit.change(id_, crashes=2, child_crashes=1)
    claim = kit.take_one(holder)
    assert (claim.crashes, claim.child_crashes, claim.immediate_only) == (2, 1, True)
    kit.finish(holder, getattr(kit, way)(claim))
    job = kit.row(id_)
    kept = way == "released"
    assert (job.crashes, job.child_crashes) == ((2, 1) if kept else (0, 0))


def test_a_crash_of_its_own_is_counted_charged_and_recorded(kit: StoreKit) -> None:
    holder, id_ = kit.worker(), kit.add()
    kit.change(id_, crashes=1)
    claim = kit.take_one(holder)
    crash = replace(
        kit.errored(claim),
        outcome="crashed",
        crash=True,
        exit_signal="SIGKILL",
        peak_memory=1_900_000_000,
    )
    assert kit.finish(holder, crash) == {id_: State.SCHEDULED}
    job = kit.row(id_)
    assert (job.attempt, job.crashes, job.child_crashes) == (1, 2, 1)
    (attempt,) = kit.jobs.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("crashed", "SIGKILL")
    assert attempt.to_json()["peak_memory"] == 1_900_000_000
    assert kit.counters()["default", "add"]["errored_attempts"] == 1
