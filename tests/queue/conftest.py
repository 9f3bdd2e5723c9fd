"""What the tests of the queue's own object share."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobqueue import JobQueue


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
