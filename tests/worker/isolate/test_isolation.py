"""Child processes: jobs that can be killed, what they may know and say, and how their deaths are recorded."""

import errno
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from jobqueue import JobCancelled, JobFailed, JobQueue, State
from jobqueue.errors import ConfigurationError, InvalidOption
from jobqueue.records import Unsuccessful, Succeeded
from jobqueue.store.jobs import Jobs
from jobqueue.worker.isolate.child_main import ChildMain
from jobqueue.worker.isolate import child_handle
from jobqueue.worker.execute.admission import ChildAdmission
from jobqueue.worker.process_identity import process_started
from jobqueue.worker.isolate.importing import IN_MAIN, TaskRef, unreachable_reason

HERE = Path(__file__).parent
LONG = 30.0  # seconds, for what takes a second


class Stage:
    """The app on the test's database, and its folder."""

    def __init__(self, app: Any, folder: Path, wait_until: Callable[..., Any]) -> None:
        self.app, self.folder, self.wait_until = app, folder, wait_until
        self.jobs: JobQueue = app.jobs
        self.processes: list[subprocess.Popen[str]] = []

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().split() if file.exists() else []

    def begun(self, count: int = 1) -> None:
        self.wait_until(
            lambda: (
                (self.folder / "began").exists()
                and len((self.folder / "began").read_text()) >= count
            ),
            LONG,
        )

    def open_gate(self, name: str) -> None:
        (self.folder / f"gate-{name}").touch()

    def attempts(self, job: Any) -> list[Any]:
        return Jobs(self.jobs.store).attempts(job.record())

    def gone(self) -> bool:
        """True when no process of those that noted their ids is left."""
        return all(process_started(int(pid)) is None for pid in self.lines("pids"))

    def worker(self, *arguments: str) -> "subprocess.Popen[str]":
        """A worker process by the command line."""
        command = [sys.executable, "-m", "jobqueue", "worker", "--app", "isolated_app:jobs"]
        process = subprocess.Popen(
            [*command, "--poll", "0.05", "--stats-interval", "0", *arguments],
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[2])},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.jobs.close()


@pytest.fixture
def stage(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> Iterator[Stage]:
    monkeypatch.setenv("ISOLATED_URL", url)
    monkeypatch.setenv("ISOLATED_FOLDER", str(tmp_path))
    monkeypatch.delitem(sys.modules, "isolated_app", raising=False)
    stage = Stage(importlib.import_module("isolated_app"), tmp_path, wait_until)
    stage.jobs.store.require_schema()
    yield stage
    stage.end()


# What a child does


def test_a_job_runs_in_a_child_that_is_kept_for_the_next(stage: Stage) -> None:
    with stage.jobs.worker(concurrency=1, poll=0.05):
        first, second = stage.app.pid.enqueue(), stage.app.pid.enqueue()
        assert first.result(LONG) == second.result(LONG) != os.getpid()
        assert stage.app.quick.enqueue().result(LONG) == os.getpid()
        assert stage.app.echo.enqueue({"a": 1}).result(LONG) == {"a": 1}
        assert stage.app.acoroutine.enqueue().result(LONG) == first.result(0)
    assert process_started(first.result(0)) is None, "it has ended with its worker"
    assert stage.lines("middleware") == [str(first.result(0))] * 2


def test_current_job_works_in_a_child(stage: Stage) -> None:
    with stage.jobs.worker(poll=0.05):
        job = stage.app.facts.enqueue()
        facts = job.result(LONG)
        enqueued = stage.app.enqueues.enqueue().result(LONG)
        assert stage.jobs.get(enqueued).result(LONG) != os.getpid()
    assert (facts["id"], facts["attempt"], facts["max_attempts"]) == (job.id, 1, 7)
    assert (facts["fence"], facts["cancelled"]) == (1, False)
    assert 55 < facts["remaining"] <= 60 and facts["deadline"]


def test_progress_and_logs_come_from_a_child(stage: Stage, lines: Any) -> None:
    with stage.jobs.worker(poll=0.05):
        job = stage.app.reports.enqueue()
        stage.wait_until(lambda: job.record().progress_message == "half", LONG)
        stage.open_gate("reports")
        job.result(LONG)
        assert job.record().progress_message == "all"
    assert lines(30, f"job {job.id} (reports): half done")
    assert lines(30, "so the app says")


@pytest.mark.parametrize(
    ("what", "state", "outcome"),
    [
        ("snooze", State.SCHEDULED, "snoozed"),
        ("retry", State.SCHEDULED, "errored"),
        ("cancel", State.CANCELLED, "cancelled"),
        ("exit", State.SCHEDULED, "errored"),
        ("raise", State.SCHEDULED, "errored"),
    ],
)
def test_a_child_steers_its_job_as_a_thread_does(
    stage: Stage, hand: Any, what: str, state: State, outcome: str
) -> None:
    job = stage.app.signals.enqueue(what)
    worker = hand(stage.jobs)
    worker.step()
    record = job.record()
    assert record.state is state
    (attempt,) = stage.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == (outcome, None)
    if what == "exit":
        assert attempt.error.type == "SystemExit"
    if what == "raise":
        assert attempt.error.traceback.split('"')[1].endswith("isolated_app.py"), "it begins there"
        assert attempt.peak_memory > 1_000_000
    assert record.attempt == (0 if what == "snooze" else 1)


def test_a_coroutine_that_a_plain_task_returns_is_an_error_as_in_a_thread(
    stage: Stage, hand: Any
) -> None:
    job, worker = stage.app.forgets_to_await.enqueue(), hand(stage.jobs)
    worker.step()
    assert job.state is State.FAILED
    assert "a coroutine that nobody awaits" in stage.attempts(job)[0].error.message


def test_a_coroutine_that_a_wrapper_of_an_async_def_returns_is_awaited(
    stage: Stage, hand: Any
) -> None:
    job, worker = stage.app.wrapped_coroutine.enqueue(), hand(stage.jobs)
    worker.step()
    assert job.result(timeout=5) != os.getpid()


def test_arguments_that_no_longer_fit_fail_at_once(stage: Stage, hand: Any) -> None:
    job, worker = stage.app.echo.enqueue({}), hand(stage.jobs)
    worker.change(job.id, args='{"args":["text"],"kwargs":{}}')
    worker.step()
    assert job.state is State.FAILED
    assert stage.attempts(job)[0].outcome == "refused"


@pytest.mark.parametrize("then", ["", "dies before", "dies after"])
def test_effects_in_the_database_are_exactly_once_in_a_child(stage: Stage, then: str) -> None:
    stage.app.PAYMENTS.create(stage.jobs.store.engine)
    job = stage.app.pays.enqueue(then)
    with stage.jobs.worker(poll=0.05):
        assert job.result(LONG) == "paid"
        stage.wait_until(lambda: not stage.jobs.store or job.state is State.SUCCEEDED)
    with stage.jobs.store.read() as connection:
        rows = connection.execute(select(stage.app.PAYMENTS)).all()
    assert rows == [(job.id, job.record().fence - 1)]
    assert job.record().attempt == (2 if then == "dies before" else 1)


# Limits of time, and wishes


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has all the time that it needs to end by SIGTERM."""
    (term, after), (kill, _) = child_handle._ESCALATION
    monkeypatch.setattr(child_handle, "_ESCALATION", ((term, after), (kill, LONG)))


@pytest.mark.usefixtures("patient")
def test_at_its_timeout_a_handler_is_ended_and_may_clean_up(stage: Stage) -> None:
    with stage.jobs.worker(concurrency=1, poll=0.05):
        job = stage.app.sleeps.options(timeout=0.3, max_attempts=1).enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
        assert stage.app.quick.enqueue().result(LONG), "the slot goes on"
        stage.wait_until(stage.gone)
    (attempt,) = stage.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGTERM")
    assert attempt.error.type == "AttemptTimeout" and "time.sleep(600)" in attempt.error.traceback
    assert stage.lines("cleaned up") == [] and (stage.folder / "cleaned up").exists()


@pytest.mark.parametrize("task", ["stubborn", "holds_the_lock"])
def test_what_resists_is_killed(stage: Stage, task: str) -> None:
    with stage.jobs.worker(concurrency=2, poll=0.05) as worker:
        job = stage.app.jobs.registry[task].options(timeout=0.3).enqueue()
        stage.begun()
        others = [stage.app.quick.enqueue().result(LONG) for _ in range(3)]
        with pytest.raises(JobFailed):
            job.result(LONG)
        assert others == [os.getpid()] * 3
        stage.wait_until(stage.gone)
        assert worker.failure is None
    (attempt,) = stage.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGKILL")
    assert "SIGKILL" in attempt.error.message
    assert job.record().child_crashes == 0, "no crash: it was killed"


@pytest.mark.usefixtures("patient")
def test_one_in_the_midst_of_a_message_is_ended_at_its_timeout(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("jobqueue.app"), "disabled", True)
    with stage.jobs.worker(concurrency=1, poll=0.05):
        for _ in range(4):
            job = stage.app.shouts.options(timeout=0.3).enqueue()
            with pytest.raises(JobFailed):
                job.result(LONG)
            (attempt,) = stage.attempts(job)
            assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGTERM")
            assert "isolated_app.py" in attempt.error.traceback, "it said so itself"
        assert stage.app.pid.enqueue().result(LONG)
        stage.wait_until(stage.gone)


@pytest.mark.parametrize("task", ["shouts", "whispers"])
def test_one_that_stands_still_in_the_midst_of_a_message_is_killed_at_its_timeout(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(logging.getLogger("jobqueue.app"), "disabled", True)
    worker: Any = stage.jobs.worker(concurrency=1, poll=0.05)
    with worker:
        job = stage.app.jobs.registry[task].options(timeout=60).enqueue()
        stage.begun()
        os.kill(int(stage.lines("pids")[0]), signal.SIGSTOP)
        (context,) = worker._inflight.running.attempts.values()
        monkeypatch.setattr(context, "restart", lambda: None)  # It may not have heard it begin yet.
        context._deadline = time.monotonic()
        with pytest.raises(JobFailed):
            job.result(LONG)
        stage.wait_until(stage.gone)
    (attempt,) = stage.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("timed out", "SIGKILL")


def test_one_that_says_what_is_no_message_is_killed(stage: Stage, lines: Any) -> None:
    with stage.jobs.worker(concurrency=1, poll=0.05):
        job = stage.app.babbles.enqueue()
        with pytest.raises(JobFailed, match="crashed: SIGKILL"):
            job.result(LONG)
        stage.wait_until(stage.gone)
    assert lines(40, "sent an invalid message")


def test_a_process_that_a_handler_has_forked_has_no_say(stage: Stage, lines: Any) -> None:
    with stage.jobs.worker(concurrency=1, poll=0.05):
        assert stage.app.forks.enqueue().result(LONG) == 0
        assert stage.app.pid.enqueue().result(LONG)
    assert not lines(30, "not for the worker")


def test_the_jobs_deadline_ends_it_too(stage: Stage) -> None:
    with stage.jobs.worker(poll=0.05):
        stage.app.pid.enqueue().result(LONG)  # The child is there by now.
        job = stage.app.sleeps.options(deadline=5).enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
    assert job.record().reason == "its deadline leaves no time for another attempt"


def test_what_a_handler_has_started_ends_with_it(stage: Stage) -> None:
    with stage.jobs.worker(poll=0.05):
        job = stage.app.parent_of_others.options(timeout=3).enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
        stage.wait_until(stage.gone)
    assert stage.lines("pids")


@pytest.mark.parametrize(
    "task", ["sleeps", "stubborn", "holds_the_lock", "a_regular_expression", "waits_for_cancel"]
)
def test_a_cancelled_job_is_told_and_then_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    (term, after), (kill, at_last) = child_handle._ESCALATION
    if task == "waits_for_cancel":
        after = LONG
    if task not in ("stubborn", "holds_the_lock"):
        at_last = LONG
    monkeypatch.setattr(child_handle, "_ESCALATION", ((term, after), (kill, at_last)))
    with stage.jobs.worker(poll=0.05):
        job = stage.app.jobs.registry[task].enqueue()
        stage.begun()
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result(LONG)
        stage.wait_until(stage.gone)
    (attempt,) = stage.attempts(job)
    assert attempt.outcome == "cancelled"
    if task == "waits_for_cancel":
        assert (stage.folder / "told").exists()
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


def test_a_worker_that_stops_waiting_kills_and_gives_back(stage: Stage) -> None:
    worker = stage.jobs.worker(poll=0.05, concurrency=3)
    with worker:
        again = stage.app.sleeps.enqueue()
        once = stage.app.stubborn.enqueue()
        stage.begun(2)
        stage.wait_until(lambda: len(stage.lines("pids")) == 2)
        assert worker.stop(timeout=0.1) is False
    stage.wait_until(stage.gone)
    assert (again.state, again.record().attempt) == (State.AVAILABLE, 0)
    assert (once.state, once.record().reason) == (State.FAILED, "interrupted")


def test_a_worker_that_may_wait_lets_a_child_end(stage: Stage) -> None:
    worker = stage.jobs.worker(poll=0.05)
    with worker:
        job = stage.app.reports.enqueue()
        stage.wait_until(lambda: job.record().progress_message == "half", LONG)
        threading.Timer(0.3, lambda: stage.open_gate("reports")).start()
        assert worker.stop() is True
    assert job.state is State.SUCCEEDED


def test_a_sigterm_that_is_not_ours_does_not_end_a_job(stage: Stage) -> None:
    """A supervisor of services sends it to every process of the service."""
    with stage.jobs.worker(poll=0.05):
        job = stage.app.sleeps.enqueue()
        stage.begun()
        os.kill(int(stage.lines("pids")[0]), signal.SIGTERM)
        stage.jobs.cancel(job.id)
        with pytest.raises(JobCancelled):
            job.result(LONG)
    assert len(stage.attempts(job)) == 1 and stage.attempts(job)[0].outcome == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("task", ["sleeps", "holds_the_lock"])
def test_no_child_outlives_its_worker(stage: Stage, task: str, number: int) -> None:
    worker = stage.worker()
    job = stage.app.jobs.registry[task].enqueue()
    stage.begun()
    assert not stage.gone()
    worker.send_signal(number)
    if number == signal.SIGTERM:
        while "stopping" not in (worker.stderr.readline() or "stopping"):
            pass
        worker.send_signal(number)
    worker.wait(LONG)
    stage.wait_until(stage.gone)
    if number == signal.SIGTERM:
        assert worker.returncode == 1
        assert job.state in (State.AVAILABLE, State.FAILED)


# Deaths


@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 3"), ("kill", "SIGKILL")])
def test_a_death_is_a_crash_of_that_job_alone(stage: Stage, how: str, said: str) -> None:
    job = stage.app.dies.enqueue(how)
    with stage.jobs.worker(concurrency=2, poll=0.05):
        others = [stage.app.pid.enqueue() for _ in range(4)]
        with pytest.raises(JobFailed, match=f"crashed: {said}, peak [0-9.]+ MB"):
            job.result(LONG)
        for other in others:
            other.result(LONG)
            assert other.record().attempt == 1
    record = job.record()
    assert record.reason.startswith(f"crashed: {said}, peak ")
    assert (record.attempt, record.crashes, record.child_crashes) == (3, 3, 3), "max_crashes"
    attempts = stage.attempts(job)
    assert [attempt.outcome for attempt in attempts] == ["crashed"] * 3
    assert {attempt.exit_signal for attempt in attempts} == {None if how == "exit" else "SIGKILL"}
    assert all(10_000_000 < attempt.peak_memory < 500_000_000 for attempt in attempts)
    assert len(set(stage.lines("died"))) == 3


@pytest.mark.parametrize("and_opens", [False, True])
def test_a_handler_that_closes_what_it_did_not_open_is_a_crash_of_that_job_alone(
    stage: Stage, and_opens: bool
) -> None:
    with stage.jobs.worker(concurrency=1, poll=0.05):
        job = stage.app.closes_all_files.enqueue(and_opens)
        # It ends itself, unless the worker, whose pipe is closed, is quicker.
        with pytest.raises(JobFailed, match="crashed: (exit code 1|SIGKILL)"):
            job.result(LONG)
        assert stage.app.pid.enqueue().result(LONG), "the slot goes on"
    assert not any(file.read_text() for file in stage.folder.glob("opened-*"))


def test_what_a_handler_has_started_ends_with_its_crash(stage: Stage) -> None:
    with stage.jobs.worker(poll=0.05):
        job = stage.app.leaves_others.enqueue("crash")
        with pytest.raises(JobFailed, match="crashed: SIGKILL"):
            job.result(LONG)
        assert stage.lines("pids")
        stage.wait_until(stage.gone)


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_what_a_handler_has_started_ends_with_the_worker_however_that_ends(
    stage: Stage, how: str
) -> None:
    worker = stage.worker("-c", "2")
    stage.app.leaves_others.enqueue("stay")
    stage.begun()
    if how == "exit":
        stage.app.poison.enqueue()
        stage.open_gate("poison")
    else:
        worker.kill()
    assert worker.wait(LONG) == (7 if how == "exit" else -signal.SIGKILL)
    assert len(stage.lines("pids")) == 2
    stage.wait_until(stage.gone)


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


def test_max_crashes_is_a_setting_and_attempts_count_as_well(stage: Stage) -> None:
    many, few = (
        stage.app.dies.enqueue("exit"),
        stage.app.dies.options(max_attempts=1).enqueue("exit"),
    )
    with stage.jobs.worker(poll=0.05, max_crashes=4):
        for job in (many, few):
            with pytest.raises(JobFailed, match="crashed"):
                job.result(LONG)
    assert (many.record().attempt, few.record().attempt) == (4, 1)


def test_an_end_in_order_clears_the_crashes(stage: Stage) -> None:
    job = stage.app.dies_twice.enqueue()
    with stage.jobs.worker(poll=0.05):
        assert job.result(LONG) == "alive"
    record = job.record()
    assert (record.attempt, record.crashes, record.child_crashes) == (3, 0, 0)


def test_memory_up_to_a_limit_is_an_error_of_that_attempt(stage: Stage, hand: Any) -> None:
    job, worker = stage.app.eats.enqueue(), hand(stage.jobs)
    worker.step()
    (attempt,) = stage.attempts(job)
    assert (job.state, attempt.outcome, attempt.error.type) == (
        State.FAILED,
        "errored",
        "MemoryError",
    )
    assert attempt.peak_memory > 1_000_000


def test_the_peak_at_the_moment_of_a_death_is_recorded(stage: Stage) -> None:
    """In a worker of its own: a child's peak is known exactly where it is above its worker's."""
    job = stage.app.eats_and_dies.options(max_attempts=1).enqueue()
    stage.worker("-c", "1")
    stage.wait_until(job.done, LONG)
    (attempt,) = stage.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == ("crashed", "SIGKILL")
    assert 300_000_000 < attempt.peak_memory < 600_000_000
    assert job.record().reason.startswith("crashed: SIGKILL, peak 3")


def test_the_peak_is_the_jobs_own_and_not_that_of_the_child(stage: Stage, hand: Any) -> None:
    worker = hand(stage.jobs)
    stage.app.eats.enqueue()
    small = stage.app.signals.options(max_attempts=1).enqueue("raise")
    worker.step()
    assert stage.attempts(small)[0].peak_memory < 200_000_000


# Poison


def test_a_job_that_kills_its_worker_runs_apart_and_fails_and_bystanders_lose_nothing(
    stage: Stage,
) -> None:
    """`os._exit` in a thread takes the worker with it: once. Then it dies alone."""
    workers = [stage.worker("-c", "4")]
    bystanders = [stage.app.bystander.enqueue() for _ in range(3)]
    stage.wait_until(lambda: len(stage.lines("stood by")) == 3, LONG)
    poison = stage.app.poison.enqueue()
    stage.wait_until(lambda: stage.lines("poisoned"), LONG)
    stage.open_gate("poison")
    assert workers[0].wait(LONG) == 7
    stage.open_gate("bystander")
    survivor = stage.worker("-c", "4")
    with pytest.raises(JobFailed, match="crashed: exit code 7, peak"):
        poison.result(LONG)
    for job in bystanders:
        assert job.result(LONG) != survivor.pid, "it ran in a child, too"
        assert (job.record().attempt, job.record().crashes) == (1, 0)
        assert [one.outcome for one in stage.attempts(job)] == ["lost", "succeeded"]
    assert survivor.poll() is None, "no other worker died"
    record = poison.record()
    assert record.reason.startswith("crashed: exit code 7, peak ")
    outcomes = [attempt.outcome for attempt in stage.attempts(poison)]
    assert outcomes == ["lost", "crashed", "crashed", "crashed"]
    assert (record.attempt, record.child_crashes) == (3, 3), "the worker's own death is not charged"
    assert len(set(stage.lines("poisoned"))) == 4
    assert stage.app.quick.enqueue().result(LONG) == survivor.pid


def test_a_task_that_no_child_can_find_runs_in_a_thread_again(
    jobs: JobQueue, hand: Any, lines: Any
) -> None:
    @jobs.task
    def local() -> int:
        return os.getpid()

    job, worker = local.enqueue(), hand()
    worker.change(job.id, crashes=1)
    (outcome,) = worker.step()
    assert isinstance(outcome, Succeeded)
    assert job.result(0) == os.getpid()
    assert lines(30, "it runs in a thread again")


def test_a_child_that_cannot_import_gives_a_job_back_that_never_asked_for_it(
    stage: Stage, hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = stage.app.quick.enqueue(), hand(stage.jobs)
    worker.change(job.id, crashes=1)
    monkeypatch.setenv("ISOLATED_URL", "nonsense")  # The child's import raises.
    (outcome,) = worker.step()
    assert isinstance(outcome, Unsuccessful) and outcome.outcome == "released"
    assert (job.state, job.record().attempt, job.record().crashes) == (State.AVAILABLE, 0, 1)
    worker.step()
    assert job.result(0) == os.getpid()


def test_a_task_of_processes_that_cannot_be_imported_errors_and_says_why(
    stage: Stage, hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = stage.app.pid.enqueue(), hand(stage.jobs)
    monkeypatch.setenv("ISOLATED_URL", "nonsense")
    worker.step()
    (attempt,) = stage.attempts(job)
    assert (job.state, attempt.outcome) == (State.SCHEDULED, "errored")
    assert attempt.error.type == "ConfigurationError"
    assert job.record().reason == "its child process could not import it"


def test_a_child_that_does_not_begin_in_time_is_killed(
    stage: Stage, hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_handle, "START_TIMEOUT", -1.0)  # Its time was up before it was made.
    job, worker = stage.app.pid.enqueue(), hand(stage.jobs)
    worker.step()
    (attempt,) = stage.attempts(job)
    assert attempt.outcome == "timed out"
    assert "did not import it in time" in attempt.error.message


def test_a_child_that_is_ready_begins_nothing_until_it_is_admitted(
    stage: Stage, hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = stage.app.poison.enqueue(), hand(stage.jobs)  # It notes when it begins.
    worker.change(job.id, crashes=1)
    stage.open_gate("poison")
    admitted, asked = ChildAdmission.begin, []

    def begin(admission: ChildAdmission) -> bool:
        asked.append(stage.lines("poisoned"))
        return len(asked) > 3 and admitted(admission)

    monkeypatch.setattr(ChildAdmission, "begin", begin)
    worker.step()
    assert asked == [[]] * 4
    assert len(stage.lines("poisoned")) == 1


def test_an_idle_child_is_ended_and_another_one_made_when_needed(stage: Stage) -> None:
    with stage.jobs.worker(poll=0.05, concurrency=1) as worker:
        first = stage.app.pid.enqueue().result(LONG)
        stage.wait_until(lambda: worker.running == 0)
        worker._assembly.process_pool.end_idle_children(after=-1)
        assert process_started(first) is None
        assert stage.app.pid.enqueue().result(LONG) != first


# What must not cost a slot


def test_a_job_waits_uncharged_while_no_process_can_be_started(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    errors = [OSError(errno.EAGAIN, "none left"), OSError(errno.ENOMEM, "no memory")]
    start = child_handle._start

    def start_at_last(descriptor: int) -> Any:
        if errors:
            raise errors.pop()
        return start(descriptor)

    monkeypatch.setattr(child_handle, "_start", start_at_last)
    job = stage.app.pid.options(max_attempts=1).enqueue()
    with stage.jobs.worker(concurrency=1, poll=0.05):
        assert job.result(LONG) != os.getpid()
    assert errors == [] and job.record().attempt == 1
    assert [one.outcome for one in stage.attempts(job)][-1] == "succeeded"
    assert lines(30, "no child process could be started: [Errno 12] no memory")
    assert lines(40) == []


def test_a_failed_start_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[socket.socket] = []
    make_pair = socket.socketpair

    def pair() -> tuple[socket.socket, socket.socket]:
        ends.extend(pair := make_pair())
        return pair

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EAGAIN, "none left")

    monkeypatch.setattr(socket, "socketpair", pair)
    monkeypatch.setattr(child_handle, "_start", fail)
    with pytest.raises(OSError, match="none left"):
        child_handle.ChildHandle({})
    assert ends and all(end.fileno() == -1 for end in ends)


def test_a_filter_of_the_programs_that_raises_costs_a_line_and_no_slot(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_record: logging.LogRecord) -> bool:
        raise RuntimeError("a filter's own fault")

    monkeypatch.setattr(logging.getLogger("jobqueue.app"), "filters", [refuse])
    stage.open_gate("reports")
    with stage.jobs.worker(concurrency=1, poll=0.05):
        assert stage.app.reports.enqueue().result(LONG) is None
        assert stage.app.pid.enqueue().result(LONG)


@pytest.mark.parametrize("fault", [RuntimeError("ours"), KeyboardInterrupt()])
def test_a_fault_of_ours_ends_that_job_and_its_child_and_frees_the_slot(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    faults = [fault]

    def fail(_context: object, message: dict[str, Any]) -> None:
        if "begun" in message and faults:
            raise faults.pop()

    monkeypatch.setattr(child_handle.RemoteAttempt, "handle_message", fail)
    with stage.jobs.worker(concurrency=1, poll=0.05):
        job = stage.app.stubborn.enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
        assert stage.app.pid.enqueue().result(LONG)
        stage.wait_until(stage.gone)


# What is refused


def test_a_task_within_a_function_cannot_be_isolated(jobs: JobQueue) -> None:
    with pytest.raises(ConfigurationError, match="isolation"):

        @jobs.task(isolation="process")
        def local() -> None: ...


def test_a_worker_does_not_start_with_a_task_that_no_child_can_find(stage: Stage) -> None:
    def hidden() -> None: ...

    hidden.__qualname__ = hidden.__name__ = "hidden"
    hidden.__module__ = "isolated_app"
    stage.jobs.task(isolation="process")(hidden)
    with pytest.raises(ConfigurationError, match="no name at the top level of 'isolated_app'"):
        stage.jobs.worker().start()


def test_isolation_is_one_of_two_and_the_tasks_own(stage: Stage) -> None:
    with pytest.raises(InvalidOption, match="isolation: 'fork' is none of thread, process"):
        stage.jobs.task(isolation="fork")(len)
    with pytest.raises(InvalidOption, match="belongs to the task"):
        stage.app.quick.options(isolation="process")


# A main module is never run again

PROGRAM = """
import os, sys
from pathlib import Path
from sqlalchemy import text
from jobqueue import JobQueue

jobs = JobQueue()
with Path("top-level").open("a") as file:
    file.write(f"{os.getpid()}\\n")

def connect():
    return jobs.store.engine.begin()
"""
ISOLATED = """
@jobs.task(isolation="process")
def where() -> int:
    return os.getpid()
"""
RUN = """
with jobs.worker(poll=0.05):
    print(where.enqueue().result(30))
"""
AFTER_A_CRASH = """
@jobs.task
def where() -> int:
    return os.getpid()

@jobs.task
async def awhere() -> int:
    return os.getpid()

handles = [where.enqueue(), awhere.enqueue()]
with connect() as connection:
    connection.execute(text("UPDATE jobqueue_jobs SET crashes = 1"))
with jobs.worker(poll=0.05):
    print([handle.result(30) == os.getpid() for handle in handles])
"""
LATE = """
with jobs.worker(poll=0.05):
    @jobs.task(isolation="process", max_attempts=1)
    def where() -> int:
        return os.getpid()

    try:
        print(where.enqueue().result(60))
    except Exception as error:
        print(error)
"""


class Program:
    """A program of a user's, which notes how often its main module is run."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._url = url
        with JobQueue(url) as queue:
            queue.store.require_schema()

    def run(self, source: str, *, as_module: bool = False) -> "subprocess.CompletedProcess[str]":
        package = self.folder / "package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "program.py").write_text(PROGRAM + source)
        arguments = ["-m", "package.program"] if as_module else ["package/program.py"]
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[2]), "JOBQUEUE_URL": self._url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def runs(self) -> int:
        return len((self.folder / "top-level").read_text().splitlines())


@pytest.fixture
def program(url: str, tmp_path: Path) -> Program:
    return Program(url, tmp_path)


@pytest.mark.parametrize("as_module", [False, True])
def test_a_worker_does_not_start_with_an_isolated_task_of_the_main_module(
    program: Program, as_module: bool
) -> None:
    done = program.run(ISOLATED + RUN, as_module=as_module)
    assert (done.returncode, done.stdout, program.runs) == (1, "", 1)
    assert done.stderr.splitlines()[-1] == (
        "jobqueue.errors.ConfigurationError: task 'where' has isolation=\"process\", but a child "
        "process could not import it: it is defined in the program's main module, which is not run "
        "a second time; define it at the top level of a module that the program imports"
    )


def test_a_program_that_only_enqueues_such_a_task_goes_on(program: Program) -> None:
    done = program.run(ISOLATED + "print(where.enqueue().record().state)")
    assert (done.returncode, done.stdout, program.runs) == (0, "available\n", 1), done.stderr


@pytest.mark.parametrize("as_module", [False, True])
def test_a_task_of_the_main_module_runs_in_its_usual_place_after_a_crash(
    program: Program, as_module: bool
) -> None:
    done = program.run(AFTER_A_CRASH, as_module=as_module)
    assert (done.returncode, done.stdout, program.runs) == (0, "[True, True]\n", 1), done.stderr
    assert "as it is defined in the program's main module" in done.stderr


def test_an_isolated_task_that_the_main_module_adds_later_errors_and_is_not_run(
    program: Program,
) -> None:
    done = program.run(LATE)
    assert "it is defined in the program's main module" in done.stdout, done.stderr
    assert program.runs == 1


def test_a_child_that_has_just_been_started_does_not_die_of_a_signal_to_all() -> None:
    """Until it can ignore SIGTERM the signal waits: a job that has not begun would be charged."""
    ours, theirs = socket.socketpair()
    process = child_handle._start(theirs.fileno())
    os.kill(process.pid, signal.SIGTERM)
    theirs.close()
    ours.close()
    assert process.wait(60) != -signal.SIGTERM


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_a_main_module_is_found_by_no_child_under_either_name(module: str) -> None:
    assert unreachable_reason(TaskRef("task", None, module, "task")) == IN_MAIN
