"""Which of several reasons `why` names, and what it tells apart: jobs of other keys, queues and claims."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, update

from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store import why_facts
from jobqueue.store.clock import after
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schema import PauseKind, counters, lanes, queues, workers
from jobqueue.store.sql.why import IDS_MAX
from jobqueue.store.why import explain
from tests.store.test_why import WhyKit
from tests.store.test_why import why as why

SAME_INSTANT = datetime(2026, 1, 1, tzinfo=UTC)


def test_of_several_reasons_it_names_the_first_of_the_table(why: WhyKit) -> None:
    """Each is taken away in turn, in the order of docs/why.md."""
    pauses = Pauses(why.kit.store)
    why.switch(max_running=1, rate_count=1, rate_period=3600.0)
    assert len(why.add("k", limit=1) and why.claim()) == 1
    (id_,) = why.add("k", limit=1, task="mystery", tags='["bulk"]')
    why.kit.change(id_, expires_at=after(-60.0))
    why.execute(update(queues).values(paused_at=after(0.0)))
    pauses.pause(PauseKind.TASK, "mystery")
    pauses.pause(PauseKind.TAG, "bulk")
    why.execute(update(workers).values(queues='["other"]'))
    said = [why.of(id_).code]
    for take_away in (
        lambda: why.kit.change(id_, expires_at=None),
        lambda: why.execute(update(queues).values(paused_at=None)),
        lambda: pauses.resume(PauseKind.TASK, "mystery"),
        lambda: pauses.resume(PauseKind.TAG, "bulk"),
        lambda: why.execute(update(workers).values(queues=None)),
        lambda: why.execute(update(workers).values(tasks='["mystery"]')),
        lambda: why.execute(update(queues).values(max_running=5)),
        lambda: why.execute(update(queues).values(rate_count=None)),
        lambda: why.kit.change(id_, lane_limit=2),
    ):
        take_away()
        said.append(why.of(id_).code)
    assert said == [
        *("expired", "queue_paused", "task_paused", "tag_paused", "no_worker", "unknown_task"),
        *("queue_full", "rate", "lane_full", "claimable"),
    ]


# Not available


@pytest.mark.parametrize(
    ("state", "columns", "sentence"),
    [
        (State.SUCCEEDED, {"worker": None}, "succeeded 5 min ago"),
        (State.FAILED, {"reason": None}, "failed: 1 of 10 attempts, last ValueError"),
    ],
)
def test_an_ended_job_tells_no_more_than_is_known(
    why: WhyKit, state: State, columns: dict[str, Any], sentence: str
) -> None:
    id_ = why.kit.put(state, why.worker, queue="default")
    why.kit.change(id_, finished_at=after(-300.0), **columns)
    assert why.says(id_) == sentence
    again = "--succeeded " if state is State.SUCCEEDED else ""
    assert why.of(id_).advice.endswith(f"jobqueue retry {again}{id_}")


def test_a_job_that_failed_without_an_error_says_why(why: WhyKit) -> None:
    """As one that was interrupted and may start only once."""
    id_ = why.kit.put(State.RUNNING, why.worker, queue="default")
    why.kit.change(id_, state=State.FAILED, worker_id=None, reason="interrupted")
    assert why.says(id_) == "failed: 1 of 10 attempts, interrupted"


def test_a_running_job_whose_start_plain_sql_has_erased_is_running(why: WhyKit) -> None:
    id_ = why.kit.put(State.RUNNING, why.worker, queue="default")
    why.kit.change(id_, started_at=None, progress_at=after(-60.0))
    assert why.of(id_).code == "running"


def test_a_delay_is_named_before_a_task_that_nobody_knows(why: WhyKit) -> None:
    id_ = why.kit.add(task="mystery", delay=30.0)
    assert why.of(id_).code == "not_due"
    assert why.says(id_).startswith("due in 2") or why.says(id_) == "due in 30 s"


@pytest.mark.parametrize("attempt", [0, 3])
def test_a_job_that_workers_put_off_as_none_knows_its_task_says_so(
    why: WhyKit, attempt: int
) -> None:
    """Also one that has had attempts: else it would be told in turn that it is not due."""
    id_ = why.kit.add(task="mystery", delay=9.0)
    why.kit.change(id_, attempt=attempt, fence=2 * attempt + 2, reason="no task")
    assert why.of(id_).code == "unknown_task"
    why.execute(workers.delete())
    assert why.of(id_).code == "not_due"


def test_a_snoozed_job_gives_its_reason_and_not_the_error_before(why: WhyKit) -> None:
    id_ = why.kit.add()
    why.kit.finish(why.worker, why.kit.errored(why.kit.take_one(why.worker), -1.0))
    why.kit.maintenance.promote()
    why.kit.finish(why.worker, why.kit.snoozed(why.kit.take_one(why.worker), 610.0))
    assert why.says(id_) == "due in 10 min (later)"


def test_a_job_that_expires_later_has_not_expired(why: WhyKit) -> None:
    id_ = why.kit.add()
    why.kit.change(id_, expires_at=after(100.0))
    assert why.of(id_).code == "claimable"


@pytest.mark.parametrize("meanwhile", ["taken by another worker", "cancelled"])
def test_a_job_that_is_another_claims_meanwhile_is_looked_at_again(
    why: WhyKit, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Its state alone does not tell that, nor its fence."""
    id_ = why.kit.add()
    claim = why.kit.take_one(why.worker) if meanwhile != "cancelled" else None
    get = why.kit.jobs.get

    def get_before(id_: int) -> Any:
        found = get(id_)
        monkeypatch.undo()
        if claim is None:
            why.kit.jobs.cancel(JobFilter(ids=(id_,)))
        else:
            why.kit.finish(why.worker, why.kit.released(claim))
            why.kit.take_one(why.kit.worker("w2"))
        return found

    monkeypatch.setattr(why.kit.jobs, "get", get_before)
    found = explain(why.kit.jobs, id_)
    assert found is not None
    said = "cancelled 0 ms ago" if claim is None else "running on w2 for "
    assert found.sentence[:9] == said[:9] and ("w2" in found.sentence) == (claim is not None)


# Available


def test_the_operator_who_paused_a_queue_is_not_one_who_did_something_else(why: WhyKit) -> None:
    id_ = why.kit.add()
    Pauses(why.kit.store, "ada").pause(PauseKind.QUEUE, "default")
    bob = Pauses(why.kit.store, "bob")
    bob.pause(PauseKind.QUEUE, "mail")
    QueueControl(why.kit.store, "bob").limit("default", 5)
    assert why.says(id_).endswith(" UTC by ada")


def test_a_worker_of_other_queues_that_knows_the_task_is_of_no_use(why: WhyKit) -> None:
    id_ = why.kit.add(task="mystery")
    why.kit.worker("w2", queues=("mail",), tasks=("mystery",))
    assert why.says(id_) == "no live worker knows the task mystery (1 does not)"


def test_what_holds_a_queue_or_a_key_is_of_that_queue_or_key_and_at_most_100(why: WhyKit) -> None:
    for queue, key in (("other", "j"), ("default", "k")):
        why.add(key, count=IDS_MAX + 2, limit=IDS_MAX + 1, queue=queue)
        why.lanes.sweep()
        with why.kit.store.write() as connection:
            why.lanes.claim(connection, why.worker, queue, IDS_MAX + 1)
    waiting = max(why.kit.row(id_).id for id_ in why.add("k", limit=IDS_MAX + 1))
    found = why.of(waiting)
    assert (found.code, len(found.jobs)) == ("lane_full", 100)
    assert {why.kit.row(id_).lane for id_ in found.jobs} == {"k"}
    why.switch(max_running=3)
    found = why.of(waiting)
    assert (found.code, len(found.jobs)) == ("queue_full", 100)
    assert {why.kit.row(id_).queue for id_ in found.jobs} == {"default"}


# Of a key


def awaiting(why: WhyKit, limit: int) -> int:
    """A strict job that awaits its next attempt, the only one of the key so far."""
    (id_,) = why.add("k", limit=limit, strict=True)
    (claim,) = why.claim()
    why.kit.finish(why.worker, why.kit.errored(claim, delay=3600.0))
    return id_


def look_again(why: WhyKit) -> list[int]:
    """What a claim for one free slot takes."""
    why.lanes.unpark_all()
    return [claim.id for claim in why.claim(limit=1)]


def due_again(why: WhyKit, *ids: int) -> None:
    why.kit.make_due(*ids)
    why.kit.maintenance.promote(100)


def test_a_place_that_is_left_beside_a_job_between_its_attempts_can_be_taken(why: WhyKit) -> None:
    first = awaiting(why, 2)
    second, third = why.add("k", 2, limit=2)
    assert why.of(second).code == "claimable"
    assert look_again(why) == [second]
    found = why.of(third)  # One runs, and one awaits: only that one is behind which to wait.
    assert (found.code, found.jobs) == ("in_order", (first,))


def test_a_job_that_is_due_again_goes_before_a_paused_one(why: WhyKit) -> None:
    first = awaiting(why, 1)
    (paused,) = why.add("k", limit=1, strict=True, task="send", priority=-1)
    (last,) = why.add("k", limit=1)
    Pauses(why.kit.store).pause(PauseKind.TASK, "send")
    assert why.of(last).jobs == (paused,)
    due_again(why, first)
    assert (why.of(first).code, why.of(last).jobs) == ("claimable", (first,))
    assert look_again(why) == [first]


def test_a_job_that_is_due_again_says_which_job_has_taken_its_place(why: WhyKit) -> None:
    first = awaiting(why, 1)
    (second,) = why.add("k", limit=5)
    assert look_again(why) == [second]
    due_again(why, first)
    found = why.of(first)
    assert (found.code, found.sentence) == ("lane_full", f"lane k full: 1 of 1, held by {second}")
    assert look_again(why) == []


def test_each_of_several_jobs_that_are_due_again_is_held_to_its_own_limit(why: WhyKit) -> None:
    """And they wait for none that is not due yet."""
    ids = first, second, _ = why.add("k", 3, limit=5, strict=True)
    claims = why.claim()
    assert [claim.id for claim in claims] == ids
    why.kit.finish(why.worker, *(why.kit.errored(claim, delay=3600.0) for claim in claims))
    (running,) = why.add("k", limit=5)
    assert look_again(why) == [running]
    why.kit.change(first, lane_limit=1)
    why.kit.change(second, lane_limit=2)
    due_again(why, first, second)
    found = why.of(first)
    assert (found.code, found.jobs) == ("lane_full", (running,))
    assert found.sentence == f"lane k full: 1 of 1, held by {running}"
    assert look_again(why) == []
    why.kit.change(first, lane_limit=2)
    why.kit.change(second, lane_limit=1)
    assert look_again(why) == [first]


def test_behind_a_paused_job_between_its_attempts_that_keeps_its_place_the_lane_is_full(
    why: WhyKit,
) -> None:
    first = awaiting(why, 2)
    due_again(why, first)
    why.kit.change(first, task="send")
    Pauses(why.kit.store).pause(PauseKind.TASK, "send")
    urgent, waits = why.add("k", 2, limit=2, priority=-1)
    assert look_again(why) == [urgent]
    found = why.of(waits)
    assert (found.code, found.jobs) == ("lane_full", (urgent,))


@pytest.mark.parametrize("strict", ["the one in front", "the one behind"])
def test_a_strict_job_neither_overtakes_nor_is_overtaken(why: WhyKit, strict: str) -> None:
    """Unlike others of a key, of which each is held to its own limit."""
    why.add("k", limit=1)
    why.claim(limit=1)
    why.add("k", limit=1, strict=strict == "the one in front")
    (last,) = why.add("k", limit=2, strict=strict == "the one behind")
    assert why.says(last) == "behind 1 job of its key"
    assert look_again(why) == []


# In front


def test_jobs_of_a_key_in_a_limited_queue_are_behind_those_without_one(why: WhyKit) -> None:
    why.add(count=2)
    why.add("k")
    (mine,) = why.add("k")
    why.switch(max_running=5)
    assert why.says(mine) == "behind 3 jobs"
    why.execute(update(queues).values(max_running=None, fair=1))  # Now by turns.
    assert why.says(mine) == "behind 1 job"


def test_of_a_key_no_time_is_told(why: WhyKit) -> None:
    """The pace is that of the queue, of which the key gives one at a time."""
    _, mine = why.add("k", 2, limit=1)
    why.execute(
        insert(counters).values(minute=after(-900.0), queue="default", task="add", succeeded=9)
    )
    assert why.says(mine) == "behind 1 job of its key"


@pytest.mark.parametrize("ended", ["succeeded", "failed", "cancelled"])
def test_the_pace_is_of_all_that_ended(why: WhyKit, ended: str) -> None:
    _, mine = why.add(count=2)
    given = {"minute": after(-1210.0), "queue": "default", "task": "add", ended: 2}
    why.execute(insert(counters).values(given))
    assert why.says(mine) == "behind 1 job, about 10 min at the last hour's pace"


def test_of_a_key_and_another_job_of_the_same_instant_the_lower_id_is_first(why: WhyKit) -> None:
    (before,), (of_key,), (behind,) = why.add(), why.add("k"), why.add()
    why.kit.change(before, of_key, behind, run_at=SAME_INSTANT)
    why.switch(max_running=5)
    why.lanes.sweep()
    assert why.of(before).code == "claimable"
    assert why.says(behind) == "behind 1 job and 1 other key"


def test_keys_that_give_no_job_now_are_not_in_front(why: WhyKit) -> None:
    """Of another queue, all paused, or parked."""
    (elsewhere,), (paused,), (parked,) = (
        why.add("elsewhere", queue="other"),
        why.add("paused", task="send"),
        why.add("parked"),
    )
    why.kit.change(elsewhere, paused, parked, run_at=SAME_INSTANT)
    of_key, plain = *why.add("mine"), *why.add()
    why.lanes.sweep()
    why.switch(max_running=5)
    assert why.says(of_key) == "behind 2 other keys"
    Pauses(why.kit.store).pause(PauseKind.TASK, "send")
    assert why.says(of_key) == "behind 1 other key"
    why.execute(update(lanes).where(lanes.c.name == "parked").values(parked=1, parked_until=2e10))
    assert why.of(of_key).code == "claimable"
    assert why.says(plain) == "behind 1 other key"


def test_a_limit_of_another_queue_puts_no_key_in_front(why: WhyKit) -> None:
    why.kit.change(*why.add("k"), run_at=SAME_INSTANT)
    (mine,) = why.add()
    why.lanes.sweep()
    why.execute(insert(queues).values(name="other", max_running=5))
    assert why.of(mine).code == "claimable"


def test_more_keys_than_one_claim_locks_are_counted(
    why: WhyKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(why_facts, "LANES_AT_ONCE", 2)
    for key in "abcd":
        why.kit.change(*why.add(key), run_at=SAME_INSTANT)
    (mine,) = why.add("mine")
    why.lanes.sweep()
    assert why.says(mine) == "behind 4 other keys"


def test_a_key_with_the_name_of_its_queue_is_another_lane(why: WhyKit) -> None:
    (first,), (second,) = why.add("default"), why.add("default")
    why.switch(fair=1)
    assert [claim.id for claim in why.claim(1)] == [first]
    assert why.of(second).code == "claimable"


@pytest.mark.parametrize("turn_of_key", [3.0, 5.0, 6.0])
def test_no_turn_is_further_behind_than_the_queue_and_of_equal_ones_keys_are_first(
    why: WhyKit, turn_of_key: float
) -> None:
    (of_key,), (plain,) = why.add("k"), why.add()
    why.switch(fair=1)
    why.add("other")
    assert len(why.claim(1)) == 1
    why.kit.change(of_key, state=State.AVAILABLE, worker_id=None)
    why.lanes.sweep()
    queue, key = (update(lanes).where(lanes.c.name == name) for name in ("default", "k"))
    why.execute(queue.values(turn=5.0, plain_turn=0.0))
    why.execute(key.values(turn=turn_of_key, parked=0))
    why.execute(update(lanes).where(lanes.c.name == "other").values(turn=9.0))
    is_first = turn_of_key <= 5.0
    assert (why.of(of_key).code, why.of(plain).code) == (
        ("claimable", "behind") if is_first else ("behind", "claimable")
    )
    assert look_again(why) == [of_key if is_first else plain]


def test_a_key_that_no_worker_has_seen_yet_has_the_first_turn(why: WhyKit) -> None:
    why.switch(fair=1)
    why.add("b")
    why.claim(1)
    why.add("b")
    why.lanes.sweep()
    why.execute(update(lanes).where(lanes.c.name == "b").values(turn=3.0, parked=0))
    (new,) = why.add("new")
    assert why.of(new).code == "claimable"
    assert look_again(why) == [new]
