"""A unique key that is held: what an enqueue does to the waiting job, under each option."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from jobqueue import JobQueue, Retry, State, fixed
from jobqueue.errors import InvalidOption
from jobqueue.store.clock import after
from jobqueue.store.schema import jobs as jobs_table
from tests.queue.conftest import NOWHERE, count


def due_in(job: Any) -> float:
    return float((job.record().run_at - datetime.now(UTC)).total_seconds())


def columns(jobs: JobQueue, id_: int, *names: str) -> tuple[Any, ...]:
    with jobs.store.read() as connection:
        wanted = select(*(jobs_table.c[name] for name in names)).where(jobs_table.c.id == id_)
        return tuple(connection.execute(wanted).one())


def set_columns(jobs: JobQueue, id_: int, **values: Any) -> None:
    with jobs.store.write() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.id == id_).values(values))


@pytest.mark.parametrize("how", ["one", "batch", "within"])
@pytest.mark.parametrize("mode", ["ignore", "replace", "reschedule"])
def test_the_waiting_holder_is_changed_as_the_call_asks(
    jobs: JobQueue, add: Any, engine: Any, mode: str, how: str
) -> None:
    held = add.options(unique_key="k", delay=1000, tags=["a"], headers={"a": "1"}).enqueue(1)
    task = add.options(unique_key="k", on_conflict=mode, delay=60, priority=3, headers={"b": "2"})
    if how == "one":
        job = task.enqueue(2)
    elif how == "batch":
        first, job, last = jobs.enqueue_many([task.call(7), task.call(2), add.call(3)])
        assert (first, last.created) == (job, True)
    else:
        with Session(engine) as session, session.begin():
            job = task.within(session).enqueue(2)
    assert (job, job.created) == (held, False)
    record = held.record()
    assert record.state == "scheduled"
    assert abs(due_in(held) - (1000 if mode == "ignore" else 60)) < 20
    new = (json.loads(record.args)["args"], record.priority, record.headers, record.tags)
    old = ([1], 0, '{"a": "1"}', ("a",))
    assert new == (([2], 3, '{"b": "2"}', ()) if mode == "replace" else old)


@pytest.mark.parametrize("holder_runs", [False, True])
def test_a_replaced_job_is_held_to_the_limit_of_the_new_call(
    jobs: JobQueue, add: Any, *, holder_runs: bool
) -> None:
    """Also the one that waits for a running holder; and one without a key is free again."""
    limit = {"concurrency_key": "tenant-7", "concurrency_limit": 0, "strict": True, "weight": 2.0}
    call = add.options(unique_key="k", on_conflict="replace", rerun=True)
    job = call.enqueue(1)
    if holder_runs:
        set_columns(jobs, job.id, state=State.RUNNING, worker_id=7)
        job = call.enqueue(1)
    call.options(**limit).enqueue(2)

    def lane() -> tuple[Any, ...]:
        return columns(jobs, job.id, "lane", "lane_limit", "lane_strict", "lane_weight")

    assert lane() == ("tenant-7", 0, 1, 2.0)
    assert job.record().lane == "tenant-7"
    call.enqueue(3)
    assert lane()[:2] == (None, None)


def test_a_replaced_job_is_in_all_else_as_a_new_one(jobs: JobQueue, add: Any) -> None:
    """Nothing is left of the call before, nor of what that has been through."""

    @jobs.task
    def sub(x: int) -> int:
        return x

    job = sub.options(unique_key="k", unique_until="deleted", delay=1000).enqueue(1)
    been = {"snoozes": 2, "crashes": 1, "child_crashes": 1, "reason": "later"}
    told = {"progress": 0.5, "progress_message": "half", "scheduled_for": after(0.0)}
    set_columns(jobs, job.id, **been, **told, deadline_at=after(5.0), expires_at=after(5.0))
    call = add.options(on_conflict="replace", queue="mail", timeout=7, backoff=fixed(9))
    call = call.options(max_attempts=1, deadline=900, expires=600)
    assert call.options(unique_key="k").enqueue(2) == job
    new = call.options(unique_key="other").enqueue(2)
    names = ("task", "queue", "args", "timeout", "backoff", "unique_until", "max_attempts")
    names += (*been, *told)
    old, fresh = columns(jobs, job.id, *names), columns(jobs, new.id, *names)
    assert old == fresh
    assert columns(jobs, job.id, "base_max_attempts") == (1,)
    for name in ("deadline_at", "expires_at"):
        (old_at,), (new_at,) = columns(jobs, job.id, name), columns(jobs, new.id, name)
        assert abs((new_at - old_at).total_seconds()) < 60


def test_a_call_replaces_no_job_that_has_freed_its_key(jobs: JobQueue, add: Any) -> None:
    task = add.options(unique_key="k", unique_until="started", delay=1000)
    begun = task.enqueue(1)
    set_columns(jobs, begun.id, attempt=1, key_released=1)
    waits = task.enqueue(2)
    assert waits.created
    assert task.options(on_conflict="replace").enqueue(3) == waits
    args = [json.loads(job.record().args)["args"] for job in (begun, waits)]
    assert args == [[1], [3]]


def test_a_holder_that_is_due_can_be_put_off_and_called_back(jobs: JobQueue, add: Any) -> None:
    job = add.options(unique_key="k").enqueue(1)
    task = add.options(unique_key="k", on_conflict="reschedule")
    task.options(at=datetime.now(UTC) + timedelta(hours=1)).enqueue(1)
    assert job.state == "scheduled"
    assert 3500 < due_in(job) < 3700
    task.enqueue(1)
    assert job.state == "available"
    assert abs(due_in(job)) < 60


def test_a_replaced_job_that_awaits_a_retry_gets_a_fresh_budget(jobs: JobQueue) -> None:
    seen: list[int] = []

    @jobs.task(unique_key="k", on_conflict="replace", max_attempts=2, backoff=fixed(3600))
    def work(number: int) -> int:
        seen.append(number)
        if len(seen) == 1:
            raise Retry
        return number

    job = work.enqueue(1)
    with jobs.worker(poll=0.05):
        while job.state != "scheduled":  # Its first attempt has ended.
            pass
        assert work.options(max_attempts=1).enqueue(2) == job
        assert job.result(timeout=30) == 2
    assert (job.record().attempt, job.record().max_attempts) == (2, 2)


@pytest.mark.parametrize("options", [{"on_conflict": "replace"}, {"debounce": 5}])
def test_a_running_holder_is_left_alone(jobs: JobQueue, options: Any) -> None:
    made: list[Any] = []

    @jobs.task(unique_key="k")
    def work(number: int) -> int:
        made.append(work.options(**options).enqueue(2))
        return number

    job = work.enqueue(1)
    with jobs.worker(poll=0.05):
        assert job.result(timeout=30) == 1
    assert [(one.id, one.created) for one in made] == [(job.id, False)]
    assert count(jobs) == 1


def test_a_holder_that_has_ended_is_followed_by_a_new_job(jobs: JobQueue, add: Any) -> None:
    task = add.options(unique_key="k", on_conflict="replace")
    first = task.enqueue(1)
    first.cancel()
    assert task.enqueue(2).created
    kept = add.options(unique_key="kept", unique_until="deleted").enqueue(1)
    kept.cancel()
    again = add.options(unique_key="kept", on_conflict="replace").enqueue(2)
    assert (again.id, again.created, kept.state) == (kept.id, False, "cancelled")


# Debounce


def test_a_debounced_job_is_due_after_the_last_call(jobs: JobQueue, add: Any) -> None:
    task = add.options(unique_key="k", debounce=50)
    job = task.enqueue(1)
    assert 30 < due_in(job) <= 50
    set_columns(jobs, job.id, run_at=after(5.0))
    again = task.enqueue(2)
    assert (again, again.created, json.loads(job.record().args)["args"]) == (job, False, [1])
    assert 30 < due_in(job) <= 50
    task.options(on_conflict="replace").enqueue(3)
    assert json.loads(job.record().args)["args"] == [3]
    assert 30 < due_in(job) <= 50


def test_a_debounced_job_is_due_at_most_so_long_after_the_first_call(
    jobs: JobQueue, add: Any
) -> None:
    task = add.options(unique_key="k", debounce=50, max_wait=100)
    job = task.enqueue(1)
    set_columns(jobs, job.id, created_at=after(-80.0))
    task.enqueue(1)
    assert 0 < due_in(job) <= 20
    set_columns(jobs, job.id, created_at=after(-101.0))
    task.enqueue(1)
    assert job.state == "available"


@pytest.mark.parametrize("begun", ["attempt", "snoozes", "crashes"])
def test_a_burst_of_calls_does_not_use_up_the_attempts_of_a_debounced_job(
    jobs: JobQueue, add: Any, begun: str
) -> None:
    task = add.options(unique_key="k", debounce=1, max_wait=1)
    job = task.enqueue(1)
    later = {"run_at": after(3600.0), "created_at": after(-60.0)}
    set_columns(jobs, job.id, **later, **{begun: 1})
    task.enqueue(1)
    assert job.state == "scheduled"
    assert due_in(job) > 3000


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"on_conflict": "replce", "unique_key": "k"}, "on_conflict: 'replce' is none of ignore"),
        ({"on_conflict": "replace"}, "on_conflict: it needs a unique_key"),
        ({"debounce": 5}, "debounce: it needs a unique_key"),
        ({"debounce": 0, "unique_key": "k"}, "debounce: 0 is out of range"),
        ({"debounce": 5, "delay": 1, "unique_key": "k"}, "debounce: .* leave out delay"),
        ({"debounce": 5, "at": "2099-01-01T00:00Z", "unique_key": "k"}, "debounce: .* out at"),
        ({"max_wait": 5, "unique_key": "k"}, "max_wait: it limits a debounce, and there is none"),
        ({"debounce": 5, "max_wait": 4, "unique_key": "k"}, "max_wait: 4 s is shorter than"),
        ({"debounce": 5, "expires": 4, "unique_key": "k"}, "expires: 4 s from now"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Any, problem: str) -> None:
    with JobQueue(NOWHERE) as jobs:

        @jobs.task
        def work() -> None: ...

        with pytest.raises(InvalidOption, match=problem) as refused:
            work.options(**options).enqueue()
        assert refused.value.field == problem.partition(":")[0]


def test_a_task_may_say_how_and_each_call_its_key(jobs: JobQueue) -> None:
    @jobs.task(debounce=60, on_conflict="replace")
    def sync(tenant: int) -> None: ...

    one, two = (sync.options(unique_key=f"sync {tenant}").enqueue(tenant) for tenant in (1, 2))
    assert one != two
    assert sync.options(unique_key="sync 1").enqueue(1) == one
    assert one.record().state is State.SCHEDULED
