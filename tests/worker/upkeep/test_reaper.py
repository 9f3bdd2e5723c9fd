"""The reaper: judges by what it has watched itself, on a clock that is told."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobqueue import JobFailed, JobQueue, State
from jobqueue.records import AttemptError, Unsuccessful
from jobqueue.store.sql.leases import REFUNDS_MAX
from jobqueue.worker import process_identity
from jobqueue.worker.handler.outcomes import released
from jobqueue.worker.upkeep.reaper import Reaper
from tests.worker.conftest import Stepped

WARNING, ERROR = 30, 40


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task
    def work() -> int:
        return 1

    return work


def watch(worker: Any, clock: Any, seconds: float, *, step: float = 1.0) -> None:
    """Let a worker's reaper make its rounds for so long."""
    reaper = worker.service(Reaper)
    for _ in range(round(seconds / step)):
        clock.pass_(step)
        worker.heartbeat.tick()
        reaper.tick()


def leases(worker: Any, verb: str) -> Any:
    """What its reaper uses for that."""
    return worker.parts.shared_poll._leases if verb == "poll" else worker.service(Reaper)._leases


def refuse(worker: Any, verb: str) -> None:
    """Let a verb of its reaper's leases fail."""

    def refuse(*_: Any) -> Any:
        raise OperationalError(verb, {}, Exception("no database"))

    setattr(leases(worker, verb), verb, refuse)


def count(worker: Any, verb: str) -> list[Any]:
    """Calls of a verb of its reaper's leases, from now on; it works, whatever it did before."""
    its, calls = leases(worker, verb), []

    def counted(*given: Any) -> Any:
        calls.append(given)
        return getattr(type(its), verb)(its, *given)

    setattr(its, verb, counted)
    return calls


def abroad(worker: Any, **changes: Any) -> None:
    """Make every other worker's row look as if it was of another host."""
    own = worker.inflight.lease.worker.id
    values = {"boot_id": "another boot"} | changes
    sets = ", ".join(f"{name} = {value!r}" for name, value in values.items())
    worker.execute_sql(f"UPDATE jobqueue_workers SET {sets} WHERE id <> {own}")


def test_a_lease_ends_only_after_it_was_watched_to_stand_still_for_its_whole_length(
    work: Any, stepped: Stepped, clock: Any, lines: Any
) -> None:
    handle = work.enqueue()
    lost, judge = stepped(lease=30, name="lost"), stepped(lease=30)
    lost.claim()
    clock.pass_(1_000_000)  # before the judge's first look: proves nothing
    judge.service(Reaper).tick()
    watch(judge, clock, 29)
    assert handle.state is State.RUNNING
    assert lost.inflight.lease.worker.id in judge.workers()
    watch(judge, clock, 1)
    row = judge.row(handle.id)
    assert (row.state, row.attempt, row.crashes) == (State.AVAILABLE, 0, 1)
    assert judge.attempts(handle.id) == [(1, "lost", "WorkerLost")]
    assert set(judge.workers()) == {judge.inflight.lease.worker.id}
    assert len(lines(WARNING, "silent")) == 1
    assert judge.step()
    assert handle.result(0) == 1
    assert (judge.row(handle.id).attempt, judge.row(handle.id).crashes) == (1, 0)


def test_the_length_of_the_others_lease_counts_and_not_the_reapers_own(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    long, judge = stepped(lease=100), stepped(lease=4)
    judge.service(Reaper).tick()
    watch(judge, clock, 99)
    assert long.inflight.lease.worker.id in judge.workers()
    watch(judge, clock, 1)
    assert long.inflight.lease.worker.id not in judge.workers()


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_key_goes_on_as_soon_as_the_worker_is_reaped_that_had_its_place(
    work: Any, stepped: Stepped, clock: Any, has_ended: bool
) -> None:
    jobs = [work.options(concurrency_key="k", concurrency_limit=1).enqueue() for _ in range(2)]
    lost, judge = stepped(lease=30), stepped(lease=30)

    def claim(worker: Any) -> list[int]:
        worker.planner.hint_work(announced=True)
        for _ in range(5):
            worker.parts.claimer.tick()
        return [claim.id for claim in worker.inbox()]

    assert claim(lost) == [jobs[0].id]
    assert claim(judge) == []  # And passes the full key over from now on.
    if has_ended:
        lost.execute()
        lost.complete()
    watch(judge, clock, 31)
    assert claim(judge) == [jobs[has_ended].id]


def test_a_beat_in_between_saves_the_lease(work: Any, stepped: Stepped, clock: Any) -> None:
    handle = work.enqueue()
    other, judge = stepped(lease=30), stepped(lease=30)
    other.claim()
    judge.service(Reaper).tick()
    for _ in range(5):
        watch(judge, clock, 25)
        other.heartbeat.tick()
    assert handle.state is State.RUNNING
    assert other.inflight.lease.worker.id in judge.workers()


def test_a_beat_at_the_last_moment_saves_the_lease(work: Any, stepped: Stepped, clock: Any) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    judge.service(Reaper).tick()
    watch(judge, clock, 29)
    its = leases(judge, "revoke")
    expire = its.revoke

    def beats_first(*given: Any) -> bool:
        other.heartbeat.tick()
        return bool(expire(*given))

    its.revoke = beats_first
    watch(judge, clock, 1)
    assert other.inflight.lease.worker.id in judge.workers()


@pytest.mark.parametrize(("verb", "before"), [("poll", 29), ("revoke", 29), ("could_beat", 28)])
def test_a_round_that_failed_starts_the_watch_anew(
    work: Any, stepped: Stepped, clock: Any, verb: str, before: float
) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    reaper = judge.service(Reaper)
    reaper.tick()
    watch(judge, clock, before)
    its = leases(judge, verb)
    working = getattr(its, verb)
    refuse(judge, verb)
    clock.pass_(1)
    reaper.round()
    setattr(its, verb, working)
    watch(judge, clock, 29)
    assert other.inflight.lease.worker.id in judge.workers()
    watch(judge, clock, 2)
    assert other.inflight.lease.worker.id not in judge.workers()


def test_silence_counts_only_while_the_judge_itself_could_beat(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    reaper = judge.service(Reaper)
    writes = count(judge, "could_beat")
    reaper.tick()
    watch(judge, clock, 14)
    assert writes == []
    watch(judge, clock, 10)
    assert len(writes) == 10
    refuse(judge, "could_beat")
    clock.pass_(1)
    reaper.round()
    assert reaper.failing
    writes = count(judge, "could_beat")
    watch(judge, clock, 1)
    assert len(writes) == 1, "it makes sure before it begins anew"
    watch(judge, clock, 29)
    assert other.inflight.lease.worker.id in judge.workers()
    watch(judge, clock, 1)
    assert other.inflight.lease.worker.id not in judge.workers()


def test_who_has_no_lease_judges_nobody_by_silence(work: Any, stepped: Stepped, clock: Any) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    judge.service(Reaper).tick()
    judge.execute_sql(f"DELETE FROM jobqueue_workers WHERE id = {judge.inflight.lease.worker.id}")
    for _ in range(40):
        clock.pass_(1)
        judge.service(Reaper).tick()
    assert other.inflight.lease.worker.id in judge.workers()
    judge.heartbeat.tick()
    watch(judge, clock, 31)
    assert other.inflight.lease.worker.id not in judge.workers()


def test_who_finds_its_own_row_gone_as_it_writes_judges_nobody(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    reaper = judge.service(Reaper)
    reaper.tick()
    reaper._leases.could_beat = lambda _: False
    watch(judge, clock, 40)
    assert other.inflight.lease.worker.id in judge.workers()


def test_time_that_a_round_waited_for_the_database_is_no_silence(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    reaper = judge.service(Reaper)
    reaper.tick()
    its = leases(judge, "poll")
    poll = its.poll

    def slow(*given: Any) -> Any:
        clock.pass_(1)
        return poll(*given)

    its.poll = slow
    watch(judge, clock, 29)
    assert other.inflight.lease.worker.id in judge.workers()
    watch(judge, clock, 1)
    assert other.inflight.lease.worker.id not in judge.workers()


def test_an_idle_fleet_writes_nothing_but_its_beats(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    fleet = [stepped(lease=30) for _ in range(3)]
    writes = [count(worker, "could_beat") for worker in fleet]
    for _ in range(120):
        clock.pass_(0.5)
        for worker in fleet:
            worker.heartbeat.tick()
        for worker in fleet:
            worker.service(Reaper).tick()
    assert writes == [[]] * 3
    assert [row.heartbeats for row in fleet[0].workers().values()] == [6] * 3


def test_a_round_that_comes_late_starts_the_watch_anew(
    work: Any, stepped: Stepped, clock: Any
) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    judge.service(Reaper).tick()
    watch(judge, clock, 29)
    clock.pass_(25)  # The judge itself was stopped, or the machine slept.
    judge.service(Reaper).tick()
    watch(judge, clock, 29)
    assert other.inflight.lease.worker.id in judge.workers()
    watch(judge, clock, 1)
    assert other.inflight.lease.worker.id not in judge.workers()


def test_nobody_reaps_itself(work: Any, stepped: Stepped, clock: Any) -> None:
    handle = work.enqueue()
    worker = stepped(lease=4)
    worker.claim()
    for _ in range(10):  # Its heartbeat is stuck, and its reaper is not.
        worker.service(Reaper).tick()
        clock.pass_(1)
    assert handle.state is State.RUNNING
    assert set(worker.workers()) == {worker.inflight.lease.worker.id}


@pytest.fixture
def process() -> Any:
    """A process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def belongs_to(worker: Any, other: Any, process: Any) -> None:
    """Make `other` a worker in that process, as far as its row says."""
    started = process_identity.process_started(process.pid)
    assert started is not None
    worker.execute_sql(
        f"UPDATE jobqueue_workers SET pid = {process.pid}, process_started = {started}"
        f" WHERE id = {other.inflight.lease.worker.id}"
    )


def test_a_process_that_is_gone_is_reaped_at_once(
    work: Any, stepped: Stepped, clock: Any, process: Any
) -> None:
    handle = work.enqueue()
    other, judge = stepped(), stepped()
    other.claim()
    belongs_to(judge, other, process)
    judge.service(Reaper).tick()
    assert handle.state is State.RUNNING
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # A zombie is gone already.
    judge.service(Reaper).tick()
    assert handle.state is State.AVAILABLE


def test_a_stopped_process_is_not_gone(
    work: Any, stepped: Stepped, clock: Any, process: Any
) -> None:
    other, judge = stepped(), stepped()
    belongs_to(judge, other, process)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    judge.service(Reaper).tick()
    watch(judge, clock, 10)
    assert other.inflight.lease.worker.id in judge.workers()
    process.send_signal(signal.SIGCONT)


def test_a_process_number_that_was_given_again_is_another_process(
    work: Any, stepped: Stepped, clock: Any, process: Any
) -> None:
    other, judge = stepped(), stepped()
    belongs_to(judge, other, process)
    judge.execute_sql(
        "UPDATE jobqueue_workers SET process_started = process_started - 1"
        f" WHERE id = {other.inflight.lease.worker.id}"
    )
    judge.service(Reaper).tick()
    assert other.inflight.lease.worker.id not in judge.workers()


@pytest.mark.parametrize("what", ["boot_id", "pid_namespace"])
def test_a_process_elsewhere_is_judged_by_silence_alone(
    work: Any, stepped: Stepped, clock: Any, process: Any, what: str
) -> None:
    other, judge = stepped(lease=30), stepped(lease=30)
    belongs_to(judge, other, process)
    judge.execute_sql(
        f"UPDATE jobqueue_workers SET {what} = 'elsewhere' WHERE id = {other.inflight.lease.worker.id}"
    )
    process.kill()
    process.wait()
    judge.service(Reaper).tick()
    watch(judge, clock, 29)
    assert other.inflight.lease.worker.id in judge.workers()
    watch(judge, clock, 1)
    assert other.inflight.lease.worker.id not in judge.workers()


def test_where_processes_of_others_are_hidden_nobody_is_called_gone(
    work: Any, stepped: Stepped, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with /proc mounted with hidepid: one sees one's own processes only."""
    other, judge = stepped(lease=30), stepped(lease=30)
    abroad(judge, boot_id=process_identity.this_process().boot_id, pid=1, process_started=5.0)
    own = process_identity.process_started
    monkeypatch.setattr(
        process_identity, "process_started", lambda pid: own(pid) if pid == os.getpid() else None
    )
    judge.service(Reaper).tick()
    assert other.inflight.lease.worker.id in judge.workers()


def test_what_becomes_of_a_lost_workers_jobs(jobs: JobQueue, stepped: Stepped, clock: Any) -> None:
    told: list[tuple[str, int]] = []
    for name in ("lost", "failed", "cancelled"):
        jobs.on(name, lambda event: told.append((event.name, event.job)))

    @jobs.task
    def work() -> None: ...

    again = work.enqueue()
    once = work.options(max_attempts=1).enqueue()
    spent = work.options(max_attempts=2).enqueue()
    cancelled = work.enqueue()
    lost, judge = stepped(), stepped()
    lost.change(spent.id, attempt=1, crashes=REFUNDS_MAX)
    lost.claim()
    jobs.cancel(cancelled.id)
    judge.execute_sql(f"DELETE FROM jobqueue_workers WHERE id = {lost.inflight.lease.worker.id}")
    judge.service(Reaper).tick()
    handles = (again, once, spent, cancelled)
    assert [handle.state for handle in handles] == [
        State.AVAILABLE,
        State.FAILED,
        State.FAILED,
        State.CANCELLED,
    ]
    for handle in (once, spent):
        with pytest.raises(JobFailed, match="worker lost"):
            handle.result(0)
    judge.announce()
    assert sorted(told) == sorted(
        [("lost", handle.id) for handle in handles]
        + [("failed", once.id), ("failed", spent.id), ("cancelled", cancelled.id)]
    )


def test_the_worker_whose_jobs_were_reaped_can_do_nothing_about_them_any_more(
    work: Any, jobs: JobQueue, stepped: Stepped, clock: Any, lines: Any
) -> None:
    handle = work.enqueue()
    frozen, judge = stepped(lease=30), stepped(lease=30)
    frozen.claim()
    judge.service(Reaper).tick()
    watch(judge, clock, 31)
    (claim,) = judge.claim()
    (stale,) = frozen.inbox()
    frozen.inflight.lease.confirm(clock.present)  # It had begun, wakes up, and does not know.
    frozen.executor.take(stale)
    frozen.inflight.outbox.put(
        Unsuccessful(
            stale, "errored", State.FAILED, error=AttemptError("E", "no", None), duration=1.0
        )
    )
    frozen.complete()
    assert len(lines(ERROR, "was lost; its outcome was refused")) == 2
    frozen.inflight.outbox.put(released(stale, None))
    frozen.complete()
    assert handle.state is State.RUNNING
    assert judge.row(handle.id).fence == claim.fence
    judge.execute()
    judge.complete()
    assert handle.result(0) == 1
    assert judge.counted("succeeded") == 1


def test_a_lease_that_cannot_be_ended_holds_up_no_other(stepped: Stepped, clock: Any) -> None:
    """Its row may be held by a session that is frozen, for hours."""
    stuck, gone, judge = stepped(lease=30), stepped(lease=30), stepped(lease=30)
    reaper = judge.service(Reaper)
    its = leases(judge, "revoke")
    expire, held = its.revoke, stuck.inflight.lease.worker.id

    def refuse_one(worker: int, beat: int) -> bool:
        if worker == held:
            raise OperationalError("DELETE", None, Exception("lock timeout"))
        return bool(expire(worker, beat))

    its.revoke = refuse_one
    reaper.tick()
    watch(judge, clock, 10)
    gone.heartbeat._beat_at = float("-inf")
    gone.heartbeat.tick()
    watch(judge, clock, 32)
    assert gone.inflight.lease.worker.id not in judge.workers()
    assert held in judge.workers()
    its.revoke = expire
    watch(judge, clock, 31)
    assert held not in judge.workers()
