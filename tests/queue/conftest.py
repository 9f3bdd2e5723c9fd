"""What the tests of the queue's own object share."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine

from jobqueue import (
    JobQueue,
)


@pytest.fixture
def jobs(url: str) -> Iterator[JobQueue]:
    with JobQueue(url) as queue:
        yield queue


@pytest.fixture
def add(jobs: JobQueue) -> Any:
    @jobs.task
    def add(x: int, y: int = 1) -> int:
        return x + y

    return add


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
