"""Child processes: jobs that can be killed, what they may know and say, and how their deaths are recorded."""

import errno
import logging
import os
import socket
from typing import Any

import pytest
from sqlalchemy import select

from jobqueue import JobFailed, JobQueue, State
from jobqueue.errors import ConfigurationError, InvalidOption
from jobqueue.records import Succeeded, Unsuccessful
from jobqueue.worker.isolate.remote_attempt import RemoteAttempt
from jobqueue.worker.isolate import child_handle
from jobqueue.worker.process_identity import process_started
from tests.worker.isolate.conftest import LONG, IsolationScenario
from tests.worker.conftest import Stepped

pytestmark = pytest.mark.databases("sqlite")

# What a child does


def test_a_job_runs_in_a_child_that_is_kept_for_the_next(scenario: IsolationScenario) -> None:
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        first, second = scenario.app.pid.enqueue(), scenario.app.pid.enqueue()
        assert first.result(LONG) == second.result(LONG) != os.getpid()
        assert scenario.app.quick.enqueue().result(LONG) == os.getpid()
        assert scenario.app.echo.enqueue({"a": 1}).result(LONG) == {"a": 1}
        assert scenario.app.acoroutine.enqueue().result(LONG) == first.result(0)
    assert process_started(first.result(0)) is None, "it has ended with its worker"
    assert scenario.lines("middleware") == [str(first.result(0))] * 2


def test_current_job_works_in_a_child(scenario: IsolationScenario) -> None:
    with scenario.jobs.worker(poll=0.05):
        job = scenario.app.facts.options(headers={"tenant": "7"}).enqueue()
        facts = job.result(LONG)
        enqueued = scenario.app.enqueues.enqueue().result(LONG)
        assert scenario.jobs.get(enqueued).result(LONG) != os.getpid()
    assert (facts["id"], facts["attempt"], facts["max_attempts"]) == (job.id, 1, 7)
    assert (facts["fence"], facts["cancelled"]) == (1, False)
    assert facts["headers"] == {"tenant": "7"}
    assert 55 < facts["remaining"] <= 60 and facts["deadline"]


def test_progress_and_logs_come_from_a_child(scenario: IsolationScenario, lines: Any) -> None:
    with scenario.jobs.worker(poll=0.05):
        job = scenario.app.reports.enqueue()
        scenario.wait_until(lambda: job.record().progress_message == "half", LONG)
        scenario.open_gate("reports")
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
    scenario: IsolationScenario, stepped: Stepped, what: str, state: State, outcome: str
) -> None:
    job = scenario.app.signals.enqueue(what)
    worker = stepped(scenario.jobs)
    worker.step()
    record = job.record()
    assert record.state is state
    (attempt,) = scenario.attempts(job)
    assert (attempt.outcome, attempt.exit_signal) == (outcome, None)
    if what == "exit":
        assert attempt.error.type == "SystemExit"
    if what == "raise":
        assert attempt.error.traceback.split('"')[1].endswith("isolated_app.py"), "it begins there"
        assert attempt.peak_memory > 1_000_000
    assert record.attempt == (0 if what == "snooze" else 1)


def test_a_coroutine_that_a_plain_task_returns_is_an_error_as_in_a_thread(
    scenario: IsolationScenario, stepped: Stepped
) -> None:
    job, worker = scenario.app.forgets_to_await.enqueue(), stepped(scenario.jobs)
    worker.step()
    assert job.state is State.FAILED
    assert "a coroutine that nobody awaits" in scenario.attempts(job)[0].error.message


def test_a_coroutine_that_a_wrapper_of_an_async_def_returns_is_awaited(
    scenario: IsolationScenario, stepped: Stepped
) -> None:
    job, worker = scenario.app.wrapped_coroutine.enqueue(), stepped(scenario.jobs)
    worker.step()
    assert job.result(timeout=5) != os.getpid()


def test_arguments_that_no_longer_fit_fail_at_once(
    scenario: IsolationScenario, stepped: Stepped
) -> None:
    job, worker = scenario.app.echo.enqueue({}), stepped(scenario.jobs)
    worker.change(job.id, args='{"args":["text"],"kwargs":{}}')
    worker.step()
    assert job.state is State.FAILED
    assert scenario.attempts(job)[0].outcome == "refused"


@pytest.mark.databases("sqlite", "postgres")
@pytest.mark.parametrize("then", ["", "dies before", "dies after"])
def test_effects_in_the_database_are_exactly_once_in_a_child(
    scenario: IsolationScenario, then: str
) -> None:
    scenario.app.PAYMENTS.create(scenario.jobs.store.engine)
    job = scenario.app.pays.enqueue(then)
    with scenario.jobs.worker(poll=0.05):
        assert job.result(LONG) == "paid"
        scenario.wait_until(lambda: not scenario.jobs.store or job.state is State.SUCCEEDED)
    with scenario.jobs.store.read() as connection:
        rows = connection.execute(select(scenario.app.PAYMENTS)).all()
    assert rows == [(job.id, job.record().fence - 1)]
    assert job.record().attempt == (2 if then == "dies before" else 1)


# Poison


@pytest.mark.databases("sqlite", "postgres")
def test_a_job_that_kills_its_worker_runs_apart_and_fails_and_bystanders_lose_nothing(
    scenario: IsolationScenario,
) -> None:
    """`os._exit` in a thread takes the worker with it: once. Then it dies alone."""
    workers = [scenario.worker("-c", "4")]
    bystanders = [scenario.app.bystander.enqueue() for _ in range(3)]
    scenario.wait_until(lambda: len(scenario.lines("stood by")) == 3, LONG)
    poison = scenario.app.poison.enqueue()
    scenario.wait_until(lambda: scenario.lines("poisoned"), LONG)
    scenario.open_gate("poison")
    assert workers[0].wait(LONG) == 7
    scenario.open_gate("bystander")
    survivor = scenario.worker("-c", "4")
    with pytest.raises(JobFailed, match="crashed: exit code 7, peak"):
        poison.result(LONG)
    for job in bystanders:
        assert job.result(LONG) != survivor.pid, "it ran in a child, too"
        assert (job.record().attempt, job.record().crashes) == (1, 0)
        assert [one.outcome for one in scenario.attempts(job)] == ["lost", "succeeded"]
    assert survivor.poll() is None, "no other worker died"
    record = poison.record()
    assert record.reason.startswith("crashed: exit code 7, peak ")
    outcomes = [attempt.outcome for attempt in scenario.attempts(poison)]
    assert outcomes == ["lost", "crashed", "crashed", "crashed"]
    assert (record.attempt, record.child_crashes) == (3, 3), "the worker's own death is not charged"
    assert len(set(scenario.lines("poisoned"))) == 4
    assert scenario.app.quick.enqueue().result(LONG) == survivor.pid


def test_a_task_that_no_child_can_find_runs_in_a_thread_again(
    jobs: JobQueue, stepped: Stepped, lines: Any
) -> None:
    @jobs.task
    def local() -> int:
        return os.getpid()

    job, worker = local.enqueue(), stepped()
    worker.change(job.id, crashes=1)
    (outcome,) = worker.step()
    assert isinstance(outcome, Succeeded)
    assert job.result(0) == os.getpid()
    assert lines(30, "it runs in a thread again")


def test_a_child_that_cannot_import_gives_a_job_back_that_never_asked_for_it(
    scenario: IsolationScenario, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = scenario.app.quick.enqueue(), stepped(scenario.jobs)
    worker.change(job.id, crashes=1)
    monkeypatch.setenv("ISOLATED_URL", "nonsense")  # The child's import raises.
    (outcome,) = worker.step()
    assert isinstance(outcome, Unsuccessful) and outcome.outcome == "released"
    assert (job.state, job.record().attempt, job.record().crashes) == (State.AVAILABLE, 0, 1)
    worker.step()
    assert job.result(0) == os.getpid()


def test_a_task_of_processes_that_cannot_be_imported_errors_and_says_why(
    scenario: IsolationScenario, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = scenario.app.pid.enqueue(), stepped(scenario.jobs)
    monkeypatch.setenv("ISOLATED_URL", "nonsense")
    worker.step()
    (attempt,) = scenario.attempts(job)
    assert (job.state, attempt.outcome) == (State.SCHEDULED, "errored")
    assert attempt.error.type == "jobqueue.errors.ConfigurationError"
    assert job.record().reason == "its child process could not import it"


def test_a_child_that_does_not_begin_in_time_is_killed(
    scenario: IsolationScenario, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_handle, "START_TIMEOUT", -1.0)  # Its time was up before it was made.
    job, worker = scenario.app.pid.enqueue(), stepped(scenario.jobs)
    worker.step()
    (attempt,) = scenario.attempts(job)
    assert attempt.outcome == "timed out"
    assert "did not import it in time" in attempt.error.message


def test_a_child_that_is_ready_begins_nothing_until_it_is_admitted(
    scenario: IsolationScenario, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = scenario.app.poison.enqueue(), stepped(scenario.jobs)  # It notes when it begins.
    worker.change(job.id, crashes=1)
    scenario.open_gate("poison")
    admitted, asked = RemoteAttempt.begin, []

    def begin(admission: RemoteAttempt) -> bool:
        asked.append(scenario.lines("poisoned"))
        return len(asked) > 3 and admitted(admission)

    monkeypatch.setattr(RemoteAttempt, "begin", begin)
    worker.step()
    assert asked == [[]] * 4
    assert len(scenario.lines("poisoned")) == 1


def test_an_idle_child_is_ended_and_another_one_made_when_needed(
    scenario: IsolationScenario,
) -> None:
    with scenario.jobs.worker(poll=0.05, concurrency=1) as worker:
        first = scenario.app.pid.enqueue().result(LONG)
        scenario.wait_until(lambda: worker.running == 0)
        worker._assembly.process_pool.end_idle_children(after=-1)
        assert process_started(first) is None
        assert scenario.app.pid.enqueue().result(LONG) != first


# What must not cost a slot


def test_a_job_waits_uncharged_while_no_process_can_be_started(
    scenario: IsolationScenario, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    errors = [OSError(errno.EAGAIN, "none left"), OSError(errno.ENOMEM, "no memory")]
    start = child_handle._start

    def start_at_last(descriptor: int) -> Any:
        if errors:
            raise errors.pop()
        return start(descriptor)

    monkeypatch.setattr(child_handle, "_start", start_at_last)
    job = scenario.app.pid.options(max_attempts=1).enqueue()
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        assert job.result(LONG) != os.getpid()
    assert errors == [] and job.record().attempt == 1
    assert [one.outcome for one in scenario.attempts(job)][-1] == "succeeded"
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
    scenario: IsolationScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_record: logging.LogRecord) -> bool:
        raise RuntimeError("a filter's own fault")

    monkeypatch.setattr(logging.getLogger("jobqueue.app"), "filters", [refuse])
    scenario.open_gate("reports")
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        assert scenario.app.reports.enqueue().result(LONG) is None
        assert scenario.app.pid.enqueue().result(LONG)


@pytest.mark.parametrize("fault", [RuntimeError("ours"), KeyboardInterrupt()])
def test_a_fault_of_ours_ends_that_job_and_its_child_and_frees_the_slot(
    scenario: IsolationScenario, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    faults = [fault]

    def fail(_context: object, message: dict[str, Any]) -> None:
        if "begun" in message and faults:
            raise faults.pop()

    monkeypatch.setattr(RemoteAttempt, "handle_message", fail)
    with scenario.jobs.worker(concurrency=1, poll=0.05):
        job = scenario.app.stubborn.enqueue()
        with pytest.raises(JobFailed):
            job.result(LONG)
        assert scenario.app.pid.enqueue().result(LONG)
        scenario.wait_until(scenario.gone)


# What is refused


def test_a_task_within_a_function_cannot_be_isolated(jobs: JobQueue) -> None:
    with pytest.raises(ConfigurationError, match="isolation"):

        @jobs.task(isolation="process")
        def local() -> None: ...


def test_a_worker_does_not_start_with_a_task_that_no_child_can_find(
    scenario: IsolationScenario,
) -> None:
    def hidden() -> None: ...

    hidden.__qualname__ = hidden.__name__ = "hidden"
    hidden.__module__ = "isolated_app"
    scenario.jobs.task(isolation="process")(hidden)
    with pytest.raises(ConfigurationError, match="no name at the top level of 'isolated_app'"):
        scenario.jobs.worker().start()


def test_isolation_is_one_of_two_and_the_tasks_own(scenario: IsolationScenario) -> None:
    with pytest.raises(InvalidOption, match="isolation: 'fork' is none of thread, process"):
        scenario.jobs.task(isolation="fork")(len)
    with pytest.raises(InvalidOption, match="belongs to the task"):
        scenario.app.quick.options(isolation="process")
