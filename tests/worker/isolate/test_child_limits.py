"""Limits of time, and requests to stop: what a child process is told, and how it is ended."""

import logging
import os
import signal
import threading
import time
from typing import Any

import pytest

from jobqueue import JobCancelled, JobFailed, State
from jobqueue.worker.isolate import child_handle
from jobqueue.worker.isolate.child_main import ChildMain
from tests.worker.isolate.conftest import LONG, IsolationScenario

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

# Limits of time, and wishes


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has all the time that it needs to end by SIGTERM."""
    (term, after), (kill, _) = child_handle._ESCALATION
    monkeypatch.setattr(child_handle, "_ESCALATION", ((term, after), (kill, LONG)))


@pytest.mark.usefixtures("patient")
def test_at_its_timeout_a_handler_is_ended_and_may_clean_up(scenario: IsolationScenario) -> None:
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        job = scenario.app.sleeps.options(timeout=1, max_attempts=1).enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
        assert scenario.app.quick.enqueue().result(LONG), "the slot goes on"
        scenario.wait_until(scenario.gone)
    (attempt,) = scenario.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGTERM")
    assert attempt.error.type == "jobqueue.errors.AttemptTimeout"
    assert "time.sleep(600)" in attempt.error.traceback
    assert scenario.lines("cleaned up") == [] and (scenario.folder / "cleaned up").exists()


@pytest.mark.parametrize("task", ["stubborn", "holds_the_lock"])
def test_what_resists_is_killed(scenario: IsolationScenario, task: str) -> None:
    with scenario.jobs.worker(concurrency=2, poll=0.05) as worker:
        job = scenario.app.jobs.registry[task].options(timeout=0.3).enqueue()
        scenario.begun()
        others = [scenario.app.quick.enqueue().result(LONG) for _ in range(3)]
        with pytest.raises(JobFailed):
            job.result(LONG)
        assert others == [os.getpid()] * 3
        scenario.wait_until(scenario.gone)
        assert worker.failure is None
    (attempt,) = scenario.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGKILL")
    assert "SIGKILL" in attempt.error.message
    assert job.record().child_crashes == 0, "no crash: it was killed"


@pytest.mark.usefixtures("patient")
def test_one_in_the_midst_of_a_message_is_ended_at_its_timeout(
    scenario: IsolationScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("jobqueue.app"), "disabled", True)
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        for _ in range(4):
            job = scenario.app.shouts.options(timeout=0.3).enqueue()
            with pytest.raises(JobFailed):
                job.result(LONG)
            (attempt,) = scenario.attempts(job)
            assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGTERM")
            assert "isolated_app.py" in attempt.error.traceback, "it said so itself"
        assert scenario.app.pid.enqueue().result(LONG)
        scenario.wait_until(scenario.gone)


@pytest.mark.parametrize("task", ["shouts", "whispers"])
def test_one_that_stands_still_in_the_midst_of_a_message_is_killed_at_its_timeout(
    scenario: IsolationScenario, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(logging.getLogger("jobqueue.app"), "disabled", True)
    worker: Any = scenario.jobs.worker(concurrency=1, poll=0.05)
    with worker:
        job = scenario.app.jobs.registry[task].options(timeout=60).enqueue()
        scenario.begun()
        os.kill(int(scenario.lines("pids")[0]), signal.SIGSTOP)
        (context,) = worker._inflight.running.values()
        monkeypatch.setattr(context, "restart", lambda: None)  # It may not have heard it begin yet.
        context._deadline = time.monotonic()
        with pytest.raises(JobFailed):
            job.result(LONG)
        scenario.wait_until(scenario.gone)
    (attempt,) = scenario.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGKILL")


def test_one_that_says_what_is_no_message_is_killed(
    scenario: IsolationScenario, lines: Any
) -> None:
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        job = scenario.app.babbles.enqueue()
        with pytest.raises(JobFailed, match="crashed: SIGKILL"):
            job.result(LONG)
        scenario.wait_until(scenario.gone)
    assert lines(40, "sent an invalid message")


def test_a_process_that_a_handler_has_forked_has_no_say(
    scenario: IsolationScenario, lines: Any
) -> None:
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        assert scenario.app.forks.enqueue().result(LONG) == 0
        assert scenario.app.pid.enqueue().result(LONG)
    assert not lines(30, "not for the worker")


def test_the_jobs_deadline_ends_it_too(scenario: IsolationScenario) -> None:
    with scenario.jobs.worker(poll=0.05):
        scenario.app.pid.enqueue().result(LONG)  # The child is there by now.
        job = scenario.app.sleeps.options(deadline=5).enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
    assert job.record().reason == "its deadline leaves no time for another attempt"


def test_what_a_handler_has_started_ends_with_it(scenario: IsolationScenario) -> None:
    with scenario.jobs.worker(poll=0.05):
        job = scenario.app.parent_of_others.options(timeout=3).enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
        scenario.wait_until(scenario.gone)
    assert scenario.lines("pids")


@pytest.mark.parametrize(
    "task", ["sleeps", "stubborn", "holds_the_lock", "a_regular_expression", "waits_for_cancel"]
)
def test_a_cancelled_job_is_told_and_then_ended(
    scenario: IsolationScenario, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    (term, after), (kill, at_last) = child_handle._ESCALATION
    if task == "waits_for_cancel":
        after = LONG
    if task not in ("stubborn", "holds_the_lock"):
        at_last = LONG
    monkeypatch.setattr(child_handle, "_ESCALATION", ((term, after), (kill, at_last)))
    with scenario.jobs.worker(poll=0.05):
        job = scenario.app.jobs.registry[task].enqueue()
        scenario.begun()
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result(LONG)
        scenario.wait_until(scenario.gone)
    (attempt,) = scenario.attempts(job)
    assert attempt.outcome == "cancelled"
    if task == "waits_for_cancel":
        assert (scenario.folder / "told").exists()
    else:
        assert attempt.exit_signal == (
            "SIGKILL" if task in ("stubborn", "holds_the_lock") else "SIGTERM"
        )


def test_a_signal_that_comes_before_the_word_is_read_waits_for_it() -> None:
    """As of a handler that kept the interpreter's lock from who reads what the worker says."""

    class Attempt:
        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked == 3:
                raise JobCancelled("told")

    child = object.__new__(ChildMain)
    child._deferring, child._context = 0, Attempt()
    with pytest.raises(JobCancelled):
        child._on_sigterm(signal.SIGTERM, None)


def test_a_worker_that_stops_waiting_kills_and_gives_back(scenario: IsolationScenario) -> None:
    worker = scenario.jobs.worker(poll=0.05, concurrency=3)
    with worker:
        again = scenario.app.sleeps.enqueue()
        once = scenario.app.stubborn.enqueue()
        scenario.begun(2)
        scenario.wait_until(lambda: len(scenario.lines("pids")) == 2)
        assert worker.stop(timeout=0.1) is False
    scenario.wait_until(scenario.gone)
    assert (again.state, again.record().attempt) == (State.AVAILABLE, 0)
    assert (once.state, once.record().reason) == (State.FAILED, "interrupted")


def test_a_worker_that_may_wait_lets_a_child_end(scenario: IsolationScenario) -> None:
    worker = scenario.jobs.worker(poll=0.05)
    with worker:
        job = scenario.app.reports.enqueue()
        scenario.wait_until(lambda: job.record().progress_message == "half", LONG)
        threading.Timer(0.3, lambda: scenario.open_gate("reports")).start()
        assert worker.stop() is True
    assert job.state is State.SUCCEEDED


def test_a_sigterm_that_is_not_ours_does_not_end_a_job(scenario: IsolationScenario) -> None:
    """A supervisor of services sends it to every process of the service."""
    with scenario.jobs.worker(poll=0.05):
        job = scenario.app.sleeps.enqueue()
        scenario.begun()
        os.kill(int(scenario.lines("pids")[0]), signal.SIGTERM)
        scenario.jobs.cancel(job.id)
        with pytest.raises(JobCancelled):
            job.result(LONG)
    assert len(scenario.attempts(job)) == 1 and scenario.attempts(job)[0].outcome == "cancelled"


@pytest.mark.databases("sqlite", "postgres")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("task", ["sleeps", "holds_the_lock"])
def test_no_child_outlives_its_worker(scenario: IsolationScenario, task: str, number: int) -> None:
    worker = scenario.worker()
    job = scenario.app.jobs.registry[task].enqueue()
    scenario.begun()
    assert not scenario.gone()
    worker.send_signal(number)
    if number == signal.SIGTERM:
        while "stopping" not in (worker.stderr.readline() or "stopping"):
            pass
        worker.send_signal(signal.SIGINT)
    worker.wait(LONG)
    scenario.wait_until(scenario.gone)
    if number == signal.SIGTERM:
        assert worker.returncode == 1
        assert job.state in (State.AVAILABLE, State.FAILED)
