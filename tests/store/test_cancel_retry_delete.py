"""The verbs of operators: each on each state, one job at a time and many."""

from typing import Any

from msgspec.structs import replace
import pytest
from sqlalchemy import select, text

from jobqueue.new_jobs import Inserted
from jobqueue.records import JobFilter, Refusal
from jobqueue.store.schema import attempts
from jobqueue.states import FINAL, MOVES, WAITING, State
from jobqueue.store import jobs as jobs_module
from tests.store.conftest import StoreKit

GONE = 999_999


def one(id_: int) -> JobFilter:
    return JobFilter(ids=(id_,))


# Cancel


@pytest.mark.parametrize("state", State)
def test_cancel_ends_what_waits_and_asks_what_runs(kit: StoreKit, state: State) -> None:
    id_ = kit.put(state)
    before = kit.row(id_)
    changed, refused = kit.jobs.cancel(one(id_))
    job = kit.row(id_)
    if state in WAITING:
        assert (changed, refused) == ([id_], [])
        assert (job.state, job.fence) == (State.CANCELLED, before.fence)
        assert job.finished_at is not None and job.cancel_requested_at is not None
        assert kit.counters()["default" if state is State.SCHEDULED else job.queue, "add"] == {
            "cancelled": 1
        }
    elif state is State.RUNNING:
        assert (changed, refused) == ([id_], [])
        assert (job.state, job.fence, job.finished_at) == (State.RUNNING, before.fence, None)
        assert job.cancel_requested_at is not None
        assert kit.counters() == {}
    else:
        reasons = [] if state is State.CANCELLED else [f"it is {state} and cannot be cancelled"]
        assert changed == []
        assert refused == [Refusal(id_, state, reason) for reason in reasons]
        assert job == before


def test_a_job_cancelled_before_it_began_never_begins(kit: StoreKit) -> None:
    waiting, delayed = kit.add(), kit.add(delay=60.0)
    kit.jobs.cancel(JobFilter())
    kit.make_due(waiting, delayed)
    assert (kit.maintenance.promote(), kit.take(kit.worker())) == ([], [])


def test_a_wish_to_cancel_is_told_to_the_worker_that_has_the_job(kit: StoreKit) -> None:
    mine, theirs = kit.worker("mine"), kit.worker("theirs")
    kit.add_many(3)
    a, b = kit.take(mine, limit=2)
    c = kit.take_one(theirs)
    kit.jobs.cancel(JobFilter(ids=(b.id, c.id)))
    assert kit.leases.cancel_requests(mine.id) == [(b.id, b.fence)]
    assert kit.leases.cancel_requests(theirs.id) == [(c.id, c.fence)]
    kit.finish(mine, kit.succeeded(a), kit.succeeded(b))
    assert kit.leases.cancel_requests(mine.id) == []


def test_a_second_wish_to_cancel_keeps_the_time_of_the_first(kit: StoreKit) -> None:
    id_ = kit.put(State.RUNNING)
    kit.jobs.cancel(one(id_))
    first = kit.row(id_)
    assert kit.jobs.cancel(one(id_)) == ([id_], [])
    assert kit.row(id_) == first


# Rerun


@pytest.mark.parametrize("state", State)
def test_retry_makes_a_job_available_that_no_worker_holds(kit: StoreKit, state: State) -> None:
    id_ = kit.put(state, max_attempts=4)
    before = kit.row(id_)
    changed, refused = kit.jobs.retry(one(id_), succeeded=True)
    job = kit.row(id_)
    if state in FINAL or state is State.SCHEDULED:
        assert (changed, refused) == ([id_], [])
        assert job.state is State.AVAILABLE
        empty = "finished_at started_at worker result progress progress_message reason"
        for name in [*empty.split(), "cancel_requested_at"]:
            assert getattr(job, name) is None, name
        assert job.run_at <= kit.row(kit.add()).run_at
        assert (job.attempt, job.snoozes, job.crashes) == (before.attempt, 0, 0)
        granted = before.attempt + 4 if state in FINAL else 4
        assert job.max_attempts == granted
        assert job.fence == before.fence + (state in FINAL)
    else:
        reasons = [] if state is State.AVAILABLE else ["it is running and cannot be retried"]
        assert changed == []
        assert refused == [Refusal(id_, state, reason) for reason in reasons]
        assert job == before


def test_a_job_that_has_succeeded_runs_again_only_if_that_is_asked_for(kit: StoreKit) -> None:
    id_, failed = kit.put(State.SUCCEEDED), kit.put(State.FAILED)
    before = kit.row(id_)
    reason = (
        "it has succeeded, and a retry would run it once more: ask for that with succeeded=True"
    )
    assert kit.jobs.retry(one(id_)) == ([], [Refusal(id_, State.SUCCEEDED, reason)])
    assert kit.jobs.retry(JobFilter()) == ([failed], [])
    assert kit.row(id_) == before
    assert kit.jobs.retry(one(id_), succeeded=True) == ([id_], [])


def test_every_retry_grants_the_original_number_of_attempts(kit: StoreKit) -> None:
    holder, id_ = kit.worker(), kit.add(max_attempts=3)
    spent = 0
    for used in (3, 2, 3):
        for _ in range(used):
            claim = kit.take_one(holder)
            spent += 1
            assert claim.attempt == spent
            kit.finish(holder, replace(kit.released(claim), refund=False))
        claim = kit.take_one(holder)
        kit.finish(holder, replace(kit.failed(claim), refund=True))
        assert kit.jobs.retry(one(id_)) == ([id_], [])
        assert kit.row(id_).max_attempts == spent + 3
    assert kit.column(id_, "base_max_attempts") == 3


def test_retry_of_a_waiting_retry_grants_nothing(kit: StoreKit) -> None:
    holder, id_ = kit.worker(), kit.add(max_attempts=3)
    kit.finish(holder, kit.errored(kit.take_one(holder)))
    kit.change(id_, crashes=2)
    kit.jobs.retry(one(id_))
    job = kit.row(id_)
    assert (job.state, job.attempt, job.max_attempts, job.crashes) == (State.AVAILABLE, 1, 3, 2)
    assert kit.column(id_, "base_max_attempts") is None


def test_retry_forgets_crashes_so_that_the_job_may_wait_in_a_batch_again(kit: StoreKit) -> None:
    id_ = kit.put(State.FAILED, queue="q")
    kit.change(id_, crashes=3, child_crashes=2, snoozes=5)
    kit.jobs.retry(one(id_))
    job = kit.row(id_)
    assert (job.crashes, job.child_crashes, job.snoozes) == (0, 0, 0)
    assert len(kit.take(kit.worker(), queue="q", free=0)) == 1


def test_a_job_that_runs_again_can_be_cancelled_or_succeed(kit: StoreKit) -> None:
    id_ = kit.put(State.CANCELLED, queue="q")
    kit.jobs.retry(one(id_))
    holder = kit.worker()
    assert kit.finish(holder, kit.succeeded(kit.take_one(holder, queue="q"))) == {
        id_: State.SUCCEEDED
    }


@pytest.mark.parametrize("scope", ["finished", "deleted"])
def test_retry_is_refused_while_another_job_holds_the_key(kit: StoreKit, scope: str) -> None:
    old = kit.put(State.FAILED, unique_key="k")
    new = kit.add(unique_key="k", unique_until=scope)
    before = kit.row(old)
    reason = "its unique key 'k' is held by another job"
    assert kit.jobs.retry(one(old)) == ([], [Refusal(old, State.FAILED, reason)])
    assert kit.row(old) == before
    kit.jobs.delete(one(new))
    assert kit.jobs.retry(one(old)) == ([old], [])
    assert not kit.insert(kit.new(unique_key="k"))[0].created


def test_a_refused_row_does_not_hold_up_the_others_of_a_bulk(kit: StoreKit) -> None:
    plain, other = kit.put(State.FAILED), kit.put(State.FAILED, unique_key="free")
    held = kit.put(State.FAILED, unique_key="k")
    holder_of_key = kit.add(unique_key="k")
    wanted = JobFilter(ids=(plain, held, other, GONE))
    changed, refused = kit.jobs.retry(wanted)
    assert sorted(changed) == sorted([plain, other])
    assert [(refusal.id, refusal.state) for refusal in refused] == [
        (held, State.FAILED),
        (GONE, None),
    ]
    assert kit.state(holder_of_key) is State.AVAILABLE


def test_of_two_failed_jobs_with_one_key_a_bulk_retries_one(kit: StoreKit) -> None:
    first = kit.put(State.FAILED, unique_key="k")
    second = kit.put(State.FAILED, unique_key="k")
    assert first != second
    changed, refused = kit.jobs.retry(JobFilter(ids=(first, second)))
    assert changed == [first]
    reason = "its unique key 'k' is held by another job"
    assert refused == [Refusal(second, State.FAILED, reason)]
    assert kit.jobs.retry(JobFilter(state=State.FAILED)) == ([], [])


def test_a_job_unique_until_its_start_runs_again_beside_another_with_its_key(kit: StoreKit) -> None:
    old = kit.put(State.FAILED, unique_key="k", unique_until="started")
    kit.change(old, key_released=1)
    kit.add(unique_key="k", unique_until="started")
    assert kit.jobs.retry(one(old)) == ([old], [])


def test_a_job_that_never_began_takes_its_key_again_when_it_runs_again(kit: StoreKit) -> None:
    old = kit.add(unique_key="k", unique_until="started")
    kit.jobs.cancel(one(old))
    new = kit.add(unique_key="k", unique_until="started")
    reason = "its unique key 'k' is held by another job"
    assert kit.jobs.retry(one(old)) == ([], [Refusal(old, State.CANCELLED, reason)])
    kit.jobs.delete(one(new))
    assert kit.jobs.retry(one(old)) == ([old], [])
    assert kit.insert(kit.new(unique_key="k", unique_until="started")) == [Inserted(old, False)]


@pytest.mark.databases("postgres")  # SQLite has one writer.
def test_retry_gives_way_to_an_insert_of_its_key_that_commits_first(
    kit: StoreKit, together: Any, blocked: Any
) -> None:
    old = kit.put(State.FAILED, unique_key="k")
    with kit.store.engine.connect() as connection:
        transaction = connection.begin()
        kit.jobs.insert([kit.new(unique_key="k")], connection)

        def commit_once_the_retry_waits() -> None:
            blocked()
            transaction.commit()

        [(changed, refused), _] = together(
            lambda: kit.jobs.retry(one(old)), commit_once_the_retry_waits
        )
    assert changed == []
    assert [refusal.id for refusal in refused] == [old]


# Delete


@pytest.mark.parametrize("state", State)
def test_delete_removes_what_no_worker_holds(kit: StoreKit, state: State) -> None:
    id_ = kit.put(state)
    changed, refused = kit.jobs.delete(one(id_))
    if state is State.RUNNING:
        reason = "it is running and cannot be deleted"
        assert (changed, refused) == ([], [Refusal(id_, state, reason)])
        assert kit.state(id_) is State.RUNNING
    else:
        assert (changed, refused) == ([id_], [])
        assert kit.jobs.get(id_) is None


def test_the_record_of_its_attempts_goes_with_a_job(kit: StoreKit) -> None:
    gone, kept = kit.put(State.FAILED), kit.put(State.FAILED)
    kit.jobs.delete(one(gone))
    with kit.store.read() as connection:
        assert list(connection.execute(select(attempts.c.job_id)).scalars()) == [kept]


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_an_unknown_id_is_refused_with_the_reason(kit: StoreKit, verb: str) -> None:
    refusal = Refusal(GONE, None, "there is no such job")
    assert getattr(kit.jobs, verb)(one(GONE)) == ([], [refusal])


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_no_ids_are_nothing(kit: StoreKit, verb: str) -> None:
    kit.add()
    assert getattr(kit.jobs, verb)(JobFilter(ids=())) == ([], [])


# Bulk


def put_some(kit: StoreKit, count: int, verb: str) -> list[int]:
    ids = kit.add_many(count)
    if verb == "retry":
        kit.jobs.cancel(JobFilter())
    return ids


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_a_bulk_goes_on_after_the_first_transaction(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(jobs_module, "BULK", 10)
    ids = put_some(kit, 35, verb)
    changed, refused = getattr(kit.jobs, verb)(JobFilter())
    assert (sorted(changed), refused) == (ids, [])
    assert getattr(kit.jobs, verb)(JobFilter())[0] == []


def test_a_bulk_is_longer_than_its_bound_in_earnest(kit: StoreKit) -> None:
    ids = kit.add_many(jobs_module.BULK + 5)
    assert sorted(kit.jobs.cancel(JobFilter())[0]) == ids
    assert sorted(kit.jobs.retry(JobFilter())[0]) == ids
    assert sorted(kit.jobs.delete(JobFilter(ids=tuple(ids)))[0]) == ids


def test_a_bulk_changes_only_what_matches(kit: StoreKit) -> None:
    mine = kit.add_many(3, task="mine", queue="q", tags='["t"]')
    kit.add_many(2, task="mine")
    kit.add_many(2, queue="q")
    kit.add_many(1, task="mine", queue="q")
    wanted = JobFilter(task="mine", queue="q", tag="t", state=State.AVAILABLE)
    assert kit.jobs.cancel(wanted) == (mine, [])
    assert kit.jobs.count(JobFilter(state=State.CANCELLED)) == 3
    assert kit.jobs.cancel(wanted) == ([], [])


@pytest.mark.parametrize(
    ("one_verb", "other_verb"),
    [("cancel", "cancel"), ("cancel", "delete"), ("retry", "cancel"), ("retry", "delete")],
)
def test_two_bulk_verbs_at_once_both_go_through(
    kit: StoreKit, together: Any, monkeypatch: pytest.MonkeyPatch, one_verb: str, other_verb: str
) -> None:
    monkeypatch.setattr(jobs_module, "BULK", 50)
    ids = put_some(kit, 300, one_verb)
    verbs = [getattr(kit.jobs, verb) for verb in (one_verb, other_verb)]
    answers = together(*[lambda verb=verb: verb(JobFilter()) for verb in verbs * 2])
    assert [type(answer) for answer in answers] == [tuple] * 4, answers
    if one_verb == other_verb:
        assert sorted(sum((changed for changed, _ in answers), [])) == ids


@pytest.mark.databases("postgres")
def test_a_bulk_locks_its_rows_in_the_order_of_their_ids(
    kit: StoreKit, second_store: Any, blocked: Any
) -> None:
    """Two that meet wait for each other in turn: the later one holds nothing that the first needs."""
    ids = kit.add_many(20)
    kit.change(ids[0], reason="now last in the heap")
    strict = second_store(lock_timeout="5s")
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool, kit.store.write() as connection:
        statement = text("SELECT id FROM jobqueue_jobs WHERE id = :id FOR UPDATE")
        connection.execute(statement, {"id": ids[0]})
        bulk = pool.submit(jobs_module.Jobs(strict).cancel, JobFilter())
        blocked()
        for id_ in ids:
            connection.execute(text(f"{statement} NOWAIT"), {"id": id_})
    assert sorted(bulk.result(30)[0]) == ids


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_a_row_that_changes_between_a_look_and_the_change_is_left_alone(
    kit: StoreKit, second_store: Any, blocked: Any, verb: str
) -> None:
    """The bulk waits for a row that is being claimed or ended; then it sees the new state."""
    from concurrent.futures import ThreadPoolExecutor

    holder = kit.worker()
    id_ = kit.put(State.SCHEDULED if verb == "retry" else State.AVAILABLE)
    end = {"retry": "running", "delete": "running", "cancel": "succeeded"}[verb]
    other = second_store()
    with ThreadPoolExecutor(1) as pool:
        with kit.store.write() as connection:
            statement = text("UPDATE jobqueue_jobs SET state = :state, worker_id = :worker")
            connection.execute(statement, {"state": end, "worker": holder.id})
            bulk = pool.submit(getattr(jobs_module.Jobs(other), verb), one(id_))
            blocked()
        changed, refused = bulk.result(30)
    assert changed == []
    assert [(refusal.id, refusal.state) for refusal in refused] == [(id_, end)]
    assert kit.state(id_) == end


def test_the_verbs_of_operators_are_those_of_the_moves() -> None:
    assert MOVES["requeue"].before == FINAL
    assert MOVES["run_now"].before == (State.SCHEDULED,)
    assert set(MOVES["cancel"].before) == set(State) - set(FINAL)
