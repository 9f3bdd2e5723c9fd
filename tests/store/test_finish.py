"""How claims end: fenced, counted, recorded, and offered twice without harm."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from msgspec.structs import replace
import pytest
from sqlalchemy import event, text

from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store import completion as completion_module
from jobqueue.store.claims import WorkerRef
from tests.store.conftest import ERROR, StoreKit, WAYS

NEXT = {
    "succeeded": State.SUCCEEDED,
    "errored": State.SCHEDULED,
    "failed": State.FAILED,
    "snoozed": State.SCHEDULED,
    "released": State.AVAILABLE,
    "cancelled": State.CANCELLED,
}


@pytest.mark.parametrize("way", WAYS)
def test_an_outcome_moves_the_job_and_raises_the_fence(
    kit: StoreKit, holder: WorkerRef, claim: Any, way: str
) -> None:
    assert kit.finish(holder, getattr(kit, way)(claim)) == {claim.id: NEXT[way]}
    job = kit.row(claim.id)
    assert (job.state, job.fence) == (NEXT[way], claim.fence + 1)
    assert kit.column(claim.id, "worker_id") is None
    assert (job.finished_at is not None) == job.final


@pytest.mark.parametrize("fence", [-1, 1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_an_outcome_with_another_fence_changes_nothing(
    kit: StoreKit, holder: WorkerRef, claim: Any, way: str, fence: int
) -> None:
    before = kit.row(claim.id)
    stale = replace(claim, fence=claim.fence + fence)
    assert kit.finish(holder, getattr(kit, way)(stale)) == {}
    assert kit.row(claim.id) == before
    assert kit.counters() == {}
    assert kit.outcomes(claim.id) == ["running"]


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_that_lost_its_lease_cannot_end_the_attempt_of_the_next(
    kit: StoreKit, holder: WorkerRef, claim: Any, way: str
) -> None:
    kit.leases.deregister(holder.id)
    kit.leases.reap()
    second = kit.worker("w2")
    later = kit.take_one(second)
    before, counted = kit.row(claim.id), kit.counters()
    assert kit.finish(holder, getattr(kit, way)(claim)) == {}
    assert kit.row(claim.id) == before
    assert kit.counters() == counted
    assert kit.finish(second, kit.succeeded(later)) == {claim.id: State.SUCCEEDED}


@pytest.mark.parametrize("way", WAYS)
def test_an_outcome_that_comes_after_the_reaper_changes_nothing(
    kit: StoreKit, holder: WorkerRef, claim: Any, way: str
) -> None:
    kit.leases.deregister(holder.id)
    kit.leases.reap()
    before = kit.row(claim.id)
    assert kit.finish(holder, getattr(kit, way)(claim)) == {}
    assert kit.row(claim.id) == before


def test_one_stale_outcome_does_not_hold_up_the_others(kit: StoreKit, holder: WorkerRef) -> None:
    kit.add_many(5)
    a, b, c, d, e = kit.take(holder)
    stale = kit.succeeded(replace(b, fence=9)), kit.errored(replace(d, fence=9))
    answer = kit.finish(
        holder, kit.succeeded(a), stale[0], kit.succeeded(c), stale[1], kit.errored(e)
    )
    assert answer == {a.id: State.SUCCEEDED, c.id: State.SUCCEEDED, e.id: State.SCHEDULED}
    assert {kit.state(b.id), kit.state(d.id)} == {State.RUNNING}


def test_an_outcome_for_a_deleted_job_is_missing_in_the_answer(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, kit.succeeded(claim))
    kit.jobs.delete(JobFilter())
    assert kit.finish(holder, kit.succeeded(claim), kit.errored(claim)) == {}


def test_no_outcomes_are_nothing(kit: StoreKit, holder: WorkerRef) -> None:
    assert kit.finish(holder) == {}


@pytest.fixture
def long_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch of successes counts as a long one, which is first written as if all claims held."""
    monkeypatch.setattr(completion_module, "BULK", 1)


@pytest.mark.usefixtures("long_batches")
def test_a_long_batch_of_successes_is_written(kit: StoreKit, holder: WorkerRef) -> None:
    kit.add_many(20)
    claims = kit.take(holder)
    outcomes = [kit.succeeded(claim, f'"{claim.id}"') for claim in claims]
    assert kit.finish(holder, *outcomes) == {claim.id: State.SUCCEEDED for claim in claims}
    for claim in claims:
        job = kit.row(claim.id)
        assert (job.state, job.result) == (State.SUCCEEDED, f'"{claim.id}"')
        assert (job.fence, kit.column(claim.id, "worker_id")) == (claim.fence + 1, None)
    assert kit.counters()["default", "add"]["succeeded"] == 20


@pytest.mark.usefixtures("long_batches")
def test_a_long_batch_holds_claims_with_several_fences(kit: StoreKit, holder: WorkerRef) -> None:
    kit.add_many(4)
    once, *others = kit.take(holder)
    kit.finish(holder, *map(kit.released, others))
    claims = [once, *kit.take(holder)]
    assert {claim.fence for claim in claims} == {1, 3}
    before = kit.row(once.id)
    outcomes = [kit.succeeded(claim, None) for claim in claims]
    stale = [kit.succeeded(replace(once, fence=3)), *outcomes[1:3]]
    assert once.id not in kit.finish(holder, *stale)
    assert kit.row(once.id) == before
    assert kit.finish(holder, outcomes[0], outcomes[3]) == dict.fromkeys(
        (once.id, claims[3].id), State.SUCCEEDED
    )
    assert {kit.row(claim.id).result for claim in claims} == {None}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("fences", "statements"), [(2, 2), (3, 1)])
def test_a_long_batch_of_many_fences_takes_one_statement_and_not_one_for_each(
    kit: StoreKit, holder: WorkerRef, fences: int, statements: int
) -> None:
    kit.add_many(2 * completion_module.BULK)
    outcomes = []
    for place, claim in enumerate(kit.take(holder)):
        fence = claim.fence + place % fences
        kit.change(claim.id, fence=fence)
        outcomes.append(kit.succeeded(replace(claim, fence=fence)))
    executed: list[str] = []
    event.listen(
        kit.store.engine, "before_cursor_execute", lambda *given: executed.append(given[2])
    )
    assert set(kit.finish(holder, *outcomes).values()) == {State.SUCCEEDED}
    assert sum(each.startswith("UPDATE") for each in executed) == statements


@pytest.mark.usefixtures("long_batches")
def test_a_stale_and_a_cancelled_claim_in_a_long_batch_are_told_apart(
    kit: StoreKit, holder: WorkerRef
) -> None:
    kit.add_many(20)
    claims = kit.take(holder)
    stale, wished, *rest = claims
    kit.jobs.cancel(JobFilter(ids=(wished.id,)))
    before = kit.row(stale.id)
    outcomes = [kit.succeeded(replace(stale, fence=9)), *map(kit.succeeded, [wished, *rest])]
    expected = dict.fromkeys([claim.id for claim in rest], State.SUCCEEDED)
    assert kit.finish(holder, *outcomes) == {**expected, wished.id: State.CANCELLED}
    assert kit.row(stale.id) == before
    assert kit.row(wished.id).result is None
    counted = kit.counters()["default", "add"]
    assert (counted["succeeded"], counted["cancelled"]) == (18, 1)


@pytest.mark.usefixtures("long_batches")
def test_a_wish_to_cancel_in_a_long_batch_is_heard(kit: StoreKit, holder: WorkerRef) -> None:
    kit.add_many(3)
    wished, *rest = kit.take(holder)
    kit.jobs.cancel(JobFilter(ids=(wished.id,)))
    answer = kit.finish(holder, *map(kit.succeeded, [wished, *rest]))
    expected = dict.fromkeys([claim.id for claim in rest], State.SUCCEEDED)
    assert answer == {wished.id: State.CANCELLED, **expected}
    assert kit.state(wished.id) is State.CANCELLED


@pytest.mark.usefixtures("long_batches")
@pytest.mark.parametrize("fence", [-1, 1, 2])
def test_a_long_batch_with_other_fences_changes_nothing(
    kit: StoreKit, holder: WorkerRef, fence: int
) -> None:
    kit.add_many(3)
    claims = kit.take(holder)
    before = [kit.row(claim.id) for claim in claims]
    stale = [kit.succeeded(replace(claim, fence=claim.fence + fence)) for claim in claims]
    assert kit.finish(holder, *stale) == {}
    assert [kit.row(claim.id) for claim in claims] == before
    assert kit.counters() == {}


@pytest.mark.usefixtures("long_batches")
def test_a_long_batch_that_is_offered_again_is_accepted_and_counted_once(
    kit: StoreKit, holder: WorkerRef
) -> None:
    kit.add_many(3)
    outcomes = [kit.succeeded(claim) for claim in kit.take(holder)]
    first = kit.finish(holder, *outcomes)
    assert kit.finish(holder, *outcomes) == first
    assert kit.counters()["default", "add"]["succeeded"] == 3


# What each way writes


def test_a_success_keeps_its_result(kit: StoreKit, holder: WorkerRef, claim: Any) -> None:
    kit.finish(holder, kit.succeeded(claim, '{"ü": [1, null, "🦆"]}'))
    job = kit.row(claim.id)
    assert (job.result, job.reason, job.worker) == ('{"ü": [1, null, "🦆"]}', None, "w1")
    assert job.started_at == claim.started_at
    assert [(a.attempt, a.fence, a.outcome, a.worker) for a in kit.jobs.attempts(job)] == [
        (1, claim.fence, "succeeded", "w1")
    ]


def test_a_result_that_was_dropped_leaves_the_reason(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, replace(kit.succeeded(claim, None), reason="result dropped: too large"))
    assert (kit.row(claim.id).result, kit.row(claim.id).reason) == (
        None,
        "result dropped: too large",
    )


def test_an_errored_attempt_waits_for_its_delay_and_stays_charged(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, kit.errored(claim, delay=120.5))
    job = kit.row(claim.id)
    assert (job.state, job.attempt, job.snoozes) == (State.SCHEDULED, 1, 0)
    assert (job.worker, job.started_at, job.finished_at) == (None, None, None)
    assert abs(job.run_at - claim.started_at - timedelta(seconds=120.5)) < timedelta(seconds=20)
    assert (job.error.type, job.error.message) == ("ValueError", "no good")
    assert kit.signatures() == ["add ValueError app/shop.py:pay"]


def test_every_attempt_is_recorded_with_who_and_when_and_why(
    kit: StoreKit, holder: WorkerRef
) -> None:
    id_ = kit.add()
    first = kit.take_one(holder)
    kit.finish(holder, kit.errored(first))
    kit.jobs.retry(JobFilter(ids=(id_,)))
    second_worker = kit.worker("w2")
    second = kit.take_one(second_worker)
    kit.finish(second_worker, kit.failed(second))
    one, two = kit.jobs.attempts(kit.row(id_))
    assert (one.attempt, one.fence, one.worker, one.outcome) == (1, first.fence, "w1", "errored")
    assert (two.attempt, two.fence, two.worker, two.outcome) == (2, second.fence, "w2", "errored")
    assert (one.started_at, two.started_at) == (first.started_at, second.started_at)
    assert one.finished_at <= two.finished_at
    assert one.error == two.error == ERROR._replace(place=None)


def test_a_snooze_gives_the_attempt_back_and_is_counted(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, kit.snoozed(claim, delay=60.0))
    job = kit.row(claim.id)
    assert (job.state, job.attempt, job.snoozes, job.reason) == (State.SCHEDULED, 0, 1, "later")
    assert kit.outcomes(claim.id) == ["snoozed"]
    kit.jobs.retry(JobFilter(ids=(claim.id,)))
    again = kit.take_one(holder)
    assert (again.attempt, again.fence) == (1, claim.fence + 2)


def test_a_snooze_until_then_is_due_by_the_clock_of_the_database(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, kit.snoozed(claim, delay=0.0))
    assert kit.maintenance.promote() == ["default"]


def test_what_is_given_back_unbegun_leaves_no_trace(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, kit.released(claim))
    job = kit.row(claim.id)
    assert (job.state, job.attempt, job.run_at) == (State.AVAILABLE, 0, claim.run_at)
    assert (job.worker, job.started_at, job.snoozes) == (None, None, 0)
    assert kit.outcomes(claim.id) == []
    assert kit.counters() == {}


def test_a_job_that_is_given_back_stands_where_it_stood(kit: StoreKit, holder: WorkerRef) -> None:
    first, second = kit.add_many(2)
    claims = kit.take(holder)
    kit.finish(holder, *map(kit.released, reversed(claims)))
    assert [claim.id for claim in kit.take(holder)] == [first, second]


# Cancelled while it ran


@pytest.mark.parametrize("way", WAYS)
def test_a_wish_to_cancel_turns_every_outcome_into_cancelled(
    kit: StoreKit, holder: WorkerRef, claim: Any, way: str
) -> None:
    assert kit.jobs.cancel(JobFilter(ids=(claim.id,))) == ([claim.id], [])
    assert kit.state(claim.id) is State.RUNNING
    assert kit.finish(holder, getattr(kit, way)(claim)) == {claim.id: State.CANCELLED}
    job = kit.row(claim.id)
    assert (job.state, job.result, job.fence) == (State.CANCELLED, None, claim.fence + 1)
    assert job.finished_at is not None
    assert kit.counters()["default", "add"]["cancelled"] == 1
    assert "succeeded" not in kit.counters()["default", "add"]


# Counting


def test_what_ended_is_counted_by_queue_and_task(kit: StoreKit, holder: WorkerRef) -> None:
    kit.add_many(6)
    ends = [
        kit.succeeded,
        kit.succeeded,
        kit.errored,
        kit.failed,
        kit.cancelled,
        kit.released,
    ]
    kit.finish(holder, *(end(claim) for end, claim in zip(ends, kit.take(holder), strict=True)))
    kit.add(queue="mail", task="send")
    kit.finish(holder, kit.succeeded(kit.take_one(holder, queue="mail")))
    assert kit.counters() == {
        ("default", "add"): {
            "succeeded": 2,
            "failed": 1,
            "cancelled": 1,
            "errored_attempts": 2,
            "runs": 5,
            "duration": 2.5,
            "duration_max": 0.5,
            "wait": 1.25,
            "wait_max": 0.25,
        },
        ("mail", "send"): {
            "succeeded": 1,
            "runs": 1,
            "duration": 0.5,
            "duration_max": 0.5,
            "wait": 0.25,
            "wait_max": 0.25,
        },
    }


def test_a_batch_of_many_queues_and_tasks_counts_each_of_them(
    kit: StoreKit, holder: WorkerRef
) -> None:
    names = ["a", 'b"', "c,d", "{e}", "f\\", "g'", "NULL", ""]
    claims = []
    for name in names:
        kit.insert(kit.new(queue=f"q{name}", task=f"t{name}"))
        claims.append(kit.take_one(holder, queue=f"q{name}"))
    outcomes = [replace(kit.succeeded(claim), duration=n / 3) for n, claim in enumerate(claims)]
    kit.finish(holder, *outcomes)
    assert kit.counters() == {
        (f"q{name}", f"t{name}"): {
            "succeeded": 1,
            "runs": 1,
            **({"duration": n / 3, "duration_max": n / 3} if n else {}),
            "wait": 0.25,
            "wait_max": 0.25,
        }
        for n, name in enumerate(names)
    }


def test_outcomes_counts_and_attempts_are_one_transaction(kit: StoreKit, holder: WorkerRef) -> None:
    kit.add_many(2)
    claims = kit.take(holder)
    with pytest.raises(ZeroDivisionError), kit.store.write() as connection:
        outcomes = [kit.succeeded(claims[0]), kit.errored(claims[1])]
        assert len(kit.completion.complete(connection, holder, outcomes)) == 2
        raise ZeroDivisionError
    assert {kit.state(claim.id) for claim in claims} == {State.RUNNING}
    assert kit.counters() == {}
    assert kit.outcomes(claims[1].id) == ["running"]


# The answer of a commit was lost


SETTLES = ["succeeded", "failed", "cancelled"]


@pytest.mark.parametrize("way", SETTLES)
def test_an_outcome_that_is_offered_again_is_accepted_and_counted_once(
    kit: StoreKit, holder: WorkerRef, claim: Any, way: str
) -> None:
    outcome = getattr(kit, way)(claim)
    first = kit.finish(holder, outcome)
    before, counted, tried = kit.row(claim.id), kit.counters(), kit.outcomes(claim.id)
    for _ in range(2):
        assert kit.finish(holder, outcome) == first
    assert (kit.row(claim.id), kit.counters()) == (before, counted)
    assert kit.outcomes(claim.id) == tried


def test_another_outcome_of_the_same_claim_is_not_accepted(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, kit.failed(claim))
    assert kit.finish(holder, kit.succeeded(claim)) == {}
    assert kit.finish(holder, kit.cancelled(claim)) == {}
    assert kit.state(claim.id) is State.FAILED


def test_an_outcome_offered_again_after_a_rerun_is_not_accepted(
    kit: StoreKit, holder: WorkerRef, claim: Any
) -> None:
    kit.finish(holder, kit.succeeded(claim))
    kit.jobs.retry(JobFilter(ids=(claim.id,)), succeeded=True)
    assert kit.finish(holder, kit.succeeded(claim)) == {}
    assert kit.state(claim.id) is State.AVAILABLE


def test_new_outcomes_pass_beside_one_that_is_offered_again(
    kit: StoreKit, holder: WorkerRef
) -> None:
    kit.add_many(2)
    old, new = kit.take(holder)
    kit.finish(holder, kit.succeeded(old))
    answer = kit.finish(holder, kit.succeeded(old), kit.succeeded(new))
    assert answer == {old.id: State.SUCCEEDED, new.id: State.SUCCEEDED}
    assert kit.counters()["default", "add"]["succeeded"] == 2


# Progress


def test_progress_is_written_for_the_claim_that_holds(kit: StoreKit, holder: WorkerRef) -> None:
    kit.add_many(3)
    mine, stale, old = kit.take(holder)
    kit.finish(holder, kit.errored(old))
    kit.completion.save_progress(
        holder,
        [
            (mine.id, mine.fence, 0.5, "half 🦆"),
            (stale.id, stale.fence + 1, 0.9, "stale"),
            (old.id, old.fence, 0.9, "late"),
            (10**9, 1, 0.9, "nobody"),
        ],
    )
    shown = [
        (job.progress, job.progress_message) for job in map(kit.row, (mine.id, stale.id, old.id))
    ]
    assert shown == [(0.5, "half 🦆"), (None, None), (None, None)]
    kit.completion.save_progress(holder, [(mine.id, mine.fence, None, "no idea how far")])
    assert (kit.row(mine.id).progress, kit.row(mine.id).progress_message) == (
        None,
        "no idea how far",
    )


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("verb", ["succeeded", "errored", "report"])
def test_outcomes_and_progress_lock_their_rows_in_the_order_of_their_ids(
    kit: StoreKit, holder: WorkerRef, second_store: Any, blocked: Any, verb: str
) -> None:
    """As a bulk cancel does: they wait for each other, and do not kill each other."""
    with kit.store.write() as connection:  # A small table would be read whole, in its own order.
        numbers = "SELECT 'add', 'others' FROM generate_series(1, 20000)"
        connection.execute(text(f"INSERT INTO jobqueue_jobs (task, queue) {numbers}"))
    ids = kit.add_many(20)
    claims = kit.take(holder)[::-1]
    other = type(kit)(second_store(lock_timeout="60s"))

    def write() -> Any:
        if verb == "report":
            rows = [(claim.id, claim.fence, 0.5, None) for claim in claims]
            return other.completion.save_progress(holder, rows)
        return other.finish(holder, *(getattr(kit, verb)(claim) for claim in claims))

    lock = "SELECT id FROM jobqueue_jobs WHERE id = :id FOR UPDATE"
    with ThreadPoolExecutor(1) as pool:
        with kit.store.write() as connection:
            connection.execute(text(lock), {"id": ids[0]})
            writing = pool.submit(write)
            blocked()
            for id_ in ids:
                connection.execute(text(f"{lock} NOWAIT"), {"id": id_})
        writing.result(30)
    assert all(kit.row(id_).progress == 0.5 or kit.state(id_) != State.RUNNING for id_ in ids)
