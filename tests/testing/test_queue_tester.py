"""What a test may ask of an application's queue: what was enqueued, and to run it here and now."""

from contextvars import ContextVar
from typing import Any
from unittest.mock import ANY

import pytest
from sqlalchemy import Connection, text

from jobqueue import (
    Cancel,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    JobQueueError,
    Retry,
    Snooze,
    State,
    WrongState,
    current_job,
)
from jobqueue.testing import QueueTester
from tests.testing.conftest import App, rows

# What was enqueued


def test_a_call_is_found_however_its_arguments_were_given(app: App, tester: QueueTester) -> None:
    job = app.add.enqueue(7)
    scheduled = app.add.options(delay=60).enqueue(8, 9)
    assert tester.enqueued(app.add, x=7, y=1) == tester.enqueued(app.add, 7) == [job]
    assert tester.enqueued(app.add, 8, y=ANY) == [scheduled]
    assert tester.enqueued(app.add) == [job, scheduled]
    assert not tester.enqueued(app.outer)
    points = app.points.enqueue((1, 2), more=[3])
    assert tester.enqueued(app.points, (1, 2), [3]) == [points]
    assert not tester.enqueued(app.points, (1, 2), [4])


def test_what_waits_instead_is_said_and_a_call_that_cannot_be_is_refused(
    app: App, tester: QueueTester
) -> None:
    assert repr(tester.enqueued(app.add)) == "[] (waiting: no job)"
    app.add.enqueue(7)
    found = tester.enqueued(app.add, 8)
    assert found == []
    assert repr(found) == '[] (waiting: 1 add{"args":[7],"kwargs":{}})'
    with pytest.raises(InvalidArguments, match="add: too many positional arguments"):
        tester.enqueued(app.add, 1, 2, 3)


def test_a_job_that_has_run_is_not_enqueued_any_more(app: App, tester: QueueTester) -> None:
    app.add.enqueue(7)
    tester.drain()
    assert tester.enqueued(app.add) == []


def test_jobs_of_a_key_and_of_a_limited_queue_are_drained(app: App, tester: QueueTester) -> None:
    key = app.add.options(concurrency_key="k", concurrency_limit=1, strict=True)
    made = [key.enqueue(1), key.enqueue(2), app.add.enqueue(3)]
    app.jobs.queue("mail", limit=1)
    made += [app.add.options(queue="mail").enqueue(number) for number in (4, 5)]
    tester.drain()
    assert [job.state for job in made] == [State.SUCCEEDED] * 5


def test_a_drain_goes_on_behind_keys_that_are_full(app: App, tester: QueueTester) -> None:
    for key in "abc":
        app.add.options(concurrency_key=key, concurrency_limit=0).enqueue(1)
    free = app.add.options(concurrency_key="free").enqueue(2)
    tester.drain()
    assert free.state is State.SUCCEEDED


def test_a_drain_ends_strict_jobs_of_several_keys_that_await_their_next_attempts(
    app: App, tester: QueueTester
) -> None:
    made = [
        app.flaky.options(concurrency_key=key, concurrency_limit=1, strict=True).enqueue(2)
        for key in "abab"
    ]
    tester.drain(with_scheduled=True)
    assert [job.state for job in made] == [State.SUCCEEDED] * 4


def test_a_job_whose_key_is_full_is_run_when_asked_for(app: App, tester: QueueTester) -> None:
    job = app.add.options(concurrency_key="k", concurrency_limit=0).enqueue(1)
    assert tester.run(job) == 2


def test_the_jobs_that_a_block_makes_are_collected(app: App, tester: QueueTester) -> None:
    app.add.enqueue(1)
    keyed = app.add.options(unique_key="k")
    with tester.enqueues() as made:
        first = keyed.enqueue(2)
        assert made == [first]
        keyed.enqueue(2)
        more = app.jobs.enqueue_many([app.add.call(3), app.outer.call(4)])
    app.add.enqueue(5)
    assert made == [first, *more]


def test_jobs_that_were_rolled_back_were_not_made(
    app: App, tester: QueueTester, connection: Connection
) -> None:
    with tester.enqueues() as made:
        kept = app.add.within(connection).enqueue(1)
        with connection.begin_nested() as savepoint:
            app.add.within(connection).enqueue(2)
            savepoint.rollback()
    assert made == [kept]
    with tester.enqueues() as made:
        app.add.within(connection).enqueue(3)
        connection.rollback()
    assert made == []


# One job, here and now


def test_a_job_is_run_by_a_workers_code_and_recorded_so(app: App, tester: QueueTester) -> None:
    seen: list[Any] = []
    app.jobs.use(lambda context, run: (seen.append(("around", context.id)), run())[1])
    app.jobs.on("succeeded", lambda event: seen.append((event.name, event.job)))
    job = app.points.options(delay=3600).enqueue((1, 2), more={"a": [3]})
    assert tester.run(job) == (1, 2)
    assert app.done == [((1, 2), {"a": [3]})]
    assert seen == [("around", job.id), ("succeeded", job.id)]
    record = job.record()
    assert (record.state, record.attempt, record.fence) == (State.SUCCEEDED, 1, 2)
    assert record.worker == "jobqueue.testing"
    with tester._store.read() as connection:
        counted = "SELECT succeeded FROM jobqueue_task_stats WHERE task = 'points'"
        assert connection.execute(text(counted)).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM jobqueue_workers")).scalar_one() == 0


def test_a_call_can_be_run_at_once(app: App, tester: QueueTester) -> None:
    assert tester.run(app.add.call(2, 3)) == 5
    assert [row.state for row in rows(tester)] == [State.SUCCEEDED]


def test_what_the_handler_raised_is_raised_after_it_was_recorded(
    app: App, tester: QueueTester
) -> None:
    job = app.flaky.enqueue(9)
    with pytest.raises(ValueError, match="not yet"):
        tester.run(job)
    assert (job.state, job.record().error.message) == (State.SCHEDULED, "not yet")
    with pytest.raises(ValueError):
        tester.run(job)
    with pytest.raises(ValueError):
        tester.run(job)
    assert (job.state, job.record().attempt) == (State.FAILED, 3)
    with pytest.raises(WrongState, match=rf"job {job.id} \(flaky\) is failed"):
        tester.run(job)


@pytest.mark.parametrize(
    ("how", "signal", "state", "attempt"),
    [
        ("snooze", Snooze, State.SCHEDULED, 0),
        ("retry", Retry, State.SCHEDULED, 1),
        ("cancel", Cancel, State.CANCELLED, 1),
    ],
)
def test_a_signal_is_obeyed_and_raised(
    app: App, tester: QueueTester, how: str, signal: type[Exception], state: State, attempt: int
) -> None:
    job = app.steer.enqueue(how)
    with pytest.raises(signal):
        tester.run(job)
    assert (job.state, job.record().attempt) == (state, attempt)


def test_a_job_cancelled_by_its_own_handler_is_not_a_success(app: App, tester: QueueTester) -> None:
    @app.jobs.task
    def give_up() -> None:
        app.jobs.cancel(current_job().id)

    with pytest.raises(JobCancelled):
        tester.run(give_up.call())


def test_a_job_that_cannot_be_claimed_is_not_run(app: App, tester: QueueTester) -> None:
    first, second, third = (app.add.enqueue(x) for x in (1, 2, 3))
    assert tester.run(second) == 3
    with pytest.raises(WrongState):
        tester.run(second)
    assert (third.state, third.record().fence) == (State.AVAILABLE, 0)
    app.jobs.pause("default")
    with pytest.raises(JobQueueError, match="'default' paused"):
        tester.run(first)
    assert (first.state, first.record().attempt) == (State.AVAILABLE, 0)


def test_arguments_that_no_longer_fit_fail_the_job(app: App, tester: QueueTester) -> None:
    job = app.add.enqueue(1)
    with tester._store.write() as connection:
        connection.execute(text("""UPDATE jobqueue_jobs SET args = '{"args":["x"],"kwargs":{}}'"""))
    with pytest.raises(JobFailed, match="expected int, got str"):
        tester.run(job)
    assert job.state is State.FAILED


def test_what_a_handler_sets_is_seen_by_no_other(app: App, tester: QueueTester) -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    @app.jobs.task
    def count() -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    assert [tester.run(count.call()), tester.run(count.call())] == [1, 1]
    assert variable.get() == 0


# All of them


def test_a_drain_runs_what_handlers_enqueue_too_and_nothing_that_is_not_due(
    app: App, tester: QueueTester
) -> None:
    later = app.add.options(delay=3600).enqueue(9)
    app.outer.options(queue="b").enqueue(1)
    app.add.options(priority=-1, queue="c").enqueue(0)
    made = tester.drain()
    assert app.done == [(0, 1), "outer 1", (1, 1)]
    assert [(one.task, one.outcome, one.state) for one in made] == [
        ("add", "succeeded", State.SUCCEEDED),
        ("outer", "succeeded", State.SUCCEEDED),
        ("add", "succeeded", State.SUCCEEDED),
    ]
    assert later.state is State.SCHEDULED


def test_time_passes_for_scheduled_jobs_and_retries_without_waiting(
    app: App, tester: QueueTester
) -> None:
    flaky = app.flaky.options(delay=60).enqueue(3)
    app.add.options(delay=30).enqueue(1)
    made = tester.drain(with_scheduled=True)
    assert [(one.task, one.number, one.outcome) for one in made] == [
        ("add", 1, "succeeded"),
        ("flaky", 1, "errored"),
        ("flaky", 2, "errored"),
        ("flaky", 3, "succeeded"),
    ]
    assert flaky.result(timeout=0) == "at last"


def test_so_much_time_passes_as_is_said(app: App, tester: QueueTester) -> None:
    app.add.options(delay=3600).enqueue(1)
    snoozing = app.steer.enqueue("snooze")
    assert len(tester.drain(with_scheduled=170)) == 3  # now, and after 60 s and 120 s
    assert tester.drain(with_scheduled="5s") == []
    assert len(tester.drain(with_scheduled=10)) == 1  # after 180 s of all
    app.jobs.cancel(snoozing.id)
    assert tester.drain(with_scheduled=3300) == []
    assert len(tester.drain(with_scheduled=200)) == 1


def test_a_deadline_comes_nearer_as_time_passes(app: App, tester: QueueTester) -> None:
    job = app.add.options(deadline=60).enqueue(1)
    app.jobs.pause("default")
    assert tester.drain(with_scheduled=61) == []
    app.jobs.resume("default")
    with pytest.raises(JobFailed, match="deadline passed"):
        tester.drain()
    assert (job.state, app.done) == (State.FAILED, [])


def test_errors_are_raised_when_all_is_done(app: App, tester: QueueTester) -> None:
    bad = app.flaky.enqueue(9)
    app.add.enqueue(1)
    with pytest.raises(ValueError, match="not yet") as raised:
        tester.drain()
    assert raised.value.__notes__ == [
        f"job {bad.id} (flaky), attempt 1 errored; it is scheduled now"
    ]
    assert app.done == [1, (1, 1)]
    assert [one.number for one in tester.drain(with_scheduled=True, raises=False)] == [2, 3]
    assert bad.state is State.FAILED


def test_a_retry_is_asked_for_and_no_error_until_the_job_has_failed(
    app: App, tester: QueueTester
) -> None:
    app.steer.enqueue("retry")
    assert [one.outcome for one in tester.drain()] == ["errored"]
    with pytest.raises(JobFailed, match="Retry"):
        tester.drain(with_scheduled=True)


def test_what_is_no_exception_ends_the_test_at_once(app: App, tester: QueueTester) -> None:
    @app.jobs.task
    def interrupted() -> None:
        raise KeyboardInterrupt

    job = interrupted.enqueue()
    app.add.enqueue(1)
    with pytest.raises(KeyboardInterrupt):
        tester.drain()
    assert (app.done, job.state) == ([], State.SCHEDULED)
    with tester._store.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobqueue_workers")).scalar_one() == 0


def test_a_job_without_end_is_told_of(app: App, tester: QueueTester) -> None:
    @app.jobs.task
    def again() -> None:
        again.enqueue()

    again.enqueue()
    with pytest.raises(JobQueueError, match=r"5 attempts were made, and job 6 \(again\) still"):
        tester.drain(limit=5)
    assert [job.record().attempt for job in tester.enqueued(again)] == [0]


def test_a_task_that_nobody_knows_waits(app: App, tester: QueueTester) -> None:
    with tester._store.write() as connection:
        connection.execute(text("INSERT INTO jobqueue_jobs (task) VALUES ('stranger')"))
    app.add.options(delay=60).enqueue(1)
    outcomes = [one.outcome for one in tester.drain(with_scheduled=True)]
    assert outcomes[0] == "unknown task"
    assert app.done == [(1, 1)]


def test_a_key_is_free_once_its_job_begins(app: App, tester: QueueTester) -> None:
    @app.jobs.task(unique_key="one", unique_until="started")
    def once_more(times: int) -> None:
        if times:
            assert once_more.enqueue(times - 1).created

    once_more.enqueue(2)
    assert len(tester.drain()) == 3
