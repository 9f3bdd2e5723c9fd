"""What the tests of claiming share."""

from typing import Any

import pytest

from jobqueue import JobQueue


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task
    def work(n: int = 0) -> int:
        return n

    return work


def ids(claims: Any) -> list[int]:
    return [claim.id for claim in claims]


def prefetching(worker: Any, prefetch: int) -> Any:
    """Let a worker hold so many claims beyond its slots."""
    worker.planner.prefetch = lambda: prefetch
    return worker
