"""`rerun`: an enqueue whose key a running job holds makes exactly one more run, after that job."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from jobqueue import JobQueue, State, WrongState
from jobqueue.errors import InvalidOption
from jobqueue.records import Registration
from jobqueue.store.claims import Claims, WorkerRef
from jobqueue.store.clock import after
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.schema import jobs as jobs_table
from tests.queue.conftest import NOWHERE, count
from tests.queue.test_conflicts import columns, set_columns


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task(unique_key="k", rerun=True)
    def work(number: int = 0) -> int:
        return number

    return work


def begin(jobs: JobQueue) -> WorkerRef:
    """Claim all that is available, by a worker that does nothing more."""
    who = Registration("w", "h", 1, None, None, None, None, None, ("t",), 4, 30.0)
    worker = WorkerRef(Leases(jobs.store).register(who), "w")
    Claims(jobs.store).claim_first(worker, "default", 9)
    return worker


def end(jobs: JobQueue, id_: int, state: State) -> None:
    with jobs.store.write() as connection:
        final = {"state": state, "worker_id": None, "finished_at": jobs_table.c.created_at}
        connection.execute(update(jobs_table).where(jobs_table.c.id == id_).values(final))


def test_a_thousand_enqueues_during_a_run_make_one_more_run(jobs: JobQueue) -> None:
    runs: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    @jobs.task(unique_key="k", rerun=True)
    def work(number: int) -> None:
        runs.append(number)
        begun.set()
        assert go_on.wait(300)

    first = work.enqueue(0)
    with jobs.worker(poll=0.05, concurrency=4):
        assert begun.wait(30)
        made = [work.enqueue(number) for number in range(1, 31)]
        made += jobs.enqueue_many([work.call(number) for number in range(31, 1001)])
        assert [job.created for job in made] == [True] + [False] * 999
        assert {job.id for job in made} == {made[0].id}
        assert (made[0].state, made[0].record().unique_key, runs) == ("scheduled", "k", [0])
        go_on.set()
        first.result(timeout=30)
        made[0].result(timeout=30)
    assert (runs, count(jobs)) == ([0, 1], 2)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED, None])
def test_the_other_run_follows_whatever_the_first_ones_end(
    jobs: JobQueue, work: Any, state: State | None
) -> None:
    first = work.enqueue(1)
    begin(jobs)
    second = work.enqueue(2)
    upkeep = Maintenance(jobs.store)
    assert (upkeep.pass_on_keys(), upkeep.promote(), second.state) == (0, [], "scheduled")
    if state is None:
        end(jobs, first.id, State.FAILED)
        jobs.delete(first.id)
    else:
        end(jobs, first.id, state)
    set_columns(jobs, second.id, run_at=after(-3600.0))
    assert (upkeep.pass_on_keys(), second.state) == (1, "available")
    awaited, due = columns(jobs, second.id, "awaited_key", "run_at")
    assert awaited is None and (datetime.now(UTC) - due).total_seconds() < 60  # Due now.
    assert work.enqueue(3) == second


def test_calls_of_one_batch_follow_each_the_holder_of_its_own_key_and_as_it_asks(
    jobs: JobQueue, work: Any
) -> None:
    other = work.options(unique_key="other")
    work.enqueue(1), other.enqueue(1)
    begin(jobs)
    calls = [work.call(2), other.call(2), work.call(3), work.options(on_conflict="replace").call(4)]
    made = jobs.enqueue_many(calls)
    assert [job.created for job in made] == [True, True, False, False]
    assert {made[0].id, made[2].id, made[3].id} == {made[0].id} != {made[1].id}
    found = [columns(jobs, job.id, "awaited_key", "args") for job in made[:2]]
    assert found == [("k", '{"args":[4],"kwargs":{}}'), ("other", '{"args":[2],"kwargs":{}}')]


def test_a_holder_that_has_not_begun_is_left_as_it_is(jobs: JobQueue, work: Any) -> None:
    holder = work.options(delay=1000).enqueue(1)
    again = work.enqueue(2)
    assert (again, again.created, holder.state) == (holder, False, "scheduled")
    (due,) = columns(jobs, holder.id, "run_at")
    assert (due - datetime.now(UTC)).total_seconds() > 900


def test_why_names_the_job_that_the_other_run_waits_for(jobs: JobQueue, work: Any) -> None:
    """It is due, and "a worker makes it available in a second" would be said for hours."""
    first = work.enqueue()
    begin(jobs)
    again = work.enqueue()
    why = again.why()
    assert why.sentence == f"waits for the end of job {first.id}, which holds its key k"
    assert why.advice == f"wait, or look at that one: jobqueue why {first.id}"
    assert (why.code, why.jobs, why.names) == ("awaits_key", (first.id,), ("k",))
    later = work.options(delay=3600, on_conflict="reschedule").enqueue()
    assert (later.id, later.why().code) == (again.id, "not_due")
    work.options(on_conflict="reschedule").enqueue()
    end(jobs, first.id, State.SUCCEEDED)
    assert again.why().code != "awaits_key"


def test_a_job_whose_worker_died_runs_again_and_then_the_other_run(
    jobs: JobQueue, work: Any
) -> None:
    first = work.enqueue(1)
    dead = begin(jobs)
    second = work.enqueue(2)
    leases, upkeep = Leases(jobs.store), Maintenance(jobs.store)
    leases.deregister(dead.id)
    assert [job.id for job in leases.reap()] == [first.id]
    assert (upkeep.pass_on_keys(), first.state, second.state) == (0, "available", "scheduled")
    with jobs.worker(poll=0.05):
        assert (first.result(timeout=30), second.result(timeout=30)) == (1, 2)
    ended, began = first.record().finished_at, second.record().started_at
    assert ended is not None and began is not None and ended <= began


def test_an_enqueue_after_the_end_gets_the_job_that_waits_for_the_key(
    jobs: JobQueue, work: Any
) -> None:
    """Before upkeep has passed the key on."""
    first = work.enqueue(1)
    begin(jobs)
    second = work.enqueue(2)
    end(jobs, first.id, State.SUCCEEDED)
    made = jobs.enqueue_many([work.call(3), work.options(rerun=False).call(4)])
    assert [(job.id, job.created) for job in made] == [(second.id, False)] * 2
    assert (second.state, count(jobs)) == ("available", 2)


def test_a_call_that_asks_for_no_rerun_makes_a_job_of_its_own_after_the_end(
    jobs: JobQueue, work: Any
) -> None:
    first = work.enqueue(1)
    begin(jobs)
    second = work.enqueue(2)
    end(jobs, first.id, State.SUCCEEDED)
    newer = work.options(rerun=False, on_conflict="replace").enqueue(3)
    assert (newer.created, newer == second) == (True, False)
    assert second.record().args == '{"args":[2],"kwargs":{}}'
    assert (second.state, Maintenance(jobs.store).pass_on_keys()) == ("scheduled", 0)


def test_a_call_in_a_batch_replaces_the_job_that_waits_for_the_key_of_one_that_has_ended(
    jobs: JobQueue, work: Any, add: Any
) -> None:
    first = work.enqueue(1)
    begin(jobs)
    second = work.enqueue(2)
    end(jobs, first.id, State.SUCCEEDED)
    _, made = jobs.enqueue_many([add.call(1), work.options(on_conflict="replace").call(3)])
    assert (made, made.created, second.record().args) == (second, False, '{"args":[3],"kwargs":{}}')
    assert (second.state, count(jobs)) == ("available", 3)


def test_no_run_waits_for_the_key_of_an_ended_job_that_keeps_it(jobs: JobQueue, work: Any) -> None:
    kept = work.options(rerun=False, unique_until="deleted").enqueue(1)
    kept.cancel()
    again = work.enqueue(2)
    assert (again, again.created, count(jobs)) == (kept, False, 1)


def test_the_waiting_run_can_be_replaced_and_rescheduled(jobs: JobQueue, work: Any) -> None:
    first = work.enqueue(1)
    begin(jobs)
    second = work.enqueue(2)
    assert work.options(on_conflict="replace").enqueue(3) == second
    assert second.record().args == '{"args":[3],"kwargs":{}}'
    assert work.options(debounce=1000).enqueue(4) == second
    assert second.record().args == '{"args":[3],"kwargs":{}}'
    end(jobs, first.id, State.SUCCEEDED)
    assert Maintenance(jobs.store).pass_on_keys() == 1
    assert (second.state, second.record().unique_key) == ("scheduled", "k")
    assert Maintenance(jobs.store).promote() == []


def test_a_retry_of_a_job_whose_key_a_newer_one_holds_is_refused_for_that_job_alone(
    jobs: JobQueue, work: Any
) -> None:
    first, other = work.enqueue(1), work.options(unique_key=None, rerun=False).enqueue(1)
    begin(jobs)
    second = work.enqueue(2)
    end(jobs, first.id, State.FAILED)
    end(jobs, other.id, State.FAILED)
    assert Maintenance(jobs.store).pass_on_keys() == 1
    with pytest.raises(WrongState, match="its unique key 'k' is held by another job"):
        jobs.retry(first.id, other.id)
    assert (first.state, other.state, second.state) == ("failed", "available", "available")


def test_an_operator_may_cancel_and_retry_the_run_that_waits(jobs: JobQueue, work: Any) -> None:
    work.enqueue(1)
    begin(jobs)
    second = work.enqueue(2)
    jobs.retry(second.id)  # Due now, once its key is free.
    assert (second.state, Maintenance(jobs.store).promote()) == ("scheduled", [])
    jobs.update(second.id, at=datetime.now(UTC))  # The same.
    assert (second.state, work.enqueue(2)) == ("scheduled", second)
    second.cancel()
    third = work.enqueue(3)
    assert third.created
    assert work.options(on_conflict="replace").enqueue(4) == third
    assert (second.state, second.record().args) == ("cancelled", '{"args":[2],"kwargs":{}}')
    with pytest.raises(WrongState, match="its unique key 'k' is held by another job"):
        jobs.retry(second.id)
    third.cancel()
    jobs.retry(second.id)
    assert second.state == "scheduled"


@pytest.mark.parametrize("backend_name", ["postgres"], indirect=True)
def test_upkeep_does_not_stop_at_a_key_that_another_transaction_is_taking(
    jobs: JobQueue, work: Any, engine: Any
) -> None:
    first, others = work.enqueue(1), work.options(unique_key="other")
    other = others.enqueue(1)
    begin(jobs)
    second, following = work.enqueue(2), others.enqueue(2)
    end(jobs, first.id, State.SUCCEEDED)
    end(jobs, other.id, State.SUCCEEDED)
    with engine.begin() as connection:
        newer = work.options(rerun=False).within(connection).enqueue(3)
        assert Maintenance(jobs.store).pass_on_keys() == 1
        assert (second.state, following.state) == ("scheduled", "available")
    assert newer.created
    assert Maintenance(jobs.store).pass_on_keys() == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"rerun": True}, "rerun"),
        ({"rerun": 1, "unique_key": "k"}, "rerun"),
        ({"rerun": True, "unique_key": "k", "unique_until": "started"}, "rerun"),
        ({"rerun": True, "unique_key": "k", "unique_until": "deleted"}, "rerun"),
    ],
)
def test_a_rerun_without_a_key_that_is_held_to_the_end_is_refused(options: Any, field: str) -> None:
    with JobQueue(NOWHERE) as jobs:

        @jobs.task
        def work() -> None: ...

        with pytest.raises(InvalidOption, match="rerun: ") as refused:
            work.options(**options).enqueue()
        assert refused.value.field == field
