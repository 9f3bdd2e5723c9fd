"""Leases, lost workers, due jobs, retention, counts; and what a drain waits for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.exc import OperationalError

from jobqueue.store.clock import after
from jobqueue.records import Unsuccessful, JobFilter, Lease
from jobqueue.store.schema import CounterKind, attempts, counters, workers
from jobqueue.states import FINAL, State
from jobqueue.store.compaction import MINUTES_KEPT
from jobqueue.store.jobs import Jobs
from jobqueue.store.sql.leases import REFUNDS_MAX
from tests.store.conftest import StoreKit
from jobqueue.store.claims import WorkerRef

BEAT = {"running": 1, "processed": 2, "errored": 3, "concurrency": 4}


# Leases


def leases(kit: StoreKit) -> list[Lease]:
    columns = (workers.c[name] for name in Lease._fields)
    with kit.store.read() as connection:
        rows = connection.execute(select(*columns).order_by(workers.c.id))
        return [Lease._make(row) for row in rows]


def test_a_worker_takes_a_lease_that_all_can_see(kit: StoreKit) -> None:
    holder = kit.worker(
        "w1", host="h", pid=42, boot_id="b", pid_namespace="n", process_started=1.5, lease=12.5
    )
    [lease] = leases(kit)
    assert lease == (holder.id, "w1", "h", 42, "b", "n", 1.5, 12.5, 0)


def test_what_a_worker_says_of_itself_is_kept(kit: StoreKit) -> None:
    kit.worker(queues=("a", "b"), tasks=("x",), wakeup_address="@notifier")
    kit.worker(queues=None)
    with kit.store.read() as connection:
        rows = connection.execute(select(workers).order_by(workers.c.tasks.desc())).all()
    assert [(row.queues, row.tasks) for row in rows] == [('["a", "b"]', '["x"]'), (None, '["add"]')]
    assert [row.wakeup_address for row in rows] == ["@notifier", None]


def test_each_beat_renews_the_lease_and_tells_how_it_goes(kit: StoreKit) -> None:
    holder, other = kit.worker(), kit.worker("other")
    assert [kit.leases.renew(holder.id, **BEAT) for _ in range(3)] == [True] * 3
    assert {lease.id: lease.heartbeats for lease in leases(kit)} == {holder.id: 3, other.id: 0}
    with kit.store.read() as connection:
        row = connection.execute(select(workers).where(workers.c.id == holder.id)).one()
    assert (row.running, row.processed, row.errored, row.concurrency) == (1, 2, 3, 4)
    assert row.heartbeat_at >= row.started_at


def test_a_beat_without_a_lease_says_so(kit: StoreKit) -> None:
    holder = kit.worker()
    kit.leases.deregister(holder.id)
    assert kit.leases.renew(holder.id, **BEAT) is False
    assert leases(kit) == []


def test_a_lease_that_stood_still_is_ended_once(kit: StoreKit) -> None:
    holder, other = kit.worker(), kit.worker("other")
    kit.leases.renew(holder.id, **BEAT)
    assert kit.leases.revoke(holder.id, 1) is True
    assert kit.leases.revoke(holder.id, 1) is False
    assert [lease.id for lease in leases(kit)] == [other.id]


def test_a_lease_that_was_renewed_meanwhile_is_not_ended(kit: StoreKit) -> None:
    holder = kit.worker()
    kit.leases.renew(holder.id, **BEAT)
    assert kit.leases.revoke(holder.id, 0) is False
    assert kit.leases.renew(holder.id, **BEAT) is True


def test_to_try_to_beat_leaves_the_row_as_it_was(kit: StoreKit) -> None:
    holder = kit.worker()
    kit.leases.renew(holder.id, **BEAT)
    with kit.store.read() as connection:
        before = connection.execute(select(workers)).all()
    assert kit.leases.could_beat(holder.id) is True
    with kit.store.read() as connection:
        assert connection.execute(select(workers)).all() == before
    kit.leases.deregister(holder.id)
    assert kit.leases.could_beat(holder.id) is False


@pytest.mark.databases("sqlite")
def test_to_try_to_beat_writes_to_the_disk(kit: StoreKit) -> None:
    wal = Path(f"{kit.store.url.database}-wal")
    holder = kit.worker()
    before = wal.stat().st_size
    kit.leases.could_beat(holder.id)
    assert wal.stat().st_size > before


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("verb", ["could_beat", "revoke"])
def test_who_judges_does_not_wait_for_a_lock_on_the_leases(kit: StoreKit, verb: str) -> None:
    holder = kit.worker()
    given = {"could_beat": (holder.id,), "revoke": (holder.id, 0)}[verb]
    with kit.store.engine.begin() as connection:
        connection.execute(text("LOCK TABLE jobqueue_workers IN SHARE MODE"))
        with pytest.raises(OperationalError, match="lock timeout"):
            getattr(kit.leases, verb)(*given)
    assert [lease.id for lease in leases(kit)] == [holder.id]


def test_the_id_of_a_lease_is_never_used_twice(kit: StoreKit) -> None:
    old = kit.worker()
    kit.leases.deregister(old.id)
    assert kit.worker().id != old.id


def next_due(kit: StoreKit) -> Any:
    with kit.store.read() as connection:
        return kit.leases.poll(connection, None, None, None).due.job


# Lost workers


def test_jobs_of_a_lost_worker_are_available_at_once(kit: StoreKit) -> None:
    holder = kit.worker()
    kit.add_many(2, max_attempts=3)
    claims = kit.take(holder)
    kit.leases.deregister(holder.id)
    lost = kit.leases.reap()
    assert [(job.id, job.fence, job.state) for job in sorted(lost)] == [
        (claim.id, claim.fence + 1, State.AVAILABLE) for claim in claims
    ]
    for claim in claims:
        job = kit.row(claim.id)
        assert (job.state, job.attempt, job.crashes) == (State.AVAILABLE, 0, 1)
        assert (job.run_at, job.finished_at) == (claim.run_at, None)
        assert kit.column(claim.id, "worker_id") is None
    assert kit.leases.reap() == []


def test_only_jobs_of_workers_without_a_lease_are_taken(kit: StoreKit) -> None:
    dead, alive = kit.worker("dead"), kit.worker("alive")
    kit.add_many(2)
    theirs, kept = kit.take_one(dead), kit.take_one(alive)
    done = kit.put(State.SUCCEEDED, dead)
    waiting = kit.add(queue="q")
    kit.leases.deregister(dead.id)
    before = [kit.row(id_) for id_ in (kept.id, done, waiting)]
    assert [job.id for job in kit.leases.reap()] == [theirs.id]
    assert [kit.row(id_) for id_ in (kept.id, done, waiting)] == before


def test_a_lost_attempt_is_recorded_and_counts_as_no_error(kit: StoreKit) -> None:
    holder = kit.worker()
    id_ = kit.add()
    claim = kit.take_one(holder)
    kit.leases.deregister(holder.id)
    kit.leases.reap()
    [attempt] = kit.jobs.attempts(kit.row(id_))
    assert (attempt.attempt, attempt.fence, attempt.worker) == (1, claim.fence, "w1")
    assert (attempt.outcome, attempt.started_at) == ("lost", claim.started_at)
    assert attempt.error.type == "WorkerLost" and "w1" in attempt.error.message
    assert kit.signatures() == ["add WorkerLost"]
    assert kit.counters() == {}


def test_a_job_that_may_begin_once_fails_with_its_worker(kit: StoreKit) -> None:
    id_ = kit.add(max_attempts=1)
    holder = kit.worker()
    kit.take_one(holder)
    kit.leases.deregister(holder.id)
    [lost] = kit.leases.reap()
    assert (lost.state, lost.attempt) == (State.FAILED, 1)
    job = kit.row(id_)
    assert (job.state, job.reason, job.attempt) == (State.FAILED, "worker lost", 1)
    assert (job.finished_at is not None, job.worker) == (True, "w1")
    assert kit.outcomes(id_) == ["lost"]
    assert kit.counters()["default", "add"] == {"failed": 1, "errored_attempts": 1}
    assert kit.take(kit.worker()) == []


@pytest.mark.parametrize("attempts_max", [2, 3])
def test_losses_without_end_are_charged_at_last(kit: StoreKit, attempts_max: int) -> None:
    id_ = kit.add(max_attempts=attempts_max)
    for loss in range(1, REFUNDS_MAX + attempts_max + 1):
        holder = kit.worker()
        attempt = max(1, loss - REFUNDS_MAX)
        assert kit.take_one(holder).attempt == attempt
        kit.leases.deregister(holder.id)
        [lost] = kit.leases.reap()
        assert lost.attempt == attempt
        assert kit.row(id_).attempt == max(0, loss - REFUNDS_MAX)
    job = kit.row(id_)
    assert (job.state, job.reason, job.attempt) == (State.FAILED, "worker lost", attempts_max)
    assert kit.counters()["default", "add"] == {"failed": 1, "errored_attempts": 1}


def test_the_last_attempt_of_a_bystander_is_given_back(kit: StoreKit) -> None:
    id_ = kit.add(max_attempts=2)
    kit.change(id_, attempt=1)
    holder = kit.worker()
    kit.take_one(holder)
    kit.leases.deregister(holder.id)
    [lost] = kit.leases.reap()
    assert (lost.state, lost.attempt) == (State.AVAILABLE, 2)
    assert kit.row(id_).attempt == 1
    assert [attempt.attempt for attempt in kit.jobs.attempts(kit.row(id_))] == [2]


def test_a_job_that_was_to_be_cancelled_is_cancelled_with_its_worker(kit: StoreKit) -> None:
    holder = kit.worker()
    once, more = kit.add(max_attempts=1), kit.add()
    kit.take(holder)
    kit.jobs.cancel(JobFilter())
    kit.leases.deregister(holder.id)
    kit.leases.reap()
    assert [kit.state(id_) for id_ in (once, more)] == [State.CANCELLED] * 2
    assert kit.row(more).finished_at is not None
    assert kit.counters()["default", "add"] == {"cancelled": 2}


def test_reaping_goes_in_bounded_steps(kit: StoreKit) -> None:
    holder = kit.worker()
    every = kit.add_many(5)
    kit.take(holder)
    kit.leases.deregister(holder.id)
    steps = [[job.id for job in kit.leases.reap(2)] for _ in range(4)]
    assert [len(step) for step in steps] == [2, 2, 1, 0]
    assert sorted(sum(steps, [])) == every


def test_two_reapers_at_once_take_each_job_once(kit: StoreKit, together: Any) -> None:
    holder = kit.worker()
    every = kit.add_many(100)
    kit.take(holder)
    kit.leases.deregister(holder.id)

    def reap_all() -> list[int]:
        taken: list[int] = []
        while lost := kit.leases.reap(10):
            taken += [job.id for job in lost]
        return taken

    shares = together(reap_all, reap_all)
    assert sorted(sum(shares, [])) == every
    assert kit.jobs.count(JobFilter(state=State.AVAILABLE)) == 100
    assert kit.row(every[0]).crashes == 1


# Due jobs


def test_a_scheduled_job_is_available_once_it_is_due(kit: StoreKit) -> None:
    due, later = kit.add(delay=60.0, queue="mail"), kit.add(delay=60.0)
    kit.make_due(due)
    before = kit.row(due)
    assert kit.maintenance.promote() == ["mail"]
    job = kit.row(due)
    assert (job.state, job.run_at, job.fence) == (State.AVAILABLE, before.run_at, 0)
    assert kit.state(later) is State.SCHEDULED
    assert kit.maintenance.promote() == []


def test_promotion_begins_with_what_is_due_longest_and_goes_in_bounded_steps(kit: StoreKit) -> None:
    ids = [kit.add(delay=60.0) for _ in range(5)]
    for place, id_ in enumerate(ids):
        kit.change(id_, run_at=after(-10.0 - place))
    assert [len(kit.maintenance.promote(2)) for _ in range(2)] == [2, 2]
    assert [kit.state(id_) for id_ in ids] == [State.SCHEDULED] + [State.AVAILABLE] * 4


@pytest.mark.parametrize("state", [state for state in State if state is not State.SCHEDULED])
def test_only_scheduled_jobs_are_promoted(kit: StoreKit, state: State) -> None:
    kit.make_due(kit.put(state))
    assert kit.maintenance.promote() == []


def test_it_is_known_when_the_next_job_is_due(kit: StoreKit) -> None:
    assert next_due(kit) is None
    kit.add(), kit.add(delay=5000.0)
    near = kit.add(delay=1000.0)
    assert 500 < next_due(kit) <= 1000
    kit.make_due(near)
    assert -500 < next_due(kit) <= 0


# Retention


@pytest.mark.parametrize("state", FINAL)
def test_old_final_jobs_are_deleted_with_their_attempts(kit: StoreKit, state: State) -> None:
    old, young = kit.put(state), kit.put(state)
    others = [kit.put(other) for other in State if other is not state]
    kit.change(old, *others, finished_at=after(-1000.0))
    assert kit.maintenance.prune(state, 2000.0) == 0
    assert kit.maintenance.prune(state, 500.0) == 1
    assert kit.jobs.get(old) is None
    assert all(kit.jobs.get(id_) for id_ in (young, *others))
    with kit.store.read() as connection:
        recorded = select(func.count()).where(attempts.c.job_id == old)
        assert connection.execute(recorded).scalar() == 0


def test_pruning_begins_with_the_oldest_and_goes_in_bounded_steps(kit: StoreKit) -> None:
    ids = [kit.put(State.SUCCEEDED) for _ in range(5)]
    for place, id_ in enumerate(ids):
        kit.change(id_, finished_at=after(-1000.0 - place))
    assert [kit.maintenance.prune(State.SUCCEEDED, 0.0, limit=2) for _ in range(2)] == [2, 2]
    assert [job.id for job in kit.jobs.find(JobFilter())] == ids[:1]


def test_one_queue_can_be_pruned(kit: StoreKit) -> None:
    mine, other = kit.put(State.SUCCEEDED, queue="q"), kit.put(State.SUCCEEDED)
    kit.change(mine, other, finished_at=after(-1000.0))
    assert kit.maintenance.prune(State.SUCCEEDED, 0.0, queue="q") == 1
    assert [job.id for job in kit.jobs.find(JobFilter())] == [other]


# Counts


def count_at(
    kit: StoreKit, at: datetime, queue: str = "q", task: str = "t", **values: float
) -> None:
    with kit.store.write() as connection:
        connection.execute(insert(counters), {"minute": at, "queue": queue, "task": task, **values})


def folded(kit: StoreKit) -> list[tuple[Any, ...]]:
    with kit.store.read() as connection:
        columns = (counters.c.kind, counters.c.minute, counters.c.queue, counters.c.succeeded)
        return [tuple(row) for row in connection.execute(select(*columns).order_by(*columns))]


WRITTEN, TOTAL, MINUTE = CounterKind
NOW = datetime.now(UTC).replace(second=0, microsecond=0)


def test_counts_of_past_minutes_are_added_up_by_minute_and_into_totals(kit: StoreKit) -> None:
    minute, before_it = NOW - timedelta(minutes=5), NOW - timedelta(minutes=6)
    for n in range(1, 5):
        values = {"succeeded": n, "failed": 1, "cancelled": 2, "errored_attempts": 3, "runs": n}
        count_at(kit, minute, **values, duration=n / 2, duration_max=n, wait=n / 4, wait_max=9 - n)
    count_at(kit, minute, queue="other", succeeded=7)
    count_at(kit, before_it, succeeded=8)
    before = kit.counters()
    assert kit.maintenance.compact() == 6
    assert kit.counters() == before
    assert before["q", "t"]["duration_max"] == 4 and before["q", "t"]["wait_max"] == 8
    assert folded(kit) == [
        (TOTAL, before_it, "q", 18),
        (TOTAL, minute, "other", 7),
        (MINUTE, before_it, "q", 8),
        (MINUTE, minute, "other", 7),
        (MINUTE, minute, "q", 10),
    ]
    assert kit.maintenance.compact() == 0
    assert kit.counters() == before


def test_the_present_minute_is_not_added_up(kit: StoreKit) -> None:
    at = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    count_at(kit, at, succeeded=1), count_at(kit, at, succeeded=1)
    assert kit.maintenance.compact() == 0
    assert [row[0] for row in folded(kit)] == [WRITTEN, WRITTEN]


def test_a_total_takes_in_what_comes_later_and_leaves_other_totals_alone(kit: StoreKit) -> None:
    minutes = [NOW - timedelta(minutes=n) for n in (9, 8, 7)]
    for task in ("t", "u"):
        count_at(kit, minutes[0], task=task, succeeded=1, duration_max=5)
    kit.maintenance.compact()
    for at in minutes[1:]:
        count_at(kit, at, succeeded=10, duration_max=2)
        kit.maintenance.compact()
    assert kit.counters() == {
        ("q", "t"): {"succeeded": 21, "duration_max": 5},
        ("q", "u"): {"succeeded": 1, "duration_max": 5},
    }
    assert [row for row in folded(kit) if row[0] == TOTAL] == [
        (TOTAL, minutes[0], "q", 1),
        (TOTAL, minutes[0], "q", 21),
    ]


def test_minutes_are_forgotten_after_a_day_and_totals_are_not(kit: StoreKit) -> None:
    week = NOW - timedelta(days=7)
    for hour in (0, 5, 23):
        count_at(kit, week + timedelta(hours=hour), succeeded=hour, runs=1)
    recent = NOW - timedelta(seconds=MINUTES_KEPT - 3600)
    count_at(kit, recent, succeeded=1)
    before = kit.counters()
    assert kit.maintenance.compact() == 4 + 3
    assert kit.counters() == before
    assert folded(kit) == [(TOTAL, week, "q", 29), (MINUTE, recent, "q", 1)]
    assert kit.maintenance.compact() == 0


@pytest.mark.databases("postgres")
def test_instants_are_in_utc_whatever_the_zone_of_the_server(
    kit: StoreKit, second_store: Any
) -> None:
    id_ = kit.add(at=datetime(2026, 7, 1, 12, tzinfo=UTC))
    job = Jobs(second_store(timezone="Asia/Kolkata")).get(id_)
    assert job.run_at == datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert job.to_json()["run_at"] == "2026-07-01T12:00:00+00:00"


def test_folding_goes_in_bounded_steps_and_loses_nothing(kit: StoreKit) -> None:
    for n in range(7):
        count_at(kit, NOW - timedelta(minutes=5), succeeded=2**n)
    assert [kit.maintenance.compact(2) for _ in range(5)] == [2, 2, 2, 1, 0]
    assert kit.counters() == {("q", "t"): {"succeeded": 127}}


def test_two_that_fold_at_once_lose_nothing(kit: StoreKit, together: Any) -> None:
    for n in range(40):
        count_at(kit, NOW - timedelta(minutes=5 + n % 3), succeeded=1)
    answers = together(*[lambda: [kit.maintenance.compact(7) for _ in range(6)]] * 3)
    assert [type(answer) for answer in answers] == [list] * 3, answers
    assert sum(map(sum, answers)) == 40
    assert kit.counters() == {("q", "t"): {"succeeded": 40}}
    assert sum(row[3] for row in folded(kit) if row[0] == MINUTE) == 40


# What a drain waits for


def drain(kit: StoreKit, queues: Any = None, tasks: Any = ("add",)) -> tuple[bool, dict[str, int]]:
    return kit.maintenance.unfinished(queues, tasks), kit.maintenance.left_behind(queues, tasks)


def test_what_a_drain_waits_for_is_looked_up_in_one_snapshot(kit: StoreKit) -> None:
    """A job that is promoted between two looks would be seen by neither."""
    seen: list[str] = []
    event.listen(kit.store.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
    assert not kit.maintenance.unfinished(None, ("add",))
    assert len([statement for statement in seen if "FROM jobqueue_jobs" in statement]) == 1


def test_a_drain_of_an_empty_queue_is_over(kit: StoreKit) -> None:
    assert drain(kit) == (False, {})


@pytest.mark.parametrize("state", State)
def test_a_drain_waits_for_what_is_available_or_runs(kit: StoreKit, state: State) -> None:
    kit.put(state)
    left = {"delayed": 1} if state is State.SCHEDULED else {}
    if state is State.AVAILABLE:
        assert drain(kit)[0] is True
    else:
        assert drain(kit) == (state is State.RUNNING, left)


@pytest.mark.parametrize("end", ["errored", "snoozed"])
def test_a_drain_waits_for_a_retry(kit: StoreKit, end: str) -> None:
    holder = kit.worker()
    kit.add()
    kit.finish(holder, getattr(kit, end)(kit.take_one(holder)))
    assert drain(kit)[0] is True


def test_a_drain_does_not_wait_for_unknown_tasks(kit: StoreKit) -> None:
    kit.add(task="stranger"), kit.add(task="stranger", delay=60.0)
    assert drain(kit) == (False, {"of unknown tasks": 2})
    holder = kit.worker()
    claim = kit.take_one(holder)
    assert drain(kit)[0] is False
    unknown = Unsuccessful(
        claim, "unknown task", State.SCHEDULED, delay=10.0, refund=True, reason="no such task here"
    )
    kit.finish(holder, unknown)
    assert drain(kit) == (False, {"of unknown tasks": 2})
    assert kit.row(claim.id).attempt == 0


def test_a_drain_does_not_wait_for_paused_queues_but_for_what_runs_there(kit: StoreKit) -> None:
    kit.add_many(2, queue="q")
    holder = kit.worker()
    claim = kit.take_one(holder, queue="q")
    kit.pause("q")
    assert drain(kit) == (True, {"in paused queues": 1})
    kit.finish(holder, kit.errored(claim))
    assert drain(kit) == (False, {"in paused queues": 2})


def test_a_drain_is_about_the_queues_and_tasks_of_its_worker(kit: StoreKit) -> None:
    kit.add(queue="a"), kit.add(queue="b", task="send")
    assert drain(kit, ("a",), ("send",)) == (False, {"of unknown tasks": 1})
    assert drain(kit, ("b",), ("send",))[0] is True
    assert drain(kit, ("c",), ("send", "add")) == (False, {})
    assert drain(kit, (), ("send", "add"))[0] is False
    assert drain(kit, None, ())[0] is False
