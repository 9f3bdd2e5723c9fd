"""The façade, the tasks and the handles: what a program sees of the queue."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

import jobqueue
from jobqueue import (
    ConfigurationError,
    InvalidArguments,
    InvalidOption,
    JobQueue,
    JobQueueError,
    State,
    exponential,
)
from tests.queue.conftest import NOWHERE, count

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
    with pytest.raises(ConfigurationError, match=r"\A\S+: "):
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


def test_a_tasks_repr_has_its_name_and_the_options_that_were_given(jobs: JobQueue) -> None:
    @jobs.task(queue="mail", max_attempts=3)
    def send(user: int) -> None: ...

    assert repr(send) == "Task(name='send', settings=Options(queue='mail', max_attempts=3))"
    assert "tags=('a',)" in repr(send.options(tags=["a"]))


def test_the_public_names_are_those_that_are_listed() -> None:
    assert len(jobqueue.__all__) == len(set(jobqueue.__all__)) <= 36
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
