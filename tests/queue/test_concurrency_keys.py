"""Concurrency keys: from the options to the row, and what the task says for its calls."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.orm import Session

from jobqueue import JobQueue, every
from jobqueue.errors import InvalidOption
from jobqueue.store.schema import jobs as jobs_table


@pytest.fixture
def sync(jobs: JobQueue) -> Any:
    @jobs.task(concurrency_limit=2)
    def sync(tenant: int) -> int:
        return tenant

    return sync


def lanes_of(jobs: JobQueue) -> list[tuple[Any, ...]]:
    names = ("lane", "lane_limit", "lane_strict", "lane_weight")
    with jobs.store.read() as connection:
        found = connection.execute(jobs_table.select().order_by(jobs_table.c.id))
        return [tuple(getattr(row, name) for name in names) for row in found]


@pytest.mark.parametrize("how", ["one", "delayed", "unique", "batch", "within", "async"])
def test_a_job_with_a_key_is_in_its_lane(jobs: JobQueue, sync: Any, engine: Any, how: str) -> None:
    task = sync.options(concurrency_key="tenant-7")
    if how == "one":
        task.enqueue(7)
    elif how == "delayed":
        task.options(delay=60, tags=["a"]).enqueue(7)
    elif how == "unique":
        made = [task.options(unique_key="k").enqueue(7).created for _ in range(2)]
        assert made == [True, False]
    elif how == "batch":
        jobs.enqueue_many([task.call(7)])
    elif how == "within":
        with Session(engine) as session, session.begin():
            task.within(session).enqueue(7)
    else:
        asyncio.run(task.aenqueue(7))
    assert lanes_of(jobs) == [("tenant-7", 2, None, None)]


@pytest.mark.parametrize(
    ("options", "lane"),
    [
        ({}, (None, None, None, None)),
        ({"concurrency_key": "a"}, ("a", 2, None, None)),
        ({"concurrency_key": "a", "concurrency_limit": None}, ("a", None, None, None)),
        ({"concurrency_key": "a", "concurrency_limit": 0}, ("a", 0, None, None)),
        ({"concurrency_key": "a", "strict": True}, ("a", 2, 1, None)),
        ({"concurrency_key": "a", "concurrency_limit": None, "strict": True}, ("a", 1, 1, None)),
        ({"concurrency_key": "a", "weight": 2}, ("a", 2, None, 2.0)),
        ({"concurrency_key": "a", "weight": 1}, ("a", 2, None, None)),
    ],
)
def test_a_task_has_the_limit_for_its_calls_with_a_key(
    jobs: JobQueue, sync: Any, options: Any, lane: tuple[Any, ...]
) -> None:
    sync.options(**options).enqueue(7)
    assert lanes_of(jobs) == [lane]


@pytest.mark.parametrize(
    "option",
    [{"strict": True}, {"concurrency_limit": 1}, {"concurrency_limit": 0}, {"weight": 2}],
)
def test_a_call_without_a_key_has_no_limit_of_one(sync: Any, option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(InvalidOption, match=f"{name}: it is for jobs of a concurrency_key"):
        sync.options(**option)


def test_a_schedule_keeps_the_limit_of_its_task(jobs: JobQueue) -> None:
    """Also where the call has no key."""

    @jobs.task(concurrency_limit=2)
    def tick() -> None: ...

    keyed = tick.options(concurrency_key="k", strict=True)
    for name, task in (("plain", tick), ("keyed", keyed)):
        jobs.schedules.add(name, task.call(), every(days=1))
        jobs.schedules.run(name)
    assert lanes_of(jobs) == [(None, None, None, None), ("k", 2, 1, None)]
