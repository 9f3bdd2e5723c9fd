"""What `why` says of a job in each state, and of each thing that holds one back."""

from typing import Any

import pytest
from sqlalchemy import insert, text, update

from jobqueue.states import State
from jobqueue.store.clock import after, this_minute
from jobqueue.store.lanes import HEADS_MIN, Lanes
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import LaneKind, PauseKind, counters, jobs, lanes, queues, workers
from jobqueue.store.why import Explanation, explain
from tests.store.conftest import StoreKit


class WhyKit:
    """A database with a live worker, and what is asked about its jobs."""

    def __init__(self, kit: StoreKit) -> None:
        self.kit = kit
        self.lanes = Lanes(kit.store)
        self.execute(lanes.delete())
        self.worker = kit.worker()

    def execute(self, statement: Any) -> None:
        with self.kit.store.write() as connection:
            connection.execute(statement)

    def of(self, id_: int) -> Explanation:
        found = explain(self.kit.jobs, id_)
        assert found is not None
        return found

    def says(self, id_: int) -> str:
        return self.of(id_).sentence

    def add(self, key: str | None = None, count: int = 1, limit: int | None = None,
            strict: bool = False, **given: Any) -> list[int]:  # fmt: skip
        ids: list[int] = self.kit.add_many(count, **given)
        self.kit.change(*ids, lane=key, lane_limit=limit, lane_strict=int(strict))
        return ids

    def switch(self, **switches: Any) -> None:
        self.execute(insert(queues).values(name="default", **switches))

    def claim(self, limit: int = 100) -> list[Any]:
        self.lanes.sweep()
        with self.kit.store.write() as connection:
            return list(self.lanes.claim(connection, self.worker, "default", limit).claims)


@pytest.fixture
def why(kit: StoreKit) -> WhyKit:
    return WhyKit(kit)


def test_of_a_job_that_is_not_there_it_says_nothing(why: WhyKit) -> None:
    assert explain(why.kit.jobs, 7) is None


# Not available


def test_a_delayed_job_is_due_at_its_time(why: WhyKit) -> None:
    id_ = why.kit.add(delay=3 * 3600.0)
    found = why.of(id_)
    assert (found.code, found.sentence) == ("not_due", "due in 3 h")
    assert found.advice == f"wait, or run it now: jobqueue retry {id_}"


def test_between_two_attempts_it_names_the_last_error(why: WhyKit) -> None:
    id_ = why.kit.add()
    why.kit.finish(why.worker, why.kit.errored(why.kit.take_one(why.worker), 125.0))
    assert why.says(id_) == "due in 2 min (next attempt, after ValueError)"


def test_a_snoozed_job_gives_its_reason(why: WhyKit) -> None:
    id_ = why.kit.add()
    why.kit.finish(why.worker, why.kit.snoozed(why.kit.take_one(why.worker), 610.0))
    assert why.says(id_) == "due in 10 min (later)"


def test_a_due_job_that_nobody_makes_available_needs_a_worker(why: WhyKit) -> None:
    id_ = why.kit.add(delay=3600.0)
    why.kit.change(id_, run_at=after(-300.0))
    assert why.says(id_) == "due now"
    why.execute(workers.delete())
    assert (why.of(id_).code, why.says(id_)) == (
        "no_worker",
        "due 5 min ago, but no worker is alive",
    )


def test_a_running_job_names_its_worker_and_for_how_long(why: WhyKit) -> None:
    id_ = why.kit.put(State.RUNNING, why.worker, queue="default")
    why.kit.change(id_, started_at=after(-41 * 60.0))
    assert (why.of(id_).code, why.says(id_)) == ("running", "running on w1 for 41 min")
    assert f"jobqueue cancel {id_}" in why.of(id_).advice
    why.kit.change(id_, progress_at=after(-50 * 60.0))  # Of an earlier attempt.
    assert why.says(id_) == "running on w1 for 41 min"
    why.kit.completion.save_progress(why.worker, [(id_, why.kit.row(id_).fence, 0.5, "half")])
    assert why.says(id_).startswith("running on w1 for 41 min, last progress 0")
    why.kit.change(id_, progress_at=after(-40 * 60.0))
    assert why.says(id_) == "running on w1 for 41 min, last progress 40 min ago"
    why.kit.change(id_, cancel_requested_at=after(-185.0), progress_at=None)
    assert why.says(id_) == "running on w1 for 41 min, asked to stop 3 min ago"
    assert "jobqueue cancel" not in why.of(id_).advice  # That is done.


def test_a_running_job_whose_worker_is_silent_is_lost(why: WhyKit) -> None:
    id_ = why.kit.put(State.RUNNING, why.worker, queue="default")
    why.kit.change(id_, started_at=after(-600.0))
    why.execute(update(workers).values(heartbeat_at=after(-300.0)))
    assert why.says(id_) == "claimed 10 min ago by w1, which is silent for 5 min"
    why.execute(workers.delete())
    assert (why.of(id_).code, why.says(id_)) == (
        "worker_lost",
        "claimed 10 min ago by w1, which is gone",
    )


def test_a_job_that_plain_sql_has_set_to_running_says_how_it_runs(why: WhyKit) -> None:
    id_ = why.kit.add()
    why.kit.change(id_, state=State.RUNNING)
    found = why.of(id_)
    assert (found.code, found.sentence[:23]) == ("worker_lost", "in no worker's hands: p")
    why.execute(text(found.advice.removeprefix("let it run by SQL: ")))
    assert why.of(id_).code == "claimable"


@pytest.mark.parametrize(
    ("state", "columns", "sentence"),
    [
        (State.SUCCEEDED, {}, "succeeded 5 min ago on w1"),
        (State.SUCCEEDED, {"reason": "too long"}, "succeeded 5 min ago on w1 (too long)"),
        (State.FAILED, {"attempt": 10}, "failed: 10 of 10 attempts, spent, last ValueError"),
        (State.CANCELLED, {"reason": "expired"}, "cancelled 5 min ago: expired"),
        (
            State.CANCELLED,
            {"started_at": None, "reason": None},
            "cancelled 5 min ago, before it began",
        ),
    ],
)
def test_an_ended_job_tells_its_end(why: WhyKit, state: Any, columns: Any, sentence: str) -> None:
    id_ = why.kit.put(state, why.worker, queue="default")
    why.kit.change(id_, finished_at=after(-300.0), **columns)
    assert (why.of(id_).code, why.says(id_)) == (state.value, sentence)


@pytest.mark.parametrize("meanwhile", ["claimed", "deleted"])
def test_a_job_that_changes_while_it_is_looked_at_is_looked_at_again(
    why: WhyKit, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    id_, get = why.kit.add(), why.kit.jobs.get

    def get_before(id_: int) -> Any:
        found = get(id_)
        monkeypatch.undo()
        if meanwhile == "claimed":
            why.kit.take(why.worker)
        else:
            why.execute(jobs.delete())
        return found

    monkeypatch.setattr(why.kit.jobs, "get", get_before)
    found = explain(why.kit.jobs, id_)
    assert (None if found is None else found.code) == {"claimed": "running"}.get(meanwhile)


# Available


def test_a_job_that_nothing_holds_back_is_claimable(why: WhyKit) -> None:
    id_ = why.kit.add()
    assert why.of(id_) == Explanation(
        id_,
        "claimable",
        "claimable now, the next of its queue (1 live worker)",
        "nothing: a worker takes it at its next look",
        (),
        ("default",),
    )
    why.execute(update(workers).values(running=4))
    assert why.says(id_) == (
        "claimable, the next of its queue, as soon as a slot is free"
        " (1 live worker of its queue: 4 of 4 slots busy)"
    )


def test_a_paused_queue_says_since_when(why: WhyKit) -> None:
    id_ = why.kit.add()
    why.switch(paused_at=after(-3 * 86_400.0))
    found = why.of(id_)
    assert found.code == "queue_paused"
    assert found.sentence.startswith("queue default paused since 20")
    assert found.advice == "resume it: jobqueue queues resume default"


def test_a_paused_queue_says_by_whom_if_the_audit_knows(why: WhyKit) -> None:
    id_, pauses = why.kit.add(), Pauses(why.kit.store)
    Pauses(why.kit.store, "ada@desk").pause(PauseKind.QUEUE, "default")
    assert why.says(id_).endswith("UTC by ada@desk")
    pauses.resume(PauseKind.QUEUE, "default")
    pauses.pause(PauseKind.QUEUE, "default")
    assert why.says(id_).endswith("UTC")


def test_a_paused_task_or_tag_says_since_when_and_by_whom(why: WhyKit) -> None:
    id_, pauses = why.kit.add(tags='["a", "bulk"]'), Pauses(why.kit.store)
    pauses.pause(PauseKind.TAG, "bulk")
    found = why.of(id_)
    assert (found.code, found.names) == ("tag_paused", ("bulk",))
    assert found.sentence.startswith("tag bulk paused since ") and found.sentence.endswith(" UTC")
    assert found.advice == "resume it: jobqueue resume --tag bulk"
    Pauses(why.kit.store, "ada@desk").pause(PauseKind.TASK, "add")
    found = why.of(id_)
    assert (found.code, found.names) == ("task_paused", ("add",))
    assert found.sentence.endswith(" UTC by ada@desk")
    assert found.advice == "resume it: jobqueue resume --task add"
    pauses.resume(PauseKind.TASK, "add")
    pauses.resume(PauseKind.TAG, "bulk")
    assert why.of(id_).code == "claimable"


def test_in_order_a_job_waits_for_a_paused_one(why: WhyKit) -> None:
    (first,), (second,) = why.add("k", limit=1, strict=True, task="send"), why.add("k", limit=1)
    Pauses(why.kit.store).pause(PauseKind.TASK, "send")
    found = why.of(second)
    assert (found.code, found.jobs) == ("in_order", (first,))
    assert found.sentence == f"in order: behind job {first} of its key, which is paused"
    assert why.claim() == []


def test_paused_jobs_are_not_in_front(why: WhyKit) -> None:
    why.add(count=3, task="send")
    why.add("k", count=3, task="send")
    (plain,), (of_key,) = why.add(), why.add("k")
    Pauses(why.kit.store).pause(PauseKind.TASK, "send")
    assert (why.of(plain).code, why.of(of_key).code) == ("claimable", "claimable")


@pytest.mark.parametrize("delay", [None, 3600.0])
def test_what_has_expired_says_so_before_a_worker_cancels_it(
    why: WhyKit, delay: float | None
) -> None:
    id_ = why.kit.add(delay=delay)
    why.kit.change(id_, expires_at=after(-125.0))
    found = why.of(id_)
    assert (found.code, found.sentence) == ("expired", "expired 2 min ago, before it began")
    assert found.advice == "nothing: a worker cancels it in a second"
    why.execute(workers.delete())
    found = why.of(id_)
    assert (found.code, found.advice) == (
        "expired",
        "start one: jobqueue worker --app MODULE:NAME --queues default",
    )
    assert found.sentence.endswith("before it began, and no worker is alive to cancel it")
    why.kit.change(id_, attempt=1)  # It has begun: it does not expire.
    assert why.of(id_).code != "expired"


def test_in_a_fair_queue_the_keys_that_are_further_behind_are_in_front(why: WhyKit) -> None:
    (of_a,), (of_b,), (plain,) = why.add("a"), why.add("b"), why.add()
    why.switch(fair=1)
    assert len(why.claim(1)) == 1  # The lane of the queue is there.
    why.execute(update(lanes).where(lanes.c.name == "b").values(turn=3.0))
    why.execute(update(lanes).where(lanes.c.name == "default").values(turn=1.0, plain_turn=2.0))
    assert why.kit.state(of_a) is State.RUNNING
    assert (why.of(plain).code, why.says(of_b)) == ("claimable", "behind 1 other key")
    why.execute(update(lanes).where(lanes.c.name == "default").values(plain_turn=4.0))
    assert (why.says(plain), why.of(of_b).code) == ("behind 1 other key", "claimable")


def test_paused_jobs_without_a_key_have_no_turn_in_a_fair_queue(why: WhyKit) -> None:
    (of_a,), (of_b,), _ = why.add("a"), why.add("b"), why.add(task="send")
    why.switch(fair=1)
    assert [claim.id for claim in why.claim(1)] == [of_a]
    Pauses(why.kit.store).pause(PauseKind.TASK, "send")
    why.execute(update(lanes).where(lanes.c.name == "b").values(turn=3.0))
    assert why.of(of_b).code == "claimable"


def test_a_worker_that_is_draining_serves_no_queue(why: WhyKit) -> None:
    id_ = why.kit.add(queue="mail")
    why.kit.leases.note_stop(why.worker.id)
    assert (why.of(id_).code, why.says(id_)) == (
        "no_worker",
        "only workers that are draining serve queue mail",
    )


def test_no_live_worker_serves_the_queue(why: WhyKit) -> None:
    id_ = why.kit.add(queue="mail")
    why.execute(update(workers).values(queues='["default"]'))
    assert (why.of(id_).code, why.says(id_)) == (
        "no_worker",
        "no live worker serves queue mail (1 live worker for other queues)",
    )
    why.execute(update(workers).values(heartbeat_at=after(-300.0)))
    assert why.says(id_) == "no live worker serves queue mail"


def test_a_name_in_an_advice_is_one_word_of_a_shell(why: WhyKit) -> None:
    evil = "$(touch /tmp/x)"
    id_ = why.kit.add(queue=evil)
    why.execute(update(workers).values(queues='["default"]'))
    assert why.of(id_).advice == f"start one: jobqueue worker --app MODULE:NAME --queues '{evil}'"
    why.execute(insert(queues).values(name=evil, paused_at=after(0.0)))
    assert why.of(id_).advice == f"resume it: jobqueue queues resume '{evil}'"
    why.execute(update(queues).values(paused_at=None, max_running=0))
    why.execute(update(workers).values(queues=None))
    assert why.of(id_).advice.endswith(f"jobqueue queues limit '{evil}' N")


def test_no_live_worker_knows_the_task(why: WhyKit) -> None:
    id_ = why.kit.add(task="mystery")
    assert why.says(id_) == "no live worker knows the task mystery (1 does not)"
    why.kit.worker("w2")
    why.kit.worker("w3", queues=("mail",))
    assert why.says(id_) == "no live worker knows the task mystery (2 do not)"
    why.kit.change(id_, state="scheduled", run_at=after(9.0), fence=2, reason="no worker …")
    assert why.of(id_).code == "unknown_task"


def test_a_full_queue_says_by_which_jobs(why: WhyKit) -> None:
    *running, waiting = why.add(count=3)
    why.switch(max_running=2)
    assert len(why.claim()) == 2
    found = why.of(waiting)
    assert (found.code, found.jobs) == ("queue_full", tuple(running))
    assert found.sentence == f"queue default full: 2 of 2, held by {running[0]} and {running[1]}"
    assert found.advice.endswith("raise the limit: jobqueue queues limit default N")


def test_a_limit_of_zero_is_named(why: WhyKit) -> None:
    (id_,) = why.add()
    why.switch(max_running=0)
    assert why.says(id_) == "queue default has the limit 0"
    (id_,) = why.add("k", limit=0, queue="other")
    assert why.says(id_) == "lane k has the limit 0"


def test_behind_a_limit_of_zero_nothing_is_to_be_waited_for(why: WhyKit) -> None:
    """Also not the end of what was running when the limit was set."""
    _, waiting = why.add(count=2)
    why.switch(max_running=1)
    assert len(why.claim()) == 1
    why.execute(update(queues).values(max_running=0))
    found = why.of(waiting)
    assert (found.code, found.sentence) == ("queue_full", "queue default has the limit 0")
    assert found.advice == "raise the limit: jobqueue queues limit default N"
    why.execute(update(queues).values(max_running=None, rate_count=0, rate_period=60.0))
    found = why.of(waiting)
    assert (found.code, found.sentence) == ("rate", "rate of queue default: 0")
    assert found.advice == "raise the rate: jobqueue queues rate default N/minute"


def test_a_rate_says_when_the_next_start_is(why: WhyKit) -> None:
    _, waiting = why.add(count=2)
    why.switch(rate_count=1, rate_period=7200.0)
    assert len(why.claim()) == 1
    assert (why.of(waiting).code, why.says(waiting)) == (
        "rate",
        "rate of queue default: next start in 2 h",
    )
    assert why.of(waiting).advice.endswith("jobqueue queues rate default N/minute")


@pytest.mark.parametrize("count", [HEADS_MIN, HEADS_MIN + 1])
def test_a_claim_passes_over_few_jobs_of_a_key_that_their_own_limits_hold_back(
    why: WhyKit, count: int
) -> None:
    why.add("k", limit=1)
    why.claim(limit=1)
    why.add("k", count=count, limit=1)
    (last,) = why.add("k", limit=2)
    with why.kit.store.write() as connection:
        why.lanes.unpark(connection, [(LaneKind.KEY, "k")])
    said = why.says(last)
    claimed = [claim.id for claim in why.claim(limit=1)]
    if count > HEADS_MIN:
        assert (said, claimed) == (f"behind {count} jobs of its key", [])
    else:
        assert (said[:13], claimed) == ("claimable now", [last])


def test_a_full_lane_says_by_which_jobs(why: WhyKit) -> None:
    first, second, waiting = why.add("tenant-7", 3, limit=2)
    assert len(why.claim()) == 2
    found = why.of(waiting)
    assert (found.code, found.jobs) == ("lane_full", (first, second))
    assert found.sentence == f"lane tenant-7 full: 2 of 2, held by {first} and {second}"


def test_in_order_a_job_waits_for_the_next_attempt_of_another(why: WhyKit) -> None:
    first, second = why.add("k", 2, limit=1, strict=True)
    (claim,) = why.claim()
    assert why.says(second) == f"lane k full: 1 of 1, held by {first}"
    why.kit.finish(why.worker, why.kit.errored(claim, delay=3600.0))
    found = why.of(second)
    assert (found.code, found.jobs) == ("in_order", (first,))
    assert (
        found.sentence == f"in order: behind job {first} of its key, which awaits its next attempt"
    )
    why.kit.make_due(first)
    why.kit.maintenance.promote(100)
    assert why.says(second).endswith("which is due again and goes first")
    why.kit.change(second, priority=-5)
    assert why.of(first).code == "claimable"


def test_in_a_limited_queue_a_job_without_a_key_is_behind_a_strict_one_that_is_due_again(
    why: WhyKit,
) -> None:
    """Wherever the other jobs of its key are: a claim for one free slot takes the strict one."""
    again, _ = why.add("k", 2, limit=1, strict=True, priority=1)
    (claim,) = why.claim()
    (plain,) = why.add()
    why.kit.finish(why.worker, why.kit.released(claim))
    why.switch(max_running=5)
    why.lanes.unpark_all()
    why.lanes.sweep()
    said = why.says(plain)
    assert [claim.id for claim in why.claim(limit=1)] == [again]
    assert said == "behind 1 other key"
    why.lanes.unpark_all()
    assert why.of(plain).code == "claimable"  # The other strict one waits.
    assert [claim.id for claim in why.claim(limit=1)] == [plain]


# Behind others
