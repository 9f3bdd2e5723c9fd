"""Waiting for a result while the database is away."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobqueue import JobQueue
from jobqueue.store.jobs import Jobs


@pytest.mark.databases("postgres")
def test_who_waits_for_a_result_waits_on_while_the_database_is_away(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states, looks = Jobs.states, iter(range(3))

    def away(jobs: Jobs, ids: Sequence[int]) -> Any:
        if next(looks, None) is not None:
            raise OperationalError("SELECT", None, Exception("no server"))
        return states(jobs, ids)

    with JobQueue(url) as jobs:

        @jobs.task
        def work() -> int:
            return 7

        job = work.enqueue()
        monkeypatch.setattr(Jobs, "states", away)
        with jobs.worker():
            assert job.result(timeout=30) == 7
    assert caplog.text.count("the database is away") == 1


async def awaited(job: Any) -> Any:
    return await job


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("how", ["result", "await"])
def test_who_waits_for_a_result_waits_on_where_the_database_goes_away_before_it_is_read(
    url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    get, looks = Jobs.get, iter(range(2))

    def away(jobs: Jobs, id_: int) -> Any:
        if next(looks, None) is not None:
            raise OperationalError("SELECT", None, Exception("no server"))
        return get(jobs, id_)

    with JobQueue(url) as jobs:

        @jobs.task
        def work() -> int:
            return 7

        job = work.enqueue()
        with jobs.worker():
            assert job.result(timeout=30) == 7
        monkeypatch.setattr(Jobs, "get", away)
        assert (job.result(timeout=30) if how == "result" else asyncio.run(awaited(job))) == 7
    assert next(looks, None) is None
