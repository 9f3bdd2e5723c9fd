"""The queue's verbs: get, list, cancel, retry, delete, pause."""

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobqueue import (
    InvalidArguments,
    InvalidOption,
    JobFailed,
    JobNotFound,
    JobQueue,
    State,
    UnknownTask,
    WrongState,
    current_job,
    fixed,
)
from tests.queue.conftest import count, ids

# The verbs


def test_a_job_is_found_by_its_id(jobs: JobQueue, add: Any) -> None:
    handle = add.enqueue(1)
    assert jobs.get(handle.id) == handle
    for unknown in (handle.id + 1000, 2**62, 2**63 - 1):
        with pytest.raises(JobNotFound) as caught:
            jobs.get(unknown)
        assert isinstance(caught.value, LookupError)
        assert caught.value.value == unknown


@pytest.mark.parametrize("id_", [0, -1, -(2**63), 2**63, 10**20, True, 1.0, "1"])
def test_what_no_job_can_have_as_its_id_is_refused(jobs: JobQueue, add: Any, id_: Any) -> None:
    job = add.options(delay=60).enqueue(1)
    verbs = (
        jobs.get,
        jobs.cancel,
        jobs.retry,
        jobs.delete,
        lambda *ids: jobs.update(*ids, queue="q"),
    )
    for verb in verbs:
        for ids in [(id_,)] if verb == jobs.get else [(id_,), (job.id, id_)]:
            with pytest.raises(InvalidOption, match="^id: .* is not a whole number between 1 and"):
                verb(*ids)
    record = job.record()
    assert (record.state, record.queue) == (State.SCHEDULED, "default")


def test_the_list_is_newest_first_filtered_and_limited(jobs: JobQueue, add: Any) -> None:
    @jobs.task
    def other() -> None: ...

    plain = [add.enqueue(n).id for n in range(3)]
    mail = add.options(queue="mail", tags=["Blue"]).enqueue(1).id
    delayed = other.options(delay=60, tags=["blue"]).enqueue().id
    everything = [delayed, mail, *reversed(plain)]
    assert ids(jobs.list()) == everything
    assert ids(jobs.list(limit=2)) == everything[:2]
    assert ids(jobs.list(limit=0)) == []
    assert ids(jobs.list(limit=None)) == everything
    assert ids(jobs.list(state=State.SCHEDULED)) == [delayed]
    assert ids(jobs.list(task="other")) == [delayed]
    assert ids(jobs.list(queue="mail")) == [mail]
    assert ids(jobs.list(tag="blue")) == [delayed], "tags are told apart by case"
    assert ids(jobs.list(queue="mail", task="other")) == []
    assert ids(jobs.list(since=datetime.now(UTC) + timedelta(hours=1))) == []
    assert ids(jobs.list(since=datetime.now(UTC) - timedelta(hours=1))) == everything


def test_states_may_be_named_by_text(jobs: JobQueue, add: Any) -> None:
    handle = add.enqueue(1)
    assert ids(jobs.list(state="available")) == [handle.id]  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="state"):
        list(jobs.list(state="' OR 1=1 --"))  # type: ignore[arg-type]


def test_cancel_ends_what_waits_and_refuses_what_has_ended_otherwise(
    jobs: JobQueue, add: Any
) -> None:
    waiting, delayed = add.enqueue(1), add.options(delay=60).enqueue(1)
    jobs.cancel(waiting.id, delayed.id)
    assert waiting.state is delayed.state is State.CANCELLED
    jobs.cancel(waiting.id)  # It is so already.
    jobs.cancel()
    done = add.enqueue(1)
    with jobs.worker(drain=True) as worker:
        assert worker.wait(30)
    with pytest.raises(WrongState, match=f"job {done.id}: it is succeeded"):
        jobs.cancel(done.id)
    with pytest.raises(WrongState, match=f"job {done.id}: it is succeeded"):
        done.cancel()
    waiting.cancel()
    with pytest.raises(JobNotFound):
        jobs.cancel(10**9)
    assert done.state is State.SUCCEEDED


def test_update_changes_what_waits_and_refuses_all_else(jobs: JobQueue, add: Any) -> None:
    delayed, done = add.options(delay=3600).enqueue(1), add.enqueue(1)
    with jobs.worker(poll=3600):
        assert done.result(30) == 2
        with pytest.raises(WrongState, match=f"job {done.id}: it is succeeded"):
            jobs.update(done.id, delayed.id, queue="mail", at=datetime.now(UTC))
        assert delayed.result(30) == 2  # The worker was woken.
    assert delayed.record().queue == "mail"
    with pytest.raises(JobNotFound):
        jobs.update(10**9, priority=1)
    for wrong in ({}, {"priority": "high"}, {"at": datetime(2100, 1, 1)}, {"tags": "a"}):  # noqa: DTZ001
        with pytest.raises(InvalidOption):
            jobs.update(delayed.id, **wrong)  # type: ignore[arg-type]


def test_retry_gives_a_final_job_a_fresh_budget_and_makes_a_delayed_one_due(
    jobs: JobQueue, add: Any
) -> None:
    fails = [True]

    @jobs.task(max_attempts=2, backoff=fixed(0.01))
    def flaky() -> int:
        if fails[0]:
            raise ValueError("no")
        return current_job().attempt

    handle, delayed = flaky.enqueue(), add.options(delay=3600).enqueue(1)
    with jobs.worker(poll=0.1):
        with pytest.raises(JobFailed):
            handle.result(30)
        fails[0] = False
        jobs.retry(handle.id, delayed.id)
        assert handle.result(30) == 3
        assert delayed.result(30) == 2
    record = handle.record()
    assert (record.attempt, record.max_attempts) == (3, 4)
    waiting = add.enqueue(1)
    jobs.retry(waiting.id)  # It is so already.
    with pytest.raises(WrongState, match="it has succeeded.* ask for that with succeeded=True"):
        jobs.retry(handle.id)
    assert handle.state is State.SUCCEEDED
    jobs.retry(handle.id, succeeded=True)
    assert handle.state is State.AVAILABLE
    with pytest.raises(JobNotFound):
        jobs.retry(10**9)


def test_delete_removes_what_does_not_run(jobs: JobQueue, add: Any) -> None:
    handles = [add.enqueue(n) for n in range(3)]
    jobs.delete(handles[0].id)
    assert ids(jobs.list()) == [handles[2].id, handles[1].id]
    with pytest.raises(JobNotFound):
        jobs.delete(handles[0].id)
    jobs.delete()
    assert count(jobs) == 2
    began, ended = threading.Event(), threading.Event()

    @jobs.task
    def long() -> None:
        began.set()
        ended.wait(30)

    running = long.options(priority=-1).enqueue()
    with jobs.worker():
        assert began.wait(30)
        try:
            with pytest.raises(WrongState, match="it is running"):
                jobs.delete(running.id)
        finally:
            ended.set()
        running.result(30)


@pytest.mark.parametrize("of", [{"queue": "mail"}, {"task": "welcome"}, {"tag": "bulk"}], ids=str)
def test_a_paused_queue_task_or_tag_rests_until_it_is_resumed(
    jobs: JobQueue, add: Any, of: dict[str, str]
) -> None:
    @jobs.task(queue="mail", tags=["bulk"])
    def welcome(n: int) -> int:
        return n

    jobs.pause(**of)
    jobs.pause(**of)
    held, free = welcome.enqueue(2), add.enqueue(1)
    with jobs.worker(poll=0.1):
        assert free.result(30) == 2
        assert held.state is State.AVAILABLE
        jobs.resume(**of)
        assert held.result(30) == 2
    jobs.resume(**of)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"queue": "defalt"}, "queue: 'defalt' is not known; did you mean default?"),
        ({"task": "ad"}, "task: 'ad' is not known; did you mean add?"),
        ({"tag": "bluk"}, "tag: 'bluk' is not known; did you mean bulk?"),
    ],
)
def test_a_pause_of_a_name_that_nobody_knows_is_refused_with_the_nearest(
    jobs: JobQueue, add: Any, url: str, of: dict[str, str], said: str
) -> None:
    add.options(tags=["bulk"]).enqueue(1)
    with JobQueue(url) as other:  # Without the app, by what the database knows.
        for verb in (jobs.pause, jobs.resume, other.pause, other.resume):
            with pytest.raises(InvalidOption, match=re.escape(said)):
                verb(**of)
        assert jobs.pause(**of, force=True) is other.resume(**of) is None  # Now it is known.


@pytest.mark.databases("sqlite")
def test_a_new_database_knows_no_queue_but_the_default_one(tmp_path: Path) -> None:
    with JobQueue(f"sqlite:///{tmp_path}/new.db") as jobs:
        for verb in (jobs.pause, jobs.resume):
            with pytest.raises(InvalidOption, match="'mail' is not known; known are default"):
                verb("mail")
            verb("default")


@pytest.mark.parametrize("given", [{}, {"queue": "a", "task": "b"}, {"task": "a", "tag": "b"},
                                   {"task": "a b"}, {"tag": ""}, {"task": 7}, {"queue": "q" * 64}, {"tag": "t" * 64}])  # fmt: skip
def test_a_pause_is_of_one_name(jobs: JobQueue, given: Any) -> None:
    for verb in (jobs.pause, jobs.resume):
        with pytest.raises(InvalidOption):
            verb(**given, force=True)


def test_the_registry_says_which_task_it_does_not_know(jobs: JobQueue, add: Any) -> None:
    with pytest.raises(UnknownTask, match="'nope'"):
        jobs.registry["nope"]
    assert "nope" not in jobs.registry
    with pytest.raises(InvalidOption, match="not an event"):
        jobs.on("nope", print)


@pytest.mark.databases("sqlite")
def test_what_is_not_of_the_right_kind_is_refused_where_it_is_given(
    jobs: JobQueue, add: Any
) -> None:
    job = add.enqueue(0)
    for call, said in [
        (lambda: jobs.on("failed", 3), "on: 3 cannot be called"),
        (lambda: jobs.use(None), "use: None cannot be called"),
        (lambda: jobs.cancel(job), f"id: Job({job.id}) is not a whole number"),
        (lambda: jobs.retry("5"), "id: '5' is not a whole number"),
        (lambda: jobs.delete(None), "id: None is not a whole number"),
        (lambda: jobs.list(queue=5), "queue: 5 is not text"),
        (lambda: list(jobs.as_completed([5])), "as_completed: int is not a job"),
        (lambda: jobs.worker(lease=timedelta(0)), "lease: 0 s is out of range"),
        (lambda: jobs.worker(concurency=4), "; did you mean concurrency"),
        (lambda: jobs.on("succeded", print), "lost; did you mean succeeded?"),
    ]:
        with pytest.raises((InvalidOption, InvalidArguments), match=re.escape(said)):
            call()
