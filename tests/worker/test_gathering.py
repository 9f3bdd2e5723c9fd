"""How long the completer waits for more outcomes, where a claim from their lanes follows."""

from typing import Any

import pytest

from jobqueue import JobQueue
from tests.worker.conftest import Stepped

pytestmark = pytest.mark.databases("postgres")  # On SQLite one service completes and claims.


@pytest.fixture
def worker(jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker with two outcomes of a task: one is there, the other comes while the completer waits."""

    @jobs.task
    def work() -> None: ...

    def begin(*keys: str | None) -> Any:
        options = [{"concurrency_key": key, "concurrency_limit": 2} if key else {} for key in keys]
        jobs.enqueue_many([work.options(**one).call() for one in options])
        worker = stepped()
        for _ in keys:
            worker.claim()
        worker.execute()
        worker.late = worker.inflight.outbox.get_nowait()
        worker.waits = []
        worker.meanwhile = lambda: worker.inflight.outbox.put(worker.late)

        def wait(seconds: float) -> None:
            worker.waits.append(seconds)
            worker.meanwhile()

        monkeypatch.setattr(worker.parts.completer._stopping, "wait", wait)
        return worker

    return begin


def test_jobs_of_lanes_that_end_together_are_completed_together(worker: Any) -> None:
    worker = worker("a", "a")
    worker.parts.completer.tick()
    assert (len(worker.waits), len(worker.inflight.held)) == (1, 0)


def test_the_last_job_of_lanes_in_a_worker_is_completed_at_once(worker: Any) -> None:
    worker = worker("a", None)
    worker.parts.completer.tick()
    assert (worker.waits, len(worker.inflight.held)) == ([], 1)


def test_jobs_without_lanes_are_completed_at_once(worker: Any) -> None:
    worker = worker(None, None)
    worker.parts.completer.tick()
    assert (worker.waits, len(worker.inflight.held)) == ([], 1)


def test_jobs_of_other_lanes_are_not_waited_for(worker: Any) -> None:
    """One that runs for an hour would hold up every claim from the lanes beside it."""
    worker = worker("a", "b", "b")
    worker.parts.completer.tick()
    assert (worker.waits, len(worker.inflight.held)) == ([], 1)


def test_a_claim_that_was_lost_is_not_waited_for(worker: Any) -> None:
    worker = worker("a", "a")
    del worker.inflight._held[worker.late.claim.id]
    worker.parts.completer.tick()
    assert worker.waits == [] and not worker.inflight.held


def test_outcomes_that_are_not_to_be_written_any_more_after_the_wait_write_nothing(
    worker: Any,
) -> None:
    """Their jobs were lost with the server's commits, and others have got their ids."""
    worker = worker("a", "a")
    (outcome,) = worker.outbox()
    lost = {id(outcome.claim): outcome.claim}
    worker.meanwhile = lambda: worker.inflight._replaced.update(lost)
    assert worker.parts.completer.tick() == 0.5
    assert len(worker.waits) == 1 and worker.writer.batch == []
