"""Deaths of child processes, which are charged to their own job alone."""

import os
import signal
import socket
import threading
from typing import Any

import psutil
import pytest

from jobqueue import JobFailed, State
from jobqueue.worker import orphan_guard
from jobqueue.worker.isolate import child_handle
from tests.process_factory import forking_subprocess
from tests.worker.isolate.conftest import LONG, IsolationScenario
from tests.worker.conftest import Stepped

pytestmark = pytest.mark.databases("sqlite")

# Deaths


@pytest.mark.databases("sqlite", "postgres")
@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 3"), ("kill", "SIGKILL")])
def test_a_death_is_a_crash_of_that_job_alone(
    scenario: IsolationScenario, how: str, said: str
) -> None:
    job = scenario.app.dies.enqueue(how)
    with scenario.jobs.worker(concurrency=2, poll=0.05):
        others = [scenario.app.pid.enqueue() for _ in range(4)]
        with pytest.raises(JobFailed, match=f"crashed: {said}, peak [0-9.]+ MB"):
            job.result(LONG)
        for other in others:
            other.result(LONG)
            assert other.record().attempt == 1
    record = job.record()
    assert record.reason.startswith(f"crashed: {said}, peak ")
    assert (record.attempt, record.crashes, record.child_crashes) == (3, 3, 3), "max_crashes"
    attempts = scenario.attempts(job)
    assert [attempt.outcome for attempt in attempts] == ["crashed"] * 3
    assert {attempt.exit_signal for attempt in attempts} == {None if how == "exit" else "SIGKILL"}
    assert all(10_000_000 < attempt.peak_memory < 500_000_000 for attempt in attempts)
    assert len(set(scenario.lines("died"))) == 3


@pytest.mark.parametrize("and_opens", [False, True])
def test_a_handler_that_closes_what_it_did_not_open_is_a_crash_of_that_job_alone(
    scenario: IsolationScenario, and_opens: bool
) -> None:
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        job = scenario.app.closes_all_files.enqueue(and_opens)
        # It ends itself, unless the worker, whose pipe is closed, is quicker.
        with pytest.raises(JobFailed, match="crashed: (exit code 1|SIGKILL)"):
            job.result(LONG)
        assert scenario.app.pid.enqueue().result(LONG), "the slot goes on"
    assert not any(file.read_text() for file in scenario.folder.glob("opened-*"))


def test_what_a_handler_has_started_ends_with_its_crash(scenario: IsolationScenario) -> None:
    with scenario.jobs.worker(poll=0.05):
        job = scenario.app.leaves_others.enqueue("crash")
        with pytest.raises(JobFailed, match="crashed: SIGKILL"):
            job.result(LONG)
        assert scenario.lines("pids")
        scenario.wait_until(scenario.gone)


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_what_a_handler_has_started_ends_with_the_worker_however_that_ends(
    scenario: IsolationScenario, how: str
) -> None:
    worker = scenario.worker("-c", "2")
    scenario.app.leaves_others.enqueue("stay")
    scenario.begun()
    if how == "exit":
        scenario.app.poison.enqueue()
        scenario.open_gate("poison")
    else:
        worker.kill()
    assert worker.wait(LONG) == (7 if how == "exit" else -signal.SIGKILL)
    assert len(scenario.lines("pids")) == 2
    scenario.wait_until(scenario.gone)


def test_the_kernel_ends_a_child_whose_worker_and_orphan_guard_are_gone(
    scenario: IsolationScenario,
) -> None:
    """No thread of it could: its handler keeps the interpreter's lock."""
    worker = scenario.worker("-c", "1")
    scenario.app.holds_the_lock.enqueue()
    scenario.begun()
    children = psutil.Process(worker.pid).children()
    (guard,) = [each for each in children if orphan_guard.__file__ in each.cmdline()]
    guard.kill()
    worker.kill()
    scenario.wait_until(scenario.gone)


def test_a_child_whose_worker_was_gone_before_the_kernel_knew_ends_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process that was forked from the worker may hold the socket open."""
    monkeypatch.setattr(child_handle, "subprocess", forking_subprocess())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with monkeypatch.context() as gone:
            gone.setattr(os, "getpid", os.getppid)
            child = child_handle._start(theirs.fileno())
        try:
            assert child.wait(LONG) == 1
        finally:
            child.kill()
            child.wait()


def test_a_kill_in_the_midst_of_a_burial_signals_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is free, and may be that of another group, before it counts as buried."""
    child = child_handle.ChildHandle({})
    child.kill()
    reap, signals = child._wait_status, []
    killer = threading.Thread(target=child.kill)

    def reap_and_be_late() -> int:
        code = reap()
        monkeypatch.setattr(os, "killpg", lambda _group, number: signals.append(number))
        killer.start()
        killer.join(0.2)
        return code

    monkeypatch.setattr(child, "_wait_status", reap_and_be_late)
    assert child.reap() == -signal.SIGKILL
    killer.join(LONG)
    assert signals == []


def test_max_crashes_is_a_setting_and_attempts_count_as_well(scenario: IsolationScenario) -> None:
    many, few = (
        scenario.app.dies.enqueue("exit"),
        scenario.app.dies.options(max_attempts=1).enqueue("exit"),
    )
    with scenario.jobs.worker(poll=0.05, max_crashes=4):
        for job in (many, few):
            with pytest.raises(JobFailed, match="crashed"):
                job.result(LONG)
    assert (many.record().attempt, few.record().attempt) == (4, 1)


def test_an_end_in_order_clears_the_crashes(scenario: IsolationScenario) -> None:
    job = scenario.app.dies_twice.enqueue()
    with scenario.jobs.worker(poll=0.05):
        assert job.result(LONG) == "alive"
    record = job.record()
    assert (record.attempt, record.crashes, record.child_crashes) == (3, 0, 0)


def test_memory_up_to_a_limit_is_an_error_of_that_attempt(
    scenario: IsolationScenario, stepped: Stepped
) -> None:
    job, worker = scenario.app.eats.enqueue(), stepped(scenario.jobs)
    worker.step()
    (attempt,) = scenario.attempts(job)
    assert (job.state, attempt.outcome, attempt.error.type) == (
        State.FAILED,
        "errored",
        "MemoryError",
    )
    assert attempt.peak_memory > 1_000_000


def test_the_peak_at_the_moment_of_a_death_is_recorded(scenario: IsolationScenario) -> None:
    """In a worker of its own: a child's peak is known exactly where it is above its worker's."""
    job = scenario.app.eats_and_dies.options(max_attempts=1).enqueue()
    scenario.worker("-c", "1")
    scenario.wait_until(job.done, LONG)
    (attempt,) = scenario.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("crashed", "SIGKILL")
    assert 300_000_000 < attempt.peak_memory < 600_000_000
    assert job.record().reason.startswith("crashed: SIGKILL, peak 3")


def test_the_peak_is_the_jobs_own_and_not_that_of_the_child(
    scenario: IsolationScenario, stepped: Stepped
) -> None:
    worker = stepped(scenario.jobs)
    scenario.app.eats.enqueue()
    small = scenario.app.signals.options(max_attempts=1).enqueue("raise")
    worker.step()
    assert scenario.attempts(small)[0].peak_memory < 200_000_000
