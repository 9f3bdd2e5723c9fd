"""Stopping a worker process with signals, as the command line does: nothing is lost, and it takes no longer than it may."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "durability"))
from processes import ProcessScenario, scenario  # noqa: E402, F401 - scenario is a fixture

LONG = 3600  # seconds that nobody waits for
SOON = 60  # seconds: far less than that
RUNNING = 4


def begin_with_prefetched(
    scenario: ProcessScenario, wait_until, task: str, argument: object, **options: object
):
    """A worker with four handlers that run and claims beyond them; gives (worker, running ids, prefetched ids)."""
    # What it claims in advance it keeps, however late we look.
    settings = {"concurrency": RUNNING, "tune": {"claim.planner.STALE_PREFETCH_AGE": 60}, **options}
    worker = scenario.worker(**settings)
    for _ in range(5):  # Short jobs teach it to hold some in advance.
        scenario.many("nop", [()] * 20, queue="warm-up")
        wait_until(lambda: not {"available", "running"} & set(scenario.states()))
    calls = [*[scenario.task(task).call(argument)] * RUNNING, *[scenario.task("work").call(0)] * 10]
    ids = [job.id for job in scenario.jobs.enqueue_many(calls)]
    wait_until(lambda: len(scenario.effects.read("started")) == RUNNING)
    # Or the test shows less than it says.
    wait_until(lambda: any(scenario.record(id_).state == "running" for id_ in ids[RUNNING:]))
    return worker, ids[:RUNNING], ids[RUNNING:]


def test_sigterm_lets_running_jobs_end_and_gives_back_what_has_not_begun(
    scenario: ProcessScenario, wait_until
) -> None:
    worker, running, waiting = begin_with_prefetched(scenario, wait_until, "hold", "finish")
    worker.terminate()
    wait_until(lambda: "stopping" in worker.log)
    scenario.many("work", [(0,)] * 3)  # Comes too late for this worker.
    scenario.effects.open_gate("finish")
    assert worker.wait() == 0
    assert sorted(effect.job for effect in scenario.effects.read("ended")) == running
    for id_ in running:
        assert (scenario.record(id_).state, scenario.record(id_).attempt) == ("succeeded", 1)
    assert len(scenario.effects.read("started")) == RUNNING
    for id_ in waiting:
        record = scenario.record(id_)
        assert (record.state, record.attempt, record.crashes, record.worker) == (
            "available",
            0,
            0,
            None,
        )
    assert scenario.rows("SELECT * FROM jobqueue_attempts") == []
    assert scenario.rows("SELECT * FROM jobqueue_workers") == []


@pytest.mark.parametrize("cause", ["a second SIGTERM", "the shutdown timeout"])
def test_a_worker_that_stops_waiting_gives_its_running_jobs_back_uncharged(
    scenario: ProcessScenario, cause: str, wait_until
) -> None:
    limit = 0.2 if cause == "the shutdown timeout" else LONG
    worker, running, waiting = begin_with_prefetched(
        scenario, wait_until, "hold", "never", shutdown_timeout=limit
    )
    (once,) = scenario.many(
        "hold", [("never",)], max_attempts=1
    )  # No slot is free for it, and it may not wait in the inbox.
    worker.terminate()
    wait_until(lambda: "stopping" in worker.log)
    if limit == LONG:
        assert worker.alive
        worker.terminate()
    assert worker.wait(SOON) == 1, "and not when the handlers end: they wait at a gate"
    for id_ in (*running, *waiting, once):
        record = scenario.record(id_)
        assert (record.state, record.attempt, record.crashes) == ("available", 0, 0)
    assert {scenario.record(id_).reason for id_ in running} == {"interrupted"}
    assert scenario.rows("SELECT * FROM jobqueue_workers") == []
    # Another worker may begin them at once, with all of their attempts.
    scenario.effects.open_gate("never")
    scenario.worker()
    wait_until(scenario.ended(len(running) + len(waiting) + 1 + 100))
    assert {scenario.record(id_).attempt for id_ in running} == {1}
    assert {scenario.record(id_).fence for id_ in running} == {4}


@pytest.mark.parametrize("cause", ["a second SIGTERM", "the shutdown timeout"])
def test_an_interrupted_job_that_may_begin_once_has_failed(
    scenario: ProcessScenario, cause: str, wait_until
) -> None:
    limit = 0.2 if cause == "the shutdown timeout" else LONG
    worker = scenario.worker(shutdown_timeout=limit)
    (once,) = scenario.many("hold", [("never",)], max_attempts=1)
    wait_until(lambda: scenario.effects.read("started"))
    worker.terminate()
    if limit == LONG:
        wait_until(lambda: "stopping" in worker.log)
        worker.terminate()
    assert worker.wait(SOON) == 1
    record = scenario.record(once)
    assert (record.state, record.attempt, record.reason) == ("failed", 1, "interrupted")
    assert [attempt.outcome for attempt in scenario.attempts(once)] == ["interrupted"]
    # No one begins it again.
    assert len(scenario.effects.read("started")) == 1


def test_an_idle_worker_stops_at_once_and_in_order(scenario: ProcessScenario) -> None:
    worker = scenario.worker(poll=LONG, shutdown_timeout=LONG)
    worker.terminate()
    assert worker.wait(SOON) == 0
