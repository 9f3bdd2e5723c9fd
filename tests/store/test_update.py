"""`update`: what waits is changed, on both databases; a worker then finds it where it is now."""

from datetime import UTC, datetime, timedelta

import pytest

from jobqueue.job_changes import JobChanges
from jobqueue.records import JobFilter, Refusal
from jobqueue.states import WAITING, State
from jobqueue.store.audit import Action, Audit
from tests.store.conftest import StoreKit

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def one(id_: int) -> JobFilter:
    return JobFilter(ids=(id_,))


@pytest.mark.parametrize("state", State)
def test_what_waits_is_changed_and_all_else_is_refused(kit: StoreKit, state: State) -> None:
    id_ = kit.put(state)
    before = kit.row(id_)
    changed, refused = kit.jobs.update(one(id_), JobChanges(-3, "mail", None, ("eu", "now")))
    job = kit.row(id_)
    if state in WAITING:
        assert (changed, refused) == ([id_], [])
        assert (job.priority, job.queue, job.tags) == (-3, "mail", ("eu", "now"))
        assert (job.state, job.run_at, job.fence) == (state, before.run_at, before.fence)
    else:
        reason = f"it is {state} and cannot be changed"
        assert (changed, refused) == ([], [Refusal(id_, state, reason)])
        assert job == before


@pytest.mark.parametrize("state", WAITING)
def test_a_new_due_time_makes_it_scheduled_or_due(kit: StoreKit, state: State) -> None:
    id_ = kit.put(state)
    kit.jobs.update(one(id_), JobChanges(at=LATER))
    assert (kit.row(id_).state, kit.row(id_).run_at) == (State.SCHEDULED, LATER)
    past = datetime.now(UTC) - timedelta(hours=1)
    kit.jobs.update(one(id_), JobChanges(at=past))
    assert (kit.row(id_).state, kit.row(id_).run_at) == (State.AVAILABLE, past)


def test_a_worker_finds_jobs_where_they_were_moved_to_by_a_filter(kit: StoreKit) -> None:
    moved, other = kit.add(tags='["eu"]'), kit.add()
    assert kit.jobs.update(JobFilter(tag="eu"), JobChanges(priority=-1, tags=()))[0] == [moved]
    assert kit.row(moved).tags == ()
    worker = kit.worker()
    assert kit.take_one(worker).id == moved
    assert kit.take_one(worker).id == other


@pytest.mark.parametrize(
    "changes",
    [
        JobChanges(priority=3),
        JobChanges(queue="mail"),
        JobChanges(at=LATER),
        JobChanges(tags=("eu", "now")),
        JobChanges(3, "mail", LATER, ("eu", "now")),
    ],
    ids=["priority", "queue", "due time", "tags", "all"],
)
def test_a_job_that_is_so_already_is_neither_changed_nor_refused(
    kit: StoreKit, changes: JobChanges
) -> None:
    id_, other, running = kit.add(), kit.add(), kit.put(State.RUNNING)
    action = Action("ada@web-1", "update", {"ids": [id_, other, running]})
    kit.jobs.update(one(id_), JobChanges(3, "mail", LATER, ("eu", "now")))
    assert kit.jobs.update(one(id_), changes, action) == ([], [])
    assert Audit(kit.store).find(None) == []
    changed, refused = kit.jobs.update(JobFilter(ids=(id_, other, running)), changes, action)
    assert (changed, [refusal.id for refusal in refused]) == ([other], [running])
    assert [row["changed"] for row in Audit(kit.store).find(None)] == [1]
    assert kit.jobs.update(JobFilter(queue=kit.row(other).queue), changes)[0] == []


def test_a_due_time_that_has_passed_makes_a_job_due_that_nobody_has_made_so(kit: StoreKit) -> None:
    id_ = kit.put(State.SCHEDULED)
    past = datetime.now(UTC) - timedelta(hours=1)
    kit.change(id_, run_at=past)
    assert kit.jobs.update(one(id_), JobChanges(at=past)) == ([id_], [])
    assert kit.state(id_) is State.AVAILABLE


def test_tags_that_are_taken_away_leave_none(kit: StoreKit) -> None:
    id_ = kit.add(tags='["eu"]')
    kit.jobs.update(one(id_), JobChanges(tags=()))
    assert kit.column(id_, "tags") is None
