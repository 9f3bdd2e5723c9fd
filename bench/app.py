"""The tasks that are measured."""

import time
from functools import cache
from typing import Any

from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert
from sqlalchemy.orm import Session

from jobqueue import JobQueue, current_job

effects = Table(
    "bench_effects", MetaData(), Column("id", Integer, primary_key=True), Column("number", Integer)
)
"""A table of the user's own."""

DURATIONS: list[float] = []
"""Seconds that each transaction of `effect` took, in the process that ran it."""


@cache
def plain_engine(url: str) -> Engine:
    """An engine as a user makes one: no setting of ours."""
    return create_engine(url)


def app(url: str) -> tuple[JobQueue, Any, Any, Any]:
    """A queue with its tasks: (queue, add, moment, effect)."""
    jobs = JobQueue(url)

    @jobs.task
    def add(x: int, y: int) -> int:
        return x + y

    @jobs.task
    def moment() -> int:
        """When it was entered, in ns of the clock that all processes of a machine share."""
        return time.monotonic_ns()

    @jobs.task(queue="effects")
    def effect(number: int) -> None:
        """The user's write and the job's success in one transaction."""
        began = time.perf_counter()
        with Session(plain_engine(url)) as session:
            session.execute(insert(effects).values(number=number))
            current_job().finish_within(session)
            session.commit()
        DURATIONS.append(time.perf_counter() - began)

    @jobs.task
    def span(seconds: float) -> tuple[int, int]:
        """When it was entered and left, by that clock."""
        began = time.monotonic_ns()
        time.sleep(seconds)
        return began, time.monotonic_ns()

    @jobs.task
    def nap(seconds: float) -> None:
        time.sleep(seconds)

    @jobs.task
    def echo(text: str) -> str:
        """As large a result as it is given."""
        return text

    return jobs, add, moment, effect
