"""How long the completer waits for more outcomes, where a claim from their lanes follows."""

from typing import Any

import pytest

from jobqueue import JobQueue
from tests.worker.conftest import Stepped

pytestmark = pytest.mark.databases("postgres")  # On SQLite one service completes and claims.


@pytest.fixture
def worker(
    jobs: JobQueue, stepped: Stepped, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A worker with two outcomes of a task: one is there, the other comes while the completer waits."""

    @jobs.task
    def work() -> None: ...

    def begin(*keys: str | None, at_once: bool = True) -> Any:
        options = [{"concurrency_key": key, "concurrency_limit": 2} if key else {} for key in keys]
        calls = [work.options(**one).call() for one in options]
        worker = stepped()
        for some in [calls] if at_once else [[call] for call in calls]:
            ids = {job.id for job in jobs.enqueue_many(some)}
            wait_until(lambda ids=ids: ids <= {claim.id for claim in worker.claim()})
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


def test_a_job_that_was_claimed_apart_is_not_waited_for(worker: Any) -> None:
    """One that runs for an hour would hold up every claim from lanes, also from its own."""
    worker = worker("a", "a", at_once=False)
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
