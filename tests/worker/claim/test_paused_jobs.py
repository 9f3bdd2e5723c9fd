"""Paused tasks and tags in a worker: it passes their jobs over in all queues, and idles where there is nothing else."""

from typing import Any

import pytest

from jobqueue import JobQueue
from tests.worker.conftest import LONG_AGO, Stepped


@pytest.mark.parametrize("pause", [{"task": "held"}, {"tag": "bulk"}], ids=str)
def test_a_worker_passes_over_what_is_paused(
    jobs: JobQueue, stepped: Stepped, pause: dict[str, Any]
) -> None:
    @jobs.task(tags=["bulk"])
    def held() -> None: ...

    @jobs.task
    def free() -> None: ...

    jobs.pause(**pause)
    of_queues = {queue: held.options(queue=queue).enqueue().id for queue in "abc"}
    free_ids = [free.options(queue=queue).enqueue().id for queue in "abc"]
    worker = stepped(concurrency=20)
    assert sorted(claim.id for claim in worker.claim()) == free_ids
    worker.execute()
    worker.complete()
    assert worker.claim() == []
    worker.cursors._rescanned_at = LONG_AGO
    assert not worker.planner.refresh()  # Nothing to open a transaction for.
    assert worker.planner.delay() > 0.5
    jobs.resume(**pause)
    assert sorted(claim.id for claim in worker.claim()) == sorted(of_queues.values())
