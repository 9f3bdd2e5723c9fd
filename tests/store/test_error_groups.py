"""Errors by task, type and place: counted where they are recorded, and found again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import insert, select, update

from jobqueue.error_groups import ErrorGroup, error_id, signature_of
from jobqueue.errors import InvalidOption
from jobqueue.records import AttemptError, JobFilter
from jobqueue.states import State
from jobqueue.store.clock import now
from jobqueue.store.compaction import ERRORS_KEPT
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.schema import CounterKind, error_counts
from jobqueue.worker.upkeep.pruner import Pruner
from tests.store.conftest import StoreKit

HOUR = timedelta(hours=1)
SIGNATURE = "add ValueError app/shop.py:pay"
OTHER = AttemptError("OSError", "gone", None, "app/shop.py:ship")


def groups(kit: StoreKit, since: Any = "7d", **given: Any) -> list[ErrorGroup]:
    return ErrorGroups(kit.store).find(since, **given)


def counted_at(kit: StoreKit, at: datetime, task: str = "add", **more: Any) -> None:
    """Append what a failure of the past has appended."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    row = {"hour": hour, "first_at": at, "last_at": at, "task": task, "attempts": 1}
    row |= {"error_type": "ValueError", "place": "app/shop.py:pay", "message": "old"} | more
    row["error_id"] = error_id(signature_of(row["task"], row["error_type"], row["place"]))
    with kit.store.write() as connection:
        connection.execute(insert(error_counts), row)


def test_failures_are_grouped_by_task_type_and_place_whatever_their_message(kit: StoreKit) -> None:
    holder = kit.worker()
    kit.add_many(3), kit.add(task="sub")
    one, two, three, sub = kit.take(holder)
    said = replace(kit.errored(two), error=kit.errored(two).error._replace(message="worse"))
    ship = replace(kit.failed(sub), error=OTHER)
    kit.finish(holder, kit.errored(one), said, kit.failed(three), ship)
    first, second = groups(kit)
    assert (first.task, first.type, first.place) == ("add", "ValueError", "app/shop.py:pay")
    assert (first.hour, first.day, first.week, first.failed) == (3, 3, 3, 1)
    assert (first.signature, first.id) == (SIGNATURE, error_id(SIGNATURE))
    assert (second.task, second.type, second.failed, second.message) == (
        "sub",
        "OSError",
        1,
        "gone",
    )
    assert second.first_seen == second.last_seen
    assert [group.task for group in groups(kit, task="sub")] == ["sub"]
    assert [group.task for group in groups(kit, limit=1)] == ["add"]


def test_a_worker_that_is_lost_is_a_group_and_what_ends_well_appends_nothing(kit: StoreKit) -> None:
    holder, lost = kit.worker(), kit.worker("w2")
    kit.add_many(4)
    done, snoozed, cancelled = kit.take(holder, limit=3, free=3)
    kit.finish(holder, kit.succeeded(done), kit.snoozed(snoozed), kit.cancelled(cancelled))
    assert groups(kit) == []
    kit.take_one(lost)
    kit.leases.deregister(lost.id)
    kit.leases.reap()
    [group] = groups(kit)
    assert (group.task, group.type, group.place, group.failed) == ("add", "WorkerLost", None, 0)
    assert group.signature == kit.signatures()[-1]


def test_a_lost_job_that_was_to_be_cancelled_counts_nothing(kit: StoreKit) -> None:
    lost, id_ = kit.worker("w2"), kit.add()
    kit.take_one(lost)
    kit.change(id_, cancel_requested_at=now())
    kit.leases.deregister(lost.id)
    kit.leases.reap()
    assert kit.state(id_) is State.CANCELLED
    assert groups(kit) == []


def test_a_claim_that_was_lost_counts_nothing(kit: StoreKit) -> None:
    holder = kit.worker()
    kit.add()
    claim = kit.take_one(holder)
    assert kit.finish(holder, kit.failed(replace(claim, fence=claim.fence + 1))) == {}
    assert groups(kit) == []


def test_counts_are_by_whole_hours_and_outlast_their_jobs(kit: StoreKit) -> None:
    present = datetime.now(UTC)
    for ago in (0, 1, 2, 24, 25, 167, 169):
        counted_at(kit, present - ago * HOUR)
    before = groups(kit)
    assert [(g.hour, g.day, g.week) for g in before] == [(2, 4, 6)]
    assert (present - before[0].first_seen, present - before[0].last_seen) == (169 * HOUR, 0 * HOUR)
    counted_at(kit, present - 30 * HOUR, task="sub")
    assert [len(groups(kit, since)) for since in ("1h", "24h", "7d")] == [1, 1, 2]
    with pytest.raises(InvalidOption, match="since"):
        groups(kit, "2h")


@pytest.mark.parametrize("limit", [2, 5000])
def test_compaction_changes_no_count_and_forgets_old_hours(kit: StoreKit, limit: int) -> None:
    present = datetime.now(UTC)
    for minutes in (3, 3, 5, 200, 60 * 167, 60 * 171):
        at = present - timedelta(minutes=minutes)
        counted_at(kit, at, failed=1, message=f"{minutes} min ago")
        kit.maintenance.compact(limit)
    counted_at(kit, present, failed=1, message="now")  # Of this minute: not added up.
    while kit.maintenance.compact(limit):
        pass
    [group] = groups(kit)
    assert (group.day, group.week, group.failed, group.message) == (5, 6, 6, "now")
    assert present - group.first_seen == timedelta(minutes=60 * 171)
    with kit.store.read() as connection:
        kinds = connection.execute(select(error_counts.c.kind).order_by("kind")).scalars().all()
    hours = (
        3 if (present - timedelta(minutes=5)).hour != (present - timedelta(minutes=3)).hour else 2
    )
    assert kinds == [CounterKind.WRITTEN, CounterKind.TOTAL, *[CounterKind.PERIOD] * (hours + 1)]


def test_an_error_that_is_over_for_long_is_forgotten_by_the_upkeep(kit: StoreKit) -> None:
    present = datetime.now(UTC)
    (
        counted_at(kit, present - timedelta(seconds=ERRORS_KEPT + 60)),
        counted_at(kit, present - HOUR, task="sub"),
    )
    Pruner(kit.maintenance, {}).tick()
    Pruner(kit.maintenance, {}).tick()
    assert [signature for _, signature in ErrorGroups(kit.store).known()] == [
        "sub ValueError app/shop.py:pay"
    ]


def test_writers_at_once_append_and_wait_for_nobody(kit: StoreKit, together: Any) -> None:
    """No row that all failures update: each transaction has its own."""
    error = AttemptError("ValueError", "no good", None)

    def write() -> None:
        with kit.store.write() as connection:
            counts = TransactionCounts()
            counts.error("add", error, State.FAILED)
            counts.write(connection, kit.store)

    assert together(*[write] * 4) == [None] * 4
    [group] = groups(kit)
    assert (group.week, group.failed) == (4, 4)


# Jobs by their error


@pytest.fixture
def failed_twice(kit: StoreKit) -> dict[str, int]:
    """Jobs by how they ended: `other` has had the error of `pay` before its last."""
    holder = kit.worker()
    ids = dict(zip(("pay", "other", "later", "well"), kit.add_many(4), strict=True))
    pay, other, later, well = kit.take(holder)
    kit.finish(holder, kit.failed(pay), *(kit.errored(each) for each in (other, later, well)))
    kit.jobs.retry(JobFilter(ids=(ids["other"], ids["well"])))
    again, done = kit.take(holder)
    kit.finish(holder, replace(kit.failed(again), error=OTHER), kit.succeeded(done))
    return ids


def found(kit: StoreKit, error: str, **more: Any) -> list[int]:
    wanted = JobFilter(error=error, **more)
    ids = [job.id for job in kit.jobs.find(wanted, page=1)]
    assert len(ids) == kit.jobs.count(wanted)
    return ids


def test_jobs_are_found_by_their_last_error_unless_they_have_succeeded(
    kit: StoreKit, failed_twice: dict[str, int]
) -> None:
    ids = failed_twice
    assert found(kit, SIGNATURE) == [ids["later"], ids["pay"]]
    assert found(kit, SIGNATURE, state=State.FAILED) == [ids["pay"]]
    assert found(kit, OTHER.signature("add")) == [ids["other"]]
    assert found(kit, "add OSError") == []


def test_an_attempt_without_an_error_does_not_hide_the_error_of_the_one_before(
    kit: StoreKit,
) -> None:
    holder, id_ = kit.worker(), kit.add()
    kit.finish(holder, kit.errored(kit.take_one(holder), -1.0))
    kit.maintenance.promote()
    kit.finish(holder, kit.snoozed(kit.take_one(holder)))
    assert kit.outcomes(id_) == ["errored", "snoozed"]
    assert found(kit, SIGNATURE) == [id_]


@pytest.mark.parametrize(
    ("verb", "left"),
    [("retry", State.AVAILABLE), ("cancel", State.CANCELLED), ("delete", None)],
)
def test_a_verb_changes_the_jobs_of_one_error(
    kit: StoreKit, failed_twice: dict[str, int], verb: str, left: State | None, monkeypatch: Any
) -> None:
    monkeypatch.setattr("jobqueue.store.jobs.BULK", 1)  # A transaction for each.
    before = {name: kit.state(id_) for name, id_ in failed_twice.items()}
    changed, refused = getattr(kit.jobs, verb)(JobFilter(error=SIGNATURE))
    wanted = {"later"} | ({"pay"} if verb != "cancel" else set())
    assert (set(changed), refused) == ({failed_twice[name] for name in wanted}, [])
    for name, id_ in failed_twice.items():
        job = kit.jobs.get(id_)
        assert (job and job.state) == (left if name in wanted else before[name])


def test_an_error_is_named_by_the_beginning_of_its_id_or_in_full(kit: StoreKit) -> None:
    counted_at(kit, datetime.now(UTC))
    resolve: Callable[[str], str] = ErrorGroups(kit.store).resolve
    id_ = error_id(SIGNATURE)
    assert [resolve(text) for text in (id_, id_[:4], SIGNATURE)] == [SIGNATURE] * 3
    unknown = "0" * 12 if id_[0] != "0" else "1" * 12
    for text, why in (
        (unknown, "no error is known .*jobqueue errors"),
        (id_[:3], "is not the id of an error"),
        ("Pay!", "is not the id of an error"),
        ("a " * 400, "is not the id of an error"),
    ):
        with pytest.raises(InvalidOption, match=why) as refused:
            resolve(text)
        assert refused.value.field == "error"
    counted_at(kit, datetime.now(UTC), task="sub")
    with kit.store.write() as connection:
        twin = update(error_counts).where(error_counts.c.task == "sub")
        connection.execute(twin.values(error_id=id_[:6] + "ffffff"))
    with pytest.raises(InvalidOption, match="is the beginning of .* and .*; give more of it"):
        resolve(id_[:6])


def test_a_task_of_any_length_has_an_error(kit: StoreKit) -> None:
    """Plain SQL may name one; the index of signatures takes no text of any length."""
    holder = kit.worker()
    kit.add(task="ä" * 3000)
    claim = kit.take_one(holder)
    assert kit.finish(holder, kit.failed(claim)) == {claim.id: State.FAILED}
    [group] = groups(kit)
    assert found(kit, group.signature) == [claim.id]
