"""The line: what happens to outcomes when the database is away, refuses one, or does not answer."""

from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.exc import OperationalError

from jobqueue import JobQueue, State, current_job
from jobqueue.records import AttemptError, Succeeded, Unsuccessful
from jobqueue.worker.handler.context import Attempt
from tests.worker.conftest import Stepped

WARNING, ERROR = 30, 40


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task(max_attempts=3)
    def work(text: str = "fine") -> str:
        if text == "errors":
            raise ValueError("no")
        return text

    return work


class DatabaseAway(Exception):
    """What a driver raises."""

    sqlstate = "08006"
    sqlite_errorname = "SQLITE_BUSY"


def away() -> OperationalError:
    return OperationalError("COMMIT", {}, DatabaseAway("the connection was lost"))


def break_commit(worker: Any, *, after_commit: bool, times: int = 1) -> list[int]:
    """Let the next transactions of the line's store fail, before or after they are committed."""
    store, breaks = worker.store, [0]
    write = store.write

    @contextmanager
    def broken() -> Any:
        with write() as connection:
            yield connection
            if breaks[0] < times and not after_commit:
                breaks[0] += 1
                raise away()
        if breaks[0] < times:
            breaks[0] += 1
            raise away()

    store.write = broken
    return breaks


def finish_all(worker: Any) -> None:
    """Write outcomes down as the thread does, with its rounds that fail."""
    worker.planner.closed = True
    for _ in range(20):
        worker.parts.completer.round()
        if not worker.inflight.outbox.qsize() and not worker.writer.batch:
            break
    worker.planner.closed = False


def refuse_poison(worker: Any) -> None:
    """Make the database itself refuse one content."""
    if worker.store.backend.name == "sqlite":
        worker.execute_sql(
            """CREATE TRIGGER refuse BEFORE UPDATE ON jobqueue_jobs
               WHEN NEW.result LIKE '%poison%' OR NEW.reason LIKE '%poison%'
               BEGIN SELECT RAISE(ABORT, 'poison'); END""",
            """CREATE TRIGGER refuse_attempt BEFORE INSERT ON jobqueue_attempts
               WHEN NEW.error_message LIKE '%poison%'
               BEGIN SELECT RAISE(ABORT, 'poison'); END""",
        )
        return
    worker.execute_sql(
        "ALTER TABLE jobqueue_jobs ADD CONSTRAINT refuse"
        " CHECK (coalesce(result, '') || coalesce(reason, '') NOT LIKE '%poison%')",
        "ALTER TABLE jobqueue_attempts ADD CONSTRAINT refuse"
        " CHECK (coalesce(error_message, '') NOT LIKE '%poison%')",
    )


# The database is away


def test_the_same_batch_is_offered_again_after_the_database_was_away(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handles = [work.enqueue(str(n)) for n in range(3)] + [work.enqueue("errors")]
    worker = stepped()
    worker.claim()
    worker.execute()
    breaks = break_commit(worker, after_commit=False, times=3)
    finish_all(worker)
    assert breaks == [3]
    assert [handle.result(0) for handle in handles[:3]] == ["0", "1", "2"]
    assert worker.attempts(handles[3].id) == [(1, "errored", "ValueError")]
    assert worker.counted("runs") == 4
    assert worker.inflight.held == {}
    assert (worker.inflight.processed, worker.inflight.errored) == (4, 1)


def test_outcomes_that_come_while_the_database_is_away_join_the_next_batch(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handles = [work.enqueue(str(n)) for n in range(4)]
    worker = stepped()
    worker.claim()
    worker.execute()
    late = [worker.inflight.outbox.get() for _ in range(4)]
    break_commit(worker, after_commit=False, times=2)
    for outcome in late:
        worker.inflight.outbox.put(outcome)
        worker.planner.closed = True
        worker.parts.completer.round()
    finish_all(worker)
    assert [handle.result(0) for handle in handles] == ["0", "1", "2", "3"]
    assert worker.counted("succeeded") == 4


def test_a_commit_whose_answer_was_lost_counts_once_and_is_accepted(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any
) -> None:
    heard: list[int] = []
    jobs.on("succeeded", lambda event: heard.append(event.job))
    succeeded, failed = work.enqueue(), work.options(max_attempts=1).enqueue("errors")
    worker = stepped()
    worker.claim()
    worker.execute()
    breaks = break_commit(worker, after_commit=True)
    finish_all(worker)
    assert breaks == [1]
    assert (succeeded.state, failed.state) == (State.SUCCEEDED, State.FAILED)
    assert worker.counted("succeeded") == 1
    assert worker.counted("failed") == 1
    assert worker.counted("errored_attempts") == 1
    assert worker.counted("runs") == 2
    assert worker.attempts(failed.id) == [(1, "errored", "ValueError")]
    assert worker.inflight.held == {}
    assert lines(ERROR, "was lost") == []
    worker.announce()
    assert heard == [succeeded.id]


def test_a_claim_whose_commit_was_not_answered_is_run_after_all(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    """Else its job would be `running` for as long as this worker lives, and nobody would run it."""
    handle = work.enqueue()
    worker = stepped()
    break_commit(worker, after_commit=True)
    worker.cursors._rescanned_at = float("-inf")
    worker.parts.claimer.round()
    assert worker.inbox() == []
    assert handle.state is not State.SUCCEEDED
    for _ in range(5):
        worker.heartbeat._beat_at = float("-inf")
        worker.heartbeat.round()
        worker.step()
    assert handle.state is State.SUCCEEDED
    assert worker.row(handle.id).attempt == 1


def ring(worker: Any, work: Any, monkeypatch: pytest.MonkeyPatch, alone: Any) -> Any:
    """A job that is announced to a worker, whose statement alone then runs as given."""
    work.enqueue()
    worker.step()
    assert worker.claim() == []
    handle = work.enqueue()
    worker.planner.hint_work(announced=True)
    monkeypatch.setattr(worker.store, "execute_autocommit", alone)
    worker.parts.claimer.round()
    monkeypatch.undo()
    return handle


def test_an_announced_job_whose_claim_was_not_answered_is_run_after_all(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    really = worker.store.execute_autocommit

    def broken(*given: Any) -> Any:
        assert len(really(*given)) == 1
        raise away()

    handle = ring(worker, work, monkeypatch, broken)
    assert worker.inbox() == []
    assert handle.state is State.RUNNING
    assert worker.planner.commit_unknown
    for _ in range(3):
        worker.step()
    assert handle.state is State.SUCCEEDED
    assert worker.row(handle.id).attempt == 1


def test_an_announced_job_whose_claim_failed_is_claimed_by_a_transaction(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    handle = ring(worker, work, monkeypatch, lambda *_: None)
    assert [claim.id for claim in worker.inbox()] == [handle.id]


def test_a_worker_that_was_told_to_stop_claims_no_announced_job(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    wanted = worker.planner.wanted

    def closing() -> int:
        count = wanted()
        worker.planner.closed = True
        return count

    monkeypatch.setattr(worker.planner, "wanted", closing)
    work.enqueue()
    worker.cursors._last_queue = "default"
    worker.planner.hint_work(announced=True)
    worker.parts.claimer.round()
    assert worker.inbox() == []
    assert not worker.planner.commit_unknown


def test_a_claim_whose_transaction_failed_is_claimed_again(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handles = [work.enqueue() for _ in range(3)]
    worker = stepped()
    break_commit(worker, after_commit=False)
    worker.cursors._rescanned_at = float("-inf")
    worker.parts.claimer.round()
    assert worker.inbox() == []
    worker.step()
    assert [worker.row(handle.id).attempt for handle in handles] == [1, 1, 1]
    assert [handle.state for handle in handles] == [State.SUCCEEDED] * 3


# The database refuses


def test_an_outcome_whose_content_the_database_refuses_holds_up_no_other(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any
) -> None:
    handles = [work.enqueue(text) for text in ("a", "poison", "b", "errors", "errors")]
    worker = stepped(concurrency=8)
    refuse_poison(worker)
    worker.claim()
    worker.execute()
    for outcome in worker.outbox():
        worker.inflight.outbox.get()
        if outcome.claim.id == handles[4].id:
            error = AttemptError("ValueError", "poison", "Traceback …")
            outcome = replace(outcome, error=error, reason="poison")
        worker.inflight.outbox.put(outcome)
    finish_all(worker)
    states = [handle.state for handle in handles]
    done, later = State.SUCCEEDED, State.SCHEDULED
    assert states == [done, done, done, later, later]
    bare = worker.row(handles[1].id)
    assert bare.result is None
    assert "could not be stored" in str(bare.reason)
    assert worker.attempts(handles[3].id) == [(1, "errored", "ValueError")]
    assert worker.attempts(handles[4].id) == [(1, "errored", "Unstorable")]
    assert worker.inflight.held == {}
    assert worker.counted("runs") == 5
    assert worker.counted("succeeded") == 3
    assert len(lines(ERROR, "could not be stored")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "a\ud800b",
    ],
)
def test_text_that_cannot_be_stored_holds_up_no_other(
    work: Any, jobs: JobQueue, stepped: Stepped, text: str
) -> None:
    """Both are cleaned away before; this is what would happen if one came through."""
    good, bad = work.enqueue("fine"), work.enqueue("bad")
    worker = stepped()
    worker.claim()
    worker.execute()
    for outcome in worker.outbox():
        worker.inflight.outbox.get()
        if outcome.claim.id == bad.id:
            error = AttemptError("ValueError", text, text)
            outcome = Unsuccessful(
                outcome.claim, "errored", State.FAILED, error=error, duration=0.1
            )
        worker.inflight.outbox.put(outcome)
    finish_all(worker)
    assert good.result(0) == "fine"
    assert bad.state is State.FAILED
    assert worker.inflight.held == {}


def test_two_attempts_of_one_job_that_end_together_are_not_both_accepted(
    work: Any, stepped: Stepped, lines: Any
) -> None:
    """After a lost lease, two of them may run in one worker."""
    handle = work.enqueue("twice")
    worker = stepped()
    worker.claim()
    (old,) = worker.execute()
    worker.execute_sql("DELETE FROM jobqueue_workers")
    worker.heartbeat._beat(worker.inflight.lease.worker)
    worker.heartbeat._leases.reap()
    worker.inflight.outbox.get_nowait()
    worker.claim()
    (new,) = worker.execute()
    worker.inflight.outbox.get_nowait()
    assert old.claim.fence < new.claim.fence
    for outcome in (old, new):
        worker.inflight.outbox.put(outcome)
    finish_all(worker)
    assert handle.state is State.SUCCEEDED
    assert worker.counted("succeeded") == 1
    assert len(lines(ERROR, "was lost")) == 1


def test_a_refused_claim_is_logged_as_lost_and_let_go(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any
) -> None:
    handles = [work.enqueue(), work.enqueue("errors"), work.enqueue("mine")]
    worker = stepped()
    claims = worker.claim()
    for claim in claims[:2]:
        worker.change(claim.id, fence=claim.fence + 1)  # as a reaper does
    worker.execute()
    worker.complete()
    assert [handle.state for handle in handles] == [
        State.RUNNING,
        State.RUNNING,
        State.SUCCEEDED,
    ]
    assert len(lines(ERROR, "was lost; its outcome was refused")) == 2
    assert worker.inflight.held == {}
    assert worker.counted("runs") == 1
    assert worker.attempts(handles[1].id) == [(1, "running", None)]


# Two outcomes of one claim


def test_what_a_handler_ends_with_after_its_job_was_given_back_is_dropped(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    """At a stop: the job is given back, and then its handler ends after all."""
    handle = work.enqueue()
    worker = stepped()
    (claim,) = worker.claim()
    worker.inflight.inbox.get()
    context = Attempt(claim, None, str)  # type: ignore[arg-type]
    worker.inflight.begin(context)
    assert worker.inflight.detach_all() == [claim]
    assert context.stop_reason
    worker.inflight.end(context, Succeeded(claim, "1", None, 1.0, 0.0))
    finish_all(worker)
    assert handle.state is State.AVAILABLE
    assert worker.row(claim.id).attempt == 0
    assert worker.counted("succeeded") == 0


@pytest.mark.databases("postgres")
def test_a_completion_wakes_the_claimer_that_may_wait_for_a_shorter_outbox(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    work.enqueue()
    worker = stepped()
    worker.claim()
    worker.execute()
    wakeup = worker.parts.claimer._wakeup
    wakeup.clear()
    worker.complete()
    assert wakeup.is_set()


# Events


def test_events_are_told_after_the_commit_and_only_to_who_wants_them(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    heard: list[tuple[str, int]] = []
    worker = stepped(concurrency=8)
    for name in ("succeeded", "failed", "errored", "cancelled"):

        @lambda function, name=name: jobs.on(name, function)  # type: ignore[misc]
        def subscriber(event: Any, name: str = name) -> None:
            assert event.name == name
            final = event.name if name != "errored" else worker.state(event.job)
            assert worker.state(event.job) == final
            heard.append((event.name, event.job))

    good, again, last = work.enqueue(), work.enqueue("errors"), None
    last = work.options(max_attempts=1).enqueue("errors")
    worker.claim()
    worker.execute()
    worker.announce()
    assert heard == []
    worker.complete()
    worker.announce()
    assert sorted(heard) == sorted(
        [
            ("succeeded", good.id),
            ("errored", again.id),
            ("errored", last.id),
            ("failed", last.id),
        ]
    )


@pytest.mark.parametrize("other", ["lost", "cancelled", "committed"])
def test_an_outcome_other_than_success_is_told_of_among_successes(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any, other: str
) -> None:
    heard: list[int] = []
    jobs.on("cancelled", lambda event: heard.append(event.job))
    worker = stepped()

    @jobs.task
    def commit() -> None:
        with worker.store.write() as connection:
            current_job().finish_within(connection)
        raise ValueError("afterwards")

    one, _ = (commit if other == "committed" else work).enqueue(), work.enqueue()
    (claim, _) = worker.claim()
    worker.execute()
    if other == "lost":
        worker.change(one.id, fence=claim.fence + 5)
    if other == "cancelled":
        jobs.cancel(one.id)
    worker.complete()
    worker.announce()
    assert len(lines(ERROR, "was lost")) == (other == "lost")
    assert heard == [one.id] * (other == "cancelled")
    assert len(lines(WARNING, "raised after its success")) == (other == "committed")


def test_logs_name_ids_and_tasks_and_never_arguments(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any
) -> None:
    retried = work.enqueue("errors")
    failed = work.options(max_attempts=1).enqueue("errors")
    worker = stepped()
    worker.step()
    (warning,) = lines(WARNING, "errored, again in")
    assert f"job {retried.id} (work): attempt 1 of 3 errored, again in " in warning
    (error,) = lines(ERROR, "failed")
    assert error == f"job {failed.id} (work) failed, attempt 1 of 1: ValueError: no"
    assert not lines(part="errors")


@pytest.mark.parametrize("subscribed", [False, True])
def test_each_success_is_a_line_at_debug_and_nothing_at_info(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any, caplog: Any, subscribed: bool
) -> None:
    if subscribed:
        jobs.on("succeeded", lambda event: None)
    handles = [work.enqueue(), work.enqueue()]
    worker = stepped()
    worker.step()
    told = [record for record in caplog.records if "succeeded" in record.getMessage()]
    assert [record.job for record in told] == [handle.id for handle in handles]
    for record in told:
        fields = (record.levelname, record.event, record.task, record.queue, record.attempt)
        assert fields == ("DEBUG", "succeeded", "work", "default", 1)
        said = f"job {record.job} (work) succeeded, attempt 1 of 3, in {record.duration:.3f} s"
        assert record.getMessage() == said
    caplog.clear()
    caplog.set_level("INFO", "jobqueue")
    work.enqueue()
    worker.step()
    assert not lines(part="succeeded")
