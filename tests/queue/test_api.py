"""The façade, the tasks and the handles: what a program sees of the queue."""

import asyncio
import inspect
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session

import jobqueue
from jobqueue import (
    ConfigurationError,
    InvalidArguments,
    InvalidOption,
    Job,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobQueue,
    JobQueueError,
    ResultTimeout,
    State,
    UnknownTask,
    WrongState,
    current_job,
    exponential,
    fixed,
)

NOWHERE = "sqlite:///never-made.db"


@pytest.fixture
def engine(jobs: JobQueue, url: str) -> Iterator[Any]:
    """The user's own engine on the same database, with the defaults of SQLAlchemy."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    engine.dispose()


def ids(records: Any) -> list[int]:
    return [record.id for record in records]


def count(jobs: JobQueue) -> int:
    return len(list(jobs.list(limit=None)))


# Tasks; nothing here needs a database


def test_a_task_can_be_made_with_or_without_options() -> None:
    jobs = JobQueue(NOWHERE)

    @jobs.task
    def plain(x: int) -> int:
        """What it does."""
        return x

    @jobs.task()
    def empty() -> None: ...

    @jobs.task(queue="mail", max_attempts=5, backoff=exponential(base=3), timeout=30, name="a.b")
    def full() -> None: ...

    def bare(x: int) -> int:
        return x

    direct = jobs.task(bare)
    assert (plain.name, empty.name, full.name, direct.name) == ("plain", "empty", "a.b", "bare")
    assert set(jobs.registry) == {"plain", "empty", "a.b", "bare"}
    assert (full.settings.queue, full.settings.max_attempts) == ("mail", 5)
    assert full.settings.timeout == 30.0
    assert not Path("never-made.db").exists()


def test_a_task_is_still_its_function() -> None:
    jobs = JobQueue(NOWHERE)

    @jobs.task
    def add(x: int, y: int = 1) -> int:
        """Add two numbers."""
        return x + y

    assert add(2, 3) == 5
    assert add(2) == 3
    assert add(y=1, x=1) == 2
    assert add("a", "b") == "ab", "a plain call checks nothing"
    assert (add.__name__, add.__doc__) == ("add", "Add two numbers.")
    assert add.__module__ == __name__
    assert str(inspect.signature(add)) == "(x: int, y: int = 1) -> int"
    assert inspect.unwrap(add) is add.function
    with pytest.raises(FrozenInstanceError):
        add.name = "other"  # type: ignore[misc]


def test_two_tasks_of_one_name_are_an_error_that_names_both_places() -> None:
    jobs = JobQueue(NOWHERE)

    @jobs.task
    def work() -> None: ...

    first = work

    def again() -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        jobs.task(name="work")(again)
    message = str(caught.value)
    assert message.count(__file__) == 2
    assert "work" in message and "again" in message
    assert f":{first.function.__code__.co_firstlineno})" in message
    assert f":{again.__code__.co_firstlineno})" in message
    assert jobs.registry["work"] is first
    jobs.task(name="work2")(again)


@pytest.mark.parametrize(
    "function",
    [lambda: None, print, str, len, 5, (i for i in ())],
    ids=["lambda", "builtin", "class", "len", "number", "generator"],
)
def test_what_is_no_function_with_a_name_cannot_be_a_task(function: Any) -> None:
    with pytest.raises(ConfigurationError):
        JobQueue(NOWHERE).task(function)


def test_generators_methods_and_bad_names_cannot_be_tasks() -> None:
    jobs = JobQueue(NOWHERE)

    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="return a list"):
        jobs.task(generator)

    class Thing:
        def method(self) -> None: ...

    with pytest.raises(ConfigurationError, match="method"):
        jobs.task(Thing.method)

    def work() -> None: ...

    for name in ("a b", "x" * 129, "é", "-x", "a\n", "a\0"):
        with pytest.raises(InvalidOption):
            jobs.task(name=name)(work)
    assert list(jobs.registry) == []


def test_options_and_within_give_copies(jobs: JobQueue, add: Any, engine: Any) -> None:
    urgent = add.options(priority=-5)
    mail = urgent.options(queue="mail", delay=60)
    assert (add.settings.priority, urgent.settings.priority, mail.settings.priority) == (0, -5, -5)
    assert (urgent.settings.queue, mail.settings.queue) == ("default", "mail")
    assert jobs.registry["add"] is add
    with Session(engine) as session, session.begin():
        inside = mail.within(session)
        handle = inside.enqueue(1)
        assert inside.settings == mail.settings
    record = jobs.get(handle.id).record()
    assert (record.queue, record.priority, record.state) == ("mail", -5, State.SCHEDULED)
    assert add.enqueue(1).record().queue == "default"


INVALID_OPTIONS: list[dict[str, Any]] = [
    {"queue": ""},
    {"queue": "a b"},
    {"queue": "x" * 64},
    {"queue": None},
    {"queue": 5},
    {"priority": 1.5},
    {"priority": "1"},
    {"priority": True},
    {"priority": 2**31},
    {"delay": -1},
    {"delay": float("nan")},
    {"delay": "soon"},
    {"delay": 1e12},
    {"delay": True},
    {"at": datetime(2030, 1, 1)},
    {"at": "2030-01-01T00:00"},
    {"at": "someday"},
    {"at": 5},
    {"max_attempts": 0},
    {"max_attempts": -1},
    {"max_attempts": 2.0},
    {"max_attempts": 10**9},
    {"backoff": 5},
    {"timeout": 0},
    {"timeout": -1},
    {"timeout": "1 fortnight"},
    {"unique_key": ""},
    {"unique_key": "x" * 513},
    {"unique_key": "a\0b"},
    {"unique_key": "\ud800"},
    {"unique_key": 5},
    {"unique_until": "never"},
    {"tags": "one"},
    {"tags": ["a b"]},
    {"tags": [f"t{n}" for n in range(33)]},
    {"tags": 5},
    {"colour": "red"},
]


@pytest.mark.parametrize("options", INVALID_OPTIONS, ids=str)
def test_a_wrong_option_is_refused_where_it_is_given_and_named(options: dict[str, Any]) -> None:
    jobs = JobQueue(NOWHERE)

    def work() -> None: ...

    task = jobs.task(work)
    name = next(iter(options))
    for give in (lambda: task.options(**options), lambda: jobs.task(name="other", **options)(work)):
        with pytest.raises(InvalidOption) as caught:
            give()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, JobQueueError)
        assert caught.value.field == ("tag" if options == {"tags": ["a b"]} else name)


def test_delay_and_at_replace_each_other_and_never_stand_together() -> None:
    jobs = JobQueue(NOWHERE)

    def work() -> None: ...

    task = jobs.task(work)
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert task.options(delay=5).options(at=at).settings.delay is None
    assert task.options(at=at).options(delay=5).settings.at is None
    with pytest.raises(InvalidOption):
        task.options(at=at, delay=5)


def test_arguments_that_do_not_fit_are_refused_at_the_call_and_named() -> None:
    jobs = JobQueue(NOWHERE)

    @jobs.task
    def add(x: int, y: int = 1) -> int:
        return x + y

    cases: list[tuple[str, Any]] = [
        ("args", lambda: add.enqueue()),  # type: ignore[call-arg]
        ("args", lambda: add.enqueue(1, 2, 3)),  # type: ignore[call-arg]
        ("args", lambda: add.enqueue(1, z=3)),  # type: ignore[call-arg]
        ("x", lambda: add.enqueue("2")),  # type: ignore[arg-type]
        ("x", lambda: add.enqueue(1.5)),  # type: ignore[arg-type]
        ("x", lambda: add.enqueue(None)),  # type: ignore[arg-type]
        ("x", lambda: add.enqueue(2**64)),
        ("y", lambda: add.enqueue(1, y="2")),  # type: ignore[arg-type]
        ("y", lambda: add.call(1, [])),  # type: ignore[arg-type]
    ]
    for name, call in cases:
        with pytest.raises(InvalidArguments) as caught:
            call()
        assert isinstance(caught.value, TypeError)
        assert caught.value.field == name
        assert str(caught.value).startswith("add: ")
    assert not Path("never-made.db").exists()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite://", "sqlite:///:memory:", " "])
def test_a_url_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError):
        JobQueue(url)


def test_a_queues_repr_hides_the_password() -> None:
    assert "hunter2" not in repr(JobQueue("postgresql://me:hunter2@localhost/app"))


def test_the_public_names_are_those_that_are_listed() -> None:
    assert len(jobqueue.__all__) == len(set(jobqueue.__all__)) <= 30
    for name in jobqueue.__all__:
        assert hasattr(jobqueue, name)


def test_importing_jobqueue_imports_nothing_that_is_optional_or_slow() -> None:
    code = (
        "import sys, sqlalchemy; before = set(sys.modules); "  # SQLAlchemy 2.0 imports greenlet.
        "import jobqueue; jobqueue.JobQueue('sqlite:///x.db'); "
        "print([name for name in ('greenlet', 'aiosqlite', 'asyncpg', 'psycopg', 'psycopg2', "
        "'alembic', 'rich', 'click', 'sqlalchemy.ext.asyncio', 'pydantic', 'pytest') "
        "if name in sys.modules.keys() - before])"
    )
    root = Path(jobqueue.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"


# Enqueueing


def test_an_enqueued_job_is_there_with_its_options(jobs: JobQueue, add: Any) -> None:
    at = datetime(2030, 1, 1, 12, tzinfo=UTC)
    handle = add.options(
        queue="mail",
        priority=3,
        at=at,
        max_attempts=4,
        timeout=timedelta(minutes=1),
        unique_key="k",
        tags=["a", "b", "a"],
    ).enqueue(2, y=3)
    assert isinstance(handle, Job)
    assert handle.created
    record = handle.record()
    assert (record.task, record.queue, record.priority) == ("add", "mail", 3)
    assert (record.run_at, record.state) == (at, State.SCHEDULED)
    assert (record.max_attempts, record.attempt, record.timeout) == (4, 0, 60.0)
    assert (record.unique_key, record.tags) == ("k", ("a", "b"))
    assert record.args == '{"args":[2],"kwargs":{"y":3}}'


def test_many_calls_are_written_in_order_and_in_one_transaction(jobs: JobQueue, add: Any) -> None:
    @jobs.task
    def other(text: str) -> str:
        return text

    add.enqueue(1)  # What it reads once a second is read.
    commits: list[int] = []
    event.listen(jobs.store.engine, "commit", lambda _: commits.append(1))
    calls = [add.call(n) if n % 2 else other.call(str(n)) for n in range(6000)]
    handles = jobs.enqueue_many(iter(calls))
    assert len(commits) == 1
    assert ids(handles) == sorted(ids(handles))
    assert [handles[n].record().task for n in (0, 1, 5998, 5999)] == ["other", "add"] * 2
    assert count(jobs) == 6001
    assert jobs.enqueue_many([]) == []


def test_of_many_calls_all_are_written_or_none(jobs: JobQueue, add: Any) -> None:
    def calls() -> Iterator[Any]:
        yield add.call(1)
        yield add.call("2")

    with pytest.raises(InvalidArguments):
        jobs.enqueue_many(calls())
    assert count(jobs) == 0

    inserts: list[str] = []

    def fails_the_second_time(*given: Any) -> None:
        inserts.append(given[2])
        if sum("INSERT" in statement for statement in inserts) == 2:
            raise RuntimeError("the machine stops here")

    event.listen(jobs.store.engine, "before_cursor_execute", fails_the_second_time)
    with pytest.raises(RuntimeError):
        later = add.options(delay=1)
        jobs.enqueue_many([later.call(n) for n in range(6000)])  # more than one INSERT
    event.remove(jobs.store.engine, "before_cursor_execute", fails_the_second_time)
    assert count(jobs) == 0


def test_a_second_job_of_a_unique_key_is_the_first(
    jobs: JobQueue, add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    welcome = add.options(unique_key="welcome-7")
    first, second = welcome.enqueue(7), welcome.enqueue(7)
    assert (first.created, second.created) == (True, False)
    assert first == second
    assert hash(first) == hash(second)
    assert caplog.records == []
    third = welcome.enqueue(8)
    assert (third.id, third.created) == (first.id, False)
    assert "unique key" in caplog.text
    both = jobs.enqueue_many([welcome.call(7), add.options(unique_key="new").call(1)] * 2)
    assert [job.created for job in both] == [False, True, False, False]
    jobs.cancel(first.id)
    assert welcome.enqueue(7).created, "by default a key is free once its job has ended"
    kept = add.options(unique_key="once", unique_until="deleted")
    jobs.cancel(kept.enqueue(1).id)
    assert not kept.enqueue(1).created


def test_within_a_users_transaction_a_job_is_committed_with_it_or_not_at_all(
    jobs: JobQueue, add: Any, engine: Any
) -> None:
    with Session(engine) as session:
        add.within(session).enqueue(1)
        session.rollback()
    assert count(jobs) == 0
    with engine.begin() as connection:
        handle = add.within(connection).enqueue(1)
        with pytest.raises(JobQueueError, match="not been committed"):
            handle.result(0.1)
        more = jobs.enqueue_many([add.call(2), add.call(3)], within=connection)
    assert handle.state is State.AVAILABLE
    assert count(jobs) == 1 + len(more)
    with pytest.raises(InvalidOption, match="within"):
        add.within("a session")


# Results


def test_results_come_in_the_order_in_which_jobs_end(jobs: JobQueue) -> None:
    gates = {name: threading.Event() for name in "abc"}

    @jobs.task
    def wait(name: str) -> str:
        gates[name].wait(30)
        return name

    handles = [wait.enqueue(name) for name in "abc"]
    got = []
    with jobs.worker(concurrency=3):
        gates["b"].set()
        for job in jobs.as_completed(handles, timeout=30):
            got.append(job.result(0))
            gates["c" if len(got) == 1 else "a"].set()
    assert got == ["b", "c", "a"]


def test_a_handle_that_is_given_twice_comes_twice(jobs: JobQueue, add: Any) -> None:
    handle = add.enqueue(1)
    jobs.cancel(handle.id)
    assert list(jobs.as_completed([handle, handle], timeout=0)) == [handle, handle]
    assert list(jobs.as_completed([])) == []


def test_waiting_ends_when_the_time_is_up_and_the_job_goes_on(jobs: JobQueue, add: Any) -> None:
    handles = [add.options(delay=60).enqueue(n) for n in range(8)]
    for wait in (
        lambda: handles[0].result(timeout=0.01),
        lambda: handles[0].result(timeout=timedelta(0)),
        lambda: list(jobs.as_completed(handles, timeout=0.01)),
    ):
        with pytest.raises(ResultTimeout) as caught:
            wait()
        assert isinstance(caught.value, TimeoutError)
        assert str(handles[0].id) in str(caught.value)
    with pytest.raises(ResultTimeout, match="3 more"):
        list(jobs.as_completed(handles, timeout=0))
    assert handles[0].state is State.SCHEDULED
    with pytest.raises(InvalidOption):
        handles[0].result(timeout=-1)


def test_a_result_is_the_value_or_says_why_there_is_none(jobs: JobQueue) -> None:
    @jobs.task(max_attempts=2, backoff=fixed(0.01))
    def work(how: str) -> tuple[int, ...]:
        if how == "fails":
            raise ValueError(f"attempt {current_job().attempt}")
        return (1, 2)

    good, bad, cancelled = (work.enqueue(how) for how in ("good", "fails", "good"))
    jobs.cancel(cancelled.id)
    with pytest.raises(ResultTimeout, match=f"not ended in time: job {good.id}"):
        good.result(timeout=0)
    with jobs.worker(poll=0.1):
        assert good.result(30) == (1, 2), "by the annotation: a tuple again"
        assert jobs.get(good.id).result(0) == (1, 2)
        with pytest.raises(JobFailed, match="after 2 attempts: ValueError: attempt 2") as caught:
            bad.result(30)
    assert [(error.type, error.message) for error in caught.value.errors] == [
        ("ValueError", "attempt 1"),
        ("ValueError", "attempt 2"),
    ]
    with pytest.raises(JobCancelled, match=str(cancelled.id)):
        cancelled.result(0)
    assert good.done() and bad.done() and cancelled.done()


def test_a_job_that_was_deleted_while_someone_waits_is_not_there(jobs: JobQueue, add: Any) -> None:
    handle = add.options(delay=60).enqueue(1)
    jobs.delete(handle.id)
    with pytest.raises(JobNotFound):
        handle.result(5)
    with pytest.raises(JobNotFound):
        handle.record()


def test_jobs_can_be_enqueued_and_awaited_from_asyncio(jobs: JobQueue, add: Any) -> None:
    @jobs.task(max_attempts=1)
    def boom() -> None:
        raise ValueError("no")

    async def main() -> list[Any]:
        first, second = await add.aenqueue(1, 2), await add.aenqueue(3)
        bad = await boom.aenqueue()
        results: list[Any] = list(await asyncio.gather(first, second))
        with pytest.raises(JobFailed):
            await bad
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(await add.options(delay=60).aenqueue(1), 0.05)
        with pytest.raises(InvalidArguments):
            await add.aenqueue("x")
        return results

    with jobs.worker(poll=0.1):
        assert asyncio.run(main()) == [3, 4]


# The verbs


def test_a_job_is_found_by_its_id(jobs: JobQueue, add: Any) -> None:
    handle = add.enqueue(1)
    assert jobs.get(handle.id) == handle
    for unknown in (0, -1, handle.id + 1000, 2**62):
        with pytest.raises(JobNotFound) as caught:
            jobs.get(unknown)
        assert isinstance(caught.value, LookupError)
        assert caught.value.value == unknown


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


def test_a_paused_queue_rests_until_it_is_resumed(jobs: JobQueue, add: Any) -> None:
    jobs.pause("mail")
    jobs.pause("mail")
    held, free = add.options(queue="mail").enqueue(1), add.enqueue(1)
    with jobs.worker(poll=0.1):
        assert free.result(30) == 2
        assert held.state is State.AVAILABLE
        jobs.resume("mail")
        assert held.result(30) == 2
    jobs.resume("mail")


def test_the_registry_says_which_task_it_does_not_know(jobs: JobQueue, add: Any) -> None:
    with pytest.raises(UnknownTask, match="'nope'"):
        jobs.registry["nope"]
    assert "nope" not in jobs.registry
    with pytest.raises(InvalidOption, match="not an event"):
        jobs.on("nope", print)


@pytest.mark.parametrize("backend_name", ["sqlite"])
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
    ]:
        with pytest.raises((InvalidOption, InvalidArguments), match=re.escape(said)):
            call()


# Processes


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_queue_that_was_used_before_a_fork_works_on_both_sides(jobs: JobQueue, add: Any) -> None:
    add.enqueue(0)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for n in range(20):
                add.enqueue(n)
            code = 0
        finally:
            os._exit(code)
    for n in range(20):
        add.enqueue(n)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert count(jobs) == 41


def test_a_queue_that_was_closed_may_be_used_again(jobs: JobQueue, add: Any) -> None:
    add.enqueue(1)
    jobs.close()
    add.enqueue(1)
    assert count(jobs) == 2


def test_a_single_call_is_not_many(jobs: JobQueue) -> None:
    @jobs.task
    def add(x: int, y: int) -> int:
        return x + y

    with pytest.raises(InvalidArguments, match=r"a single call; write enqueue_many\(\["):
        jobs.enqueue_many(add.call(1, 2))  # type: ignore[arg-type]
    assert list(jobs.list()) == []
