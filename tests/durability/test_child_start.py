"""Between the claim and the moment when a child process is ready, anything may happen: a job begins only if it still may."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, Process, ProcessScenario
from sqlalchemy import text

from jobqueue.worker.process_identity import process_started
from tests.process_factory import popen

pytestmark = pytest.mark.slow

LEASE = 1.0
SOON = 60.0  # seconds: less than the shutdown timeout; the child is never ready
LONG = 90.0  # seconds for a worker and its child to start on a busy machine
TASKS = ["apart", "in_a_thread"]


class Command(Process):
    """A worker of slow_app, by the command line."""

    def __init__(self, scenario: ProcessScenario, *arguments: str) -> None:
        self._folder = scenario.folder / f"process-{len(scenario.processes)}"
        self._folder.mkdir()
        command = [sys.executable, "-m", "jobqueue", "worker", "--app", "slow_app:jobs"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SLOW_URL": scenario.url,
            "SLOW_EFFECTS": str(scenario.effects.path),
        }
        with (self._folder / "log").open("w") as log:
            self._process = popen(
                [
                    *command,
                    "--concurrency",
                    "1",
                    "--poll",
                    "0.05",
                    "--shutdown-timeout",
                    "1h",
                    *arguments,
                ],
                cwd=Path(__file__).parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                own_factory=True,
            )
        self.pid = self._process.pid
        self._ready = scenario.folder / f"ready-{self.pid}"
        self.importing = scenario.folder / f"importing-{self.pid}"
        scenario.processes.append(self)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float = LONG) -> int:
        return self._process.wait(timeout)

    def let_children_be_ready(self) -> None:
        self._ready.touch()


def enqueue(scenario: ProcessScenario, name: str, **options: Any) -> int:
    """Enqueue a job that runs in a child: its task says so, or it was in a crash."""

    def task() -> None: ...

    if name not in scenario.jobs.registry:
        scenario.jobs.task(name=name)(task)
    (id_,) = scenario.many(name, [()], **options)
    if name == "in_a_thread":
        with scenario.jobs.store.engine.begin() as connection:
            connection.execute(text(f"UPDATE jobqueue_jobs SET crashes = 1 WHERE id = {id_}"))
    return id_


@pytest.mark.parametrize(("name", "attempts"), [("apart", 1), ("in_a_thread", 10)])
def test_a_stop_gives_a_job_back_whose_child_is_not_ready(
    scenario: ProcessScenario, wait_until: Any, name: str, attempts: int
) -> None:
    id_ = enqueue(scenario, name, max_attempts=attempts)
    worker = Command(scenario)
    wait_until(worker.importing.exists, LONG)
    worker.terminate()
    wait_until(lambda: scenario.record(id_).state == "available", SOON)
    assert worker.wait(SOON) == 0, "it did not wait for a child that is never ready"
    record = scenario.record(id_)
    assert (record.attempt, record.child_crashes, record.worker) == (0, 0, None)
    assert record.crashes == (1 if name == "in_a_thread" else 0)
    assert scenario.effects.read() == [] and scenario.attempts(id_) == []

    other = Command(scenario)
    other.let_children_be_ready()
    wait_until(scenario.ended(1), LONG)
    assert (scenario.record(id_).attempt, len(scenario.effects.read("started"))) == (1, 1)


@pytest.mark.parametrize("name", TASKS)
def test_a_worker_that_was_frozen_before_its_child_was_ready_does_not_begin_what_others_finished(
    scenario: ProcessScenario, wait_until: Any, name: str
) -> None:
    id_ = enqueue(scenario, name)
    frozen = Command(scenario, "--lease", f"{LEASE}s")
    wait_until(frozen.importing.exists, LONG)
    scenario.pause_outside_of_a_transaction(frozen)
    rescuer = Command(scenario)
    rescuer.let_children_be_ready()
    wait_until(scenario.ended(1), LONG)
    rescuer.terminate()
    assert rescuer.wait() == 0

    frozen.let_children_be_ready()
    frozen.resume()
    wait_until(lambda: "lost its lease" in frozen.log, LONG)
    later = enqueue(scenario, "apart")  # Its only slot is free again, and its child is of use.
    wait_until(scenario.ended(2), LONG)
    frozen.terminate()
    assert frozen.wait() == 0
    assert [effect.job for effect in scenario.effects.read("started")] == [id_, later]
    assert scenario.record(id_).attempt == 1


@pytest.mark.parametrize("name", TASKS)
def test_a_job_that_is_cancelled_before_its_child_is_ready_never_begins(
    scenario: ProcessScenario, wait_until: Any, name: str
) -> None:
    id_ = enqueue(scenario, name)
    worker = Command(scenario)
    wait_until(worker.importing.exists, LONG)
    scenario.jobs.cancel(id_)
    wait_until(scenario.ended(1, "cancelled"), SOON)
    assert scenario.record(id_).attempt == 0
    child = int(worker.importing.read_text())
    wait_until(lambda: process_started(child) is None, SOON)
    later = enqueue(scenario, "apart")
    worker.let_children_be_ready()
    wait_until(scenario.ended(1), LONG)
    assert [effect.job for effect in scenario.effects.read("started")] == [later]
