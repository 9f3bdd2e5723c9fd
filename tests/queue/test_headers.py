"""Headers: from the enqueue to the handler; and hooks at the enqueue, which add them or refuse."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy.orm import Session

from jobqueue import Call, EnqueueRefused, JobFailed, JobQueue, current_job
from jobqueue.errors import ConfigurationError, InvalidOption
from tests.queue.conftest import NOWHERE, count

TENANT = {"tenant": "7", "ключ": 'a "ü" 🦆'}


@pytest.fixture
def seen(jobs: JobQueue) -> Any:
    @jobs.task
    def seen() -> dict[str, str]:
        return current_job().headers

    return seen


def add_tenant(call: Call[Any], send: Any) -> Call[Any]:
    return send(call.with_headers({"tenant": "7"}))


@pytest.mark.parametrize("how", ["one", "delayed", "keyed", "batch", "within", "async"])
def test_headers_reach_the_handler_and_the_jobs_json(
    jobs: JobQueue, seen: Any, engine: Any, how: str
) -> None:
    task = seen.options(headers=TENANT)
    if how == "one":
        job = task.enqueue()
    elif how == "delayed":
        job = task.options(delay=0.01, tags=["a"]).enqueue()
    elif how == "keyed":
        job = task.options(unique_key="k").enqueue()
        assert task.options(unique_key="k").enqueue() == job
    elif how == "batch":
        plain, job, _ = jobs.enqueue_many([seen.call(), task.call(), seen.call()])
        assert plain.record().to_json()["headers"] == {}
    elif how == "within":
        with Session(engine) as session, session.begin():
            job = task.within(session).enqueue()
    else:
        job = asyncio.run(task.aenqueue())
    assert job.record().to_json()["headers"] == TENANT
    with jobs.worker(poll=0.05):
        assert job.result(timeout=30) == TENANT


def test_a_job_inherits_no_headers(jobs: JobQueue, seen: Any) -> None:
    @jobs.task
    def parent() -> int:
        return seen.enqueue().id

    with jobs.worker(poll=0.05):
        child = jobs.get(parent.options(headers=TENANT).enqueue().result(timeout=30))
        assert child.result(timeout=30) == {}


def test_later_options_replace_headers_and_a_call_adds_to_them(seen: Any) -> None:
    task = seen.options(headers={"a": "1", "b": "1"})
    call = task.call().with_headers({"b": "2", "c": "3"})
    assert call.headers == {"a": "1", "b": "2", "c": "3"}
    assert task.options(headers={"d": "4"}).call().headers == {"d": "4"}
    assert task.options(headers={}).call().to_new_job().extra is None


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ("a=b", "a str; give a mapping"),
        (None, "None; give a mapping"),
        ({"a": 1}, "the value of 'a' is an int, not text"),
        ({1: "a"}, "the name is an int, not text"),
        ({"": "a"}, "a name is empty"),
        ({"a": "\0"}, "the value of 'a' has a character that no database stores"),
        ({"\ud800": "a"}, "the name has a character that no database stores"),
        ({"a": "x" * 5000}, "5,009 bytes of JSON; at most 4,096"),
        ({"a": "ü" * 2045}, "4,099 bytes of JSON; at most 4,096"),
    ],
)
def test_what_is_no_mapping_of_short_texts_is_refused(headers: Any, problem: str) -> None:
    with JobQueue(NOWHERE) as jobs:

        @jobs.task
        def work() -> None: ...

        with pytest.raises(InvalidOption, match=problem) as refused:
            work.options(headers=headers)
        assert refused.value.field == "headers"


@pytest.mark.parametrize("written", ["[1]", '{"a": 1}', "{", "[" * 3000])
def test_headers_that_plain_sql_wrote_wrongly_are_told_to_who_reads_them(
    jobs: JobQueue, seen: Any, written: str
) -> None:
    job = seen.options(max_attempts=1).enqueue()
    with jobs.store.write() as connection:
        connection.exec_driver_sql(f"UPDATE jobqueue_jobs SET headers = '{written}'")
    assert job.record().to_json()["headers"] is None
    with jobs.worker(poll=0.05), pytest.raises(JobFailed, match="are not a JSON object of texts"):
        job.result(timeout=30)


# Hooks


def test_hooks_see_each_call_the_first_one_first(jobs: JobQueue, add: Any) -> None:
    order: list[tuple[str, Any]] = []

    @jobs.use
    def middleware(context: Any, run: Any) -> Any:
        return run()

    def first(call: Call[Any], send: Any) -> Call[Any]:
        order.append(("first", json.loads(call.args)["args"]))
        sent = send(call.with_headers({"by": "first"}))
        order.append(("sent", sent.headers))
        return sent

    def second(call: Call[Any], send: Any) -> Call[Any]:
        order.append(("second", call.headers))
        return send(call.with_headers({"by": "second", "task": call.task.name}))

    assert jobs.use(enqueue=first) is first
    jobs.use(enqueue=second)
    made = jobs.enqueue_many([add.call(1), add.call(2)])
    both = {"by": "second", "task": "add"}
    assert [job.record().to_json()["headers"] for job in made] == [both, both]
    assert order == [
        *[("first", [1]), ("second", {"by": "first"}), ("sent", both)],
        *[("first", [2]), ("second", {"by": "first"}), ("sent", both)],
    ]


@pytest.mark.parametrize("error", [EnqueueRefused("tenant 7 is suspended"), KeyError("tenant")])
def test_a_hook_that_raises_refuses_all_that_is_enqueued_together(
    jobs: JobQueue, add: Any, error: Exception
) -> None:
    @lambda hook: jobs.use(enqueue=hook)
    def only_one(call: Call[Any], send: Any) -> Call[Any]:
        if json.loads(call.args)["args"] != [1]:
            raise error
        return send(call)

    add.enqueue(1)
    with pytest.raises(type(error)) as raised:
        jobs.enqueue_many([add.call(1), add.call(2)])
    assert raised.value is error
    assert count(jobs) == 1


def test_a_hook_that_does_not_return_a_call_is_named(jobs: JobQueue, add: Any) -> None:
    def forgets(call: Call[Any], send: Any) -> Any:
        send(call)

    jobs.use(enqueue=forgets)
    with pytest.raises(ConfigurationError, match="forgets returned None: write return send"):
        add.enqueue(1)
    assert count(jobs) == 0


def test_what_is_no_function_is_refused_as_a_hook(jobs: JobQueue) -> None:
    for given in ({"enqueue": "x"}, {"middleware": 1}, {}):
        with pytest.raises(InvalidOption, match="use: .* cannot be called"):
            jobs.use(**given)  # type: ignore[call-overload]
