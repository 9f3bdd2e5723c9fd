"""Stopping a worker process with signals, as the command line does: nothing is lost, and it takes no longer than it may."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "durability"))
from processes import ProcessScenario, scene  # noqa: E402, F401 - scene is a fixture

LONG = 3600  # seconds that nobody waits for
SOON = 20  # seconds: less than the shutdown timeout is by default
RUNNING = 4


def begin_with_prefetched(
    scene: ProcessScenario, wait_until, task: str, argument: object, **options: object
):
    """A worker with four handlers that run and claims beyond them; gives (worker, running ids, prefetched ids)."""
    # What it claims in advance it keeps, however late we look.
    settings = {"concurrency": RUNNING, "tune": {"claim.planner.STALE_PREFETCH_AGE": 60}, **options}
    worker = scene.worker(**settings)
    for _ in range(5):  # Short jobs teach it to hold some in advance.
        scene.many("nop", [()] * 20, queue="warm-up")
        wait_until(lambda: not {"available", "running"} & set(scene.states()))
    calls = [*[scene.task(task).call(argument)] * RUNNING, *[scene.task("work").call(0)] * 10]
    ids = [job.id for job in scene.jobs.enqueue_many(calls)]
    wait_until(lambda: len(scene.effects.read("started")) == RUNNING)
    # Or the test shows less than it says.
    wait_until(lambda: any(scene.record(id_).state == "running" for id_ in ids[RUNNING:]))
    return worker, ids[:RUNNING], ids[RUNNING:]


def test_sigterm_lets_running_jobs_end_and_gives_back_what_has_not_begun(
    scene: ProcessScenario, wait_until
) -> None:
    worker, running, waiting = begin_with_prefetched(scene, wait_until, "hold", "finish")
    worker.terminate()
    wait_until(lambda: "stopping" in worker.log)
    scene.many("work", [(0,)] * 3)  # Comes too late for this worker.
    scene.effects.open_gate("finish")
    assert worker.wait() == 0
    assert sorted(effect.job for effect in scene.effects.read("ended")) == running
    for id_ in running:
        assert (scene.record(id_).state, scene.record(id_).attempt) == ("succeeded", 1)
    assert len(scene.effects.read("started")) == RUNNING
    for id_ in waiting:
        record = scene.record(id_)
        assert (record.state, record.attempt, record.crashes, record.worker) == (
            "available",
            0,
            0,
            None,
        )
    assert scene.rows("SELECT * FROM jobqueue_attempts") == []
    assert scene.rows("SELECT * FROM jobqueue_workers") == []


@pytest.mark.parametrize("cause", ["a second SIGTERM", "the shutdown timeout"])
def test_a_worker_that_stops_waiting_gives_its_running_jobs_back_uncharged(
    scene: ProcessScenario, cause: str, wait_until
) -> None:
    limit = 0.2 if cause == "the shutdown timeout" else LONG
    worker, running, waiting = begin_with_prefetched(
        scene, wait_until, "hold", "never", shutdown_timeout=limit
    )
    (once,) = scene.many(
        "hold", [("never",)], max_attempts=1
    )  # No slot is free for it, and it may not wait in the inbox.
    worker.terminate()
    wait_until(lambda: "stopping" in worker.log)
    if limit == LONG:
        assert worker.alive
        worker.terminate()
    assert worker.wait(SOON) == 1, "and not when the handlers end: they wait at a gate"
    for id_ in (*running, *waiting, once):
        record = scene.record(id_)
        assert (record.state, record.attempt, record.crashes) == ("available", 0, 0)
    assert {scene.record(id_).reason for id_ in running} == {"interrupted"}
    assert scene.rows("SELECT * FROM jobqueue_workers") == []
    # Another worker may begin them at once, with all of their attempts.
    scene.effects.open_gate("never")
    scene.worker()
    wait_until(scene.ended(len(running) + len(waiting) + 1 + 100))
    assert {scene.record(id_).attempt for id_ in running} == {1}
    assert {scene.record(id_).fence for id_ in running} == {4}


@pytest.mark.parametrize("cause", ["a second SIGTERM", "the shutdown timeout"])
def test_an_interrupted_job_that_may_begin_once_has_failed(
    scene: ProcessScenario, cause: str, wait_until
) -> None:
    limit = 0.2 if cause == "the shutdown timeout" else LONG
    worker = scene.worker(shutdown_timeout=limit)
    (once,) = scene.many("hold", [("never",)], max_attempts=1)
    wait_until(lambda: scene.effects.read("started"))
    worker.terminate()
    if limit == LONG:
        wait_until(lambda: "stopping" in worker.log)
        worker.terminate()
    assert worker.wait(SOON) == 1
    record = scene.record(once)
    assert (record.state, record.attempt, record.reason) == ("failed", 1, "interrupted")
    assert [attempt.outcome for attempt in scene.attempts(once)] == ["interrupted"]
    # No one begins it again.
    assert len(scene.effects.read("started")) == 1


def test_an_idle_worker_stops_at_once_and_in_order(scene: ProcessScenario) -> None:
    worker = scene.worker(poll=LONG, shutdown_timeout=LONG)
    worker.terminate()
    assert worker.wait(SOON) == 0
