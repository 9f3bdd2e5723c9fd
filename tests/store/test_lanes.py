"""Lanes: limits, rates, order and shares of the jobs of a concurrency key, and of limited queues."""

from typing import Any

import pytest
from sqlalchemy import select, text

from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.clock import after, epoch
from jobqueue.store.lanes import HEADS_MIN, PARKED_BETWEEN_ATTEMPTS
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import Parked, PauseKind, lanes
from tests.store.lane_bench import LaneBench
from tests.store.lane_bench import bench as bench


def test_plain_claims_pass_over_the_jobs_of_a_key(bench: LaneBench) -> None:
    bench.add("a")
    plain = bench.kit.add()
    assert [claim.id for claim in bench.kit.take(bench.holder)] == [plain]


def test_a_claim_is_as_complete_as_that_of_a_plain_job(bench: LaneBench) -> None:
    (id_,) = bench.add("a")
    (claim,) = bench.claim()
    row = bench.kit.row(id_)
    assert (claim.id, claim.fence, claim.attempt, claim.worker_id) == (id_, 1, 1, bench.holder.id)
    assert (row.state, row.worker, row.started_at) == (State.RUNNING, "w1", claim.started_at)
    assert bench.kit.finish(bench.holder, bench.kit.succeeded(claim)) == {id_: State.SUCCEEDED}


def test_at_most_as_many_of_a_key_run_as_its_limit_says(bench: LaneBench) -> None:
    ids = bench.add("a", limit=2, count=5)
    first = bench.claim()
    assert [claim.id for claim in first] == ids[:2]
    assert bench.ids() == []
    bench.end(first[0], key="a")
    assert bench.ids() == ids[2:3]


def test_a_full_key_holds_up_no_other(bench: LaneBench) -> None:
    bench.add("full", limit=0, count=50)
    (free,) = bench.add("free", limit=1)
    assert bench.ids(limit=1) == []  # The full key came first, and is parked.
    assert bench.ids(limit=1) == [free]


def test_a_key_that_a_claim_fills_is_passed_over_from_then_on(bench: LaneBench) -> None:
    bench.add("a", limit=1, count=2 * HEADS_MIN)
    assert len(bench.claim(limit=2)) == 1
    assert bench.rows()["a"].parked == Parked.FULL


def test_as_many_of_a_key_are_claimed_at_once_as_there_are_slots(bench: LaneBench) -> None:
    ids = bench.add("a", count=3 * HEADS_MIN)
    assert bench.ids(limit=2 * HEADS_MIN) == ids[: 2 * HEADS_MIN]


def test_keys_whose_jobs_were_all_seen_are_passed_over_at_once(bench: LaneBench) -> None:
    for key in "abc":
        bench.add(key, limit=0)
    assert bench.claim(limit=3) == []
    assert {row.parked for row in bench.rows().values()} == {Parked.FULL}


def test_each_job_is_held_to_its_own_limit(bench: LaneBench) -> None:
    (one,) = bench.add("a", limit=3)
    (two,) = bench.add("a", limit=3)
    bench.add("a", limit=2)
    assert bench.ids() == [one, two]


def test_a_job_that_its_own_limit_holds_back_holds_back_no_other(bench: LaneBench) -> None:
    running, _, *_ = bench.add("a", limit=1, count=2)
    assert bench.ids(limit=1) == [running]
    bench.add("a", limit=0, count=9)
    other, *_ = bench.add("a", limit=2, count=2)
    bench.unpark("a")
    assert bench.ids(limit=20) == [other]


def test_jobs_with_a_limit_of_0_in_front_of_their_key_hold_back_no_other(bench: LaneBench) -> None:
    bench.add("a", limit=0, count=9)
    (other,) = bench.add("a", limit=1)
    assert bench.ids(limit=2) == [other]
    bench.add("b", limit=0, strict=True)
    bench.add("b", limit=0, count=9)
    bench.add("b", limit=1)
    assert bench.ids(limit=2) == []  # None overtakes a strict one.


def test_jobs_with_a_limit_of_0_beside_one_that_waits_hide_no_other(bench: LaneBench) -> None:
    bench.add("a", limit=1)
    bench.claim()
    bench.add("a", limit=1)
    bench.add("a", limit=0, count=HEADS_MIN)
    (other,) = bench.add("a", limit=2)
    bench.unpark("a")
    assert bench.ids(limit=1) == [other]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("limit", [0, 1])
def test_a_key_stays_in_line_while_jobs_with_other_limits_may_be_behind(
    bench: LaneBench, limit: int, paused: bool
) -> None:
    if paused:
        Pauses(bench.kit.store).pause(PauseKind.TASK, "send")
    (first,) = bench.add("a")
    bench.add("a", limit=limit, count=HEADS_MIN)
    (other,) = bench.add("a")
    assert bench.ids(limit=2) + bench.ids(limit=2) == [first, other]


@pytest.mark.parametrize("count", [1, HEADS_MIN + 2])
def test_a_strict_job_starts_behind_those_of_its_key_with_a_limit_of_0(
    bench: LaneBench, count: int
) -> None:
    """However many: such a limit is a pause."""
    bench.add("a", limit=0, count=count)
    (strict,) = bench.add("a", limit=1, strict=True)
    assert bench.ids() == [strict]


@pytest.mark.databases("sqlite")  # PostgreSQL takes no text for a number.
def test_many_limits_that_are_texts_in_front_of_their_key_hold_back_no_other(
    bench: LaneBench,
) -> None:
    bench.add("a", limit=0, count=HEADS_MIN + 2)
    with bench.kit.store.write() as connection:
        connection.execute(text("UPDATE jobqueue_jobs SET lane_limit = 'many'"))
    (free,) = bench.add("a", limit=1)
    assert bench.ids(limit=1) == [free]


def test_one_key_is_one_lane_in_all_queues(bench: LaneBench) -> None:
    (first,) = bench.add("a", limit=1, queue="one")
    (second,) = bench.add("a", limit=1, queue="two")
    taken = [(queue, bench.claim(queue=queue)) for _ in range(3) for queue in ("one", "two")]
    got = [claim for _, claims in taken for claim in claims]
    assert len(got) == 1
    bench.end(got[0], key="a")
    rest = [id_ for _ in range(3) for queue in ("one", "two") for id_ in bench.ids(queue=queue)]
    assert sorted([got[0].id, *rest]) == [first, second]


def test_jobs_of_keys_are_claimed_in_the_order_of_all(bench: LaneBench) -> None:
    ids = [bench.add(key)[0] for key in "cabbac"]
    urgent = bench.kit.add(priority=-1)
    bench.kit.change(urgent, lane="d")
    assert bench.ids() == [urgent, *ids]


@pytest.mark.parametrize("paused", ["nothing", "another task"])
def test_a_job_that_comes_in_front_of_its_key_goes_before_those_of_other_keys(
    bench: LaneBench, paused: str
) -> None:
    if paused != "nothing":
        Pauses(bench.kit.store).pause(PauseKind.TASK, "send")
    bench.add("a", count=3)
    bench.add("b", count=3)
    bench.claim(limit=1)
    (urgent,) = bench.add("b")
    bench.kit.change(urgent, priority=-1)
    assert bench.ids(limit=1) == [urgent]


@pytest.mark.parametrize("by", ["limit", "pause"])
def test_a_job_that_is_passed_over_brings_its_key_before_no_other(
    bench: LaneBench, by: str
) -> None:
    """A claim for one slot looks at the first key in line."""
    if by == "limit":
        bench.add("a", limit=0)
    else:
        bench.kit.change(bench.kit.add(task="send"), lane="a")
        Pauses(bench.kit.store).pause(PauseKind.TASK, "send")
    ids = [bench.add(key)[0] for key in "bbaab"]
    for seconds, id_ in enumerate(ids):  # On SQLite they may be of one millisecond.
        bench.kit.change(id_, run_at=after(seconds))
    assert [id_ for _ in ids for id_ in bench.ids(limit=1)] == ids


@pytest.mark.parametrize("count", [9, 10])
def test_a_key_is_in_line_with_its_first_job_that_may_start_if_that_is_among_ten(
    bench: LaneBench, count: int
) -> None:
    """Of more jobs, a sweep reads none for it: then the key is in line with its first job."""
    bench.add("a", limit=0, count=count)
    (late,) = bench.add("a", limit=1)
    (other,) = bench.add("b", limit=1)
    bench.kit.change(late, priority=2)
    bench.kit.change(other, priority=1)
    assert bench.ids(limit=1) == [other if count < 10 else late]


def test_an_empty_lane_is_removed(bench: LaneBench) -> None:
    bench.add("a", count=2)
    bench.claim(limit=1)
    assert set(bench.rows()) == {"a"}
    bench.claim()
    assert bench.rows() == {}


def test_a_paused_queue_gives_no_jobs_of_keys(bench: LaneBench) -> None:
    bench.add("a")
    bench.kit.pause("default")
    assert bench.ids() == []


def test_a_worker_without_its_lease_claims_nothing(bench: LaneBench) -> None:
    bench.add("a")
    bench.sweep()
    assert not bench.try_claim(holder=WorkerRef(10**6, "gone")).claims


# In order


def test_a_strict_job_keeps_its_place_until_its_next_attempt(bench: LaneBench) -> None:
    first, second = bench.add("a", limit=1, strict=True, count=2)
    (claim,) = bench.claim()
    bench.kit.finish(bench.holder, bench.kit.errored(claim, delay=3600.0))
    bench.unpark("a")
    assert bench.ids() == []
    with bench.kit.store.read() as connection:
        present = connection.execute(select(epoch())).scalar_one()
    assert 0 < bench.rows()["a"].parked_until - present <= PARKED_BETWEEN_ATTEMPTS
    bench.kit.make_due(first)
    bench.kit.maintenance.promote(100)
    bench.unpark("a")
    (claim,) = bench.claim()
    assert (claim.id, claim.attempt) == (first, 2)
    bench.end(claim, key="a")
    assert bench.ids() == [second]


def test_a_strict_job_that_was_given_back_goes_first(bench: LaneBench) -> None:
    first, second = bench.add("a", limit=1, strict=True, count=2)
    (claim,) = bench.claim()
    bench.kit.finish(bench.holder, bench.kit.released(claim))
    bench.kit.change(second, priority=-5)
    bench.unpark("a")
    assert bench.ids() == [first]


def test_others_follow_a_strict_job_that_was_due_again_while_there_is_room(
    bench: LaneBench,
) -> None:
    first, second = bench.add("a", limit=2, strict=True, count=2)
    (claim,) = bench.claim(limit=1)
    bench.kit.finish(bench.holder, bench.kit.released(claim))
    bench.unpark("a")
    assert bench.ids() == [first]
    assert bench.ids() == [second]


def test_a_strict_job_that_an_operator_retries_goes_first_and_overtakes_none_that_runs(
    bench: LaneBench,
) -> None:
    """It takes its place again, as between two attempts: the limit holds, and none overtakes it."""
    first, second, third = bench.add("a", limit=1, strict=True, count=3)
    (claim,) = bench.claim()
    bench.kit.finish(bench.holder, bench.kit.failed(claim))
    bench.unpark("a")
    (running,) = bench.claim()
    assert running.id == second  # A failed job holds up none.
    bench.kit.jobs.retry(JobFilter(ids=(first,)))
    bench.unpark("a")
    assert bench.ids() == []
    bench.end(running, key="a")
    (again,) = bench.claim()
    assert (again.id, again.attempt) == (first, 2)
    assert bench.ids() == []
    bench.end(again, key="a")
    assert bench.ids() == [third]


def test_of_two_strict_jobs_that_are_retried_the_first_is_first(bench: LaneBench) -> None:
    first, second, third = bench.add("a", limit=1, strict=True, count=3)
    for _ in range(2):
        (claim,) = bench.claim()
        bench.kit.finish(bench.holder, bench.kit.failed(claim))
        bench.unpark("a")
    bench.kit.jobs.retry(JobFilter(ids=(second,)))
    bench.kit.jobs.retry(JobFilter(ids=(first,)))
    order = []
    for _ in range(3):
        bench.unpark("a")
        (claim,) = bench.claim()
        order.append(claim.id)
        bench.end(claim, key="a")
    assert order == [first, second, third]


def test_a_job_that_is_not_strict_lets_others_go_between_its_attempts(bench: LaneBench) -> None:
    _, second = bench.add("a", limit=1, count=2)
    (claim,) = bench.claim()
    bench.kit.finish(bench.holder, bench.kit.errored(claim, delay=3600.0))
    bench.unpark("a")
    assert bench.ids() == [second]


# Queues


def test_plain_claims_pass_over_a_limited_queue(bench: LaneBench) -> None:
    bench.kit.add()
    bench.switch(max_running=1)
    assert bench.kit.take(bench.holder) == []


def test_a_queue_runs_as_many_jobs_as_its_limit_says(bench: LaneBench) -> None:
    plain = bench.kit.add_many(3)
    (keyed,) = bench.add("a")
    bench.switch(max_running=2)
    first = bench.claim()
    assert [claim.id for claim in first] == plain[:2]
    assert bench.ids() == []
    bench.end(*first, key="default")
    assert bench.ids() == [plain[2], keyed]


def test_a_limit_counts_the_jobs_that_ran_before_it(bench: LaneBench) -> None:
    bench.kit.add_many(5)
    bench.kit.take(bench.holder, limit=3)
    bench.switch(max_running=4)
    assert len(bench.claim()) == 1


def test_a_queue_goes_on_once_what_ran_before_its_limit_has_ended(bench: LaneBench) -> None:
    """No worker brings its lane back: when those jobs were claimed there was none."""
    bench.kit.add_many(9)
    claims = bench.kit.take(bench.holder, limit=5)
    bench.switch(max_running=2)
    assert bench.ids() == [] and bench.rows()["default"].parked == Parked.FULL
    with bench.kit.store.write() as connection:  # Nor is its time up meanwhile.
        later = {"parked_until": lanes.c.parked_until + 30}
        connection.execute(lanes.update().where(lanes.c.parked == Parked.FULL).values(later))
    for ended, is_open in ((claims[:3], False), (claims[3:], True)):
        bench.end(*ended)
        bench.sweep()
        with bench.kit.store.read() as connection:
            assert bool(bench.lanes.with_work(connection, None)) == is_open
    assert len(bench.ids()) == 2


def test_a_rate_is_not_looked_at_in_vain(bench: LaneBench) -> None:
    bench.kit.add_many(3)
    bench.switch(max_running=2, rate_count=1, rate_period=3600.0)
    assert len(bench.ids()) == 1
    bench.sweep()
    assert bench.rows()["default"].parked == Parked.FULL


def test_a_key_with_the_name_of_its_queue_leaves_the_queues_rate_alone(bench: LaneBench) -> None:
    bench.add("default")
    bench.kit.add()
    bench.switch(rate_count=1, rate_period=3600.0)
    assert len(bench.ids()) == 1  # The lane of the key is empty, and removed.
    assert bench.ids() == []


def test_a_job_needs_room_in_its_queue_and_in_its_key(bench: LaneBench) -> None:
    bench.add("a", limit=1, count=3)
    (other,) = bench.add("b", limit=1)
    bench.switch(max_running=3)
    assert len(bench.claim()) == 2
    assert bench.kit.state(other) == State.RUNNING


def test_a_limit_of_zero_is_a_pause(bench: LaneBench) -> None:
    bench.kit.add()
    bench.switch(max_running=0)
    assert bench.ids() == []


def test_a_queue_that_was_empty_is_looked_at_again(bench: LaneBench) -> None:
    bench.switch(max_running=5)
    first = bench.kit.add()
    assert bench.ids() == [first]
    assert bench.ids() == []
    second = bench.kit.add()
    bench.sweep()
    with bench.kit.store.read() as connection:
        assert bench.lanes.with_work(connection, None) == ["default"]
    assert bench.ids() == [second]


@pytest.mark.parametrize("switch", [{"max_running": 9}, {"fair": 1}], ids=str)
def test_the_lane_of_a_queue_takes_no_slot_of_its_keys(bench: LaneBench, switch: Any) -> None:
    ids = bench.add("a", count=3)
    bench.switch(**switch)
    assert [id_ for _ in ids for id_ in bench.ids(limit=1)] == ids


@pytest.mark.parametrize("paused", [False, True])
def test_a_limited_queue_stays_in_line_until_its_last_job_is_claimed(
    bench: LaneBench, paused: bool
) -> None:
    if paused:
        Pauses(bench.kit.store).pause(PauseKind.TASK, "send")
    bench.kit.add_many(3)
    bench.switch(max_running=9)
    bench.sweep()
    is_in_line = []
    for _ in range(3):
        assert len(bench.try_claim(limit=1).claims) == 1
        with bench.kit.store.read() as connection:
            is_in_line.append(bench.lanes.with_work(connection, None) == ["default"])
    assert is_in_line == [True, True, False]


def test_a_rate_holds_starts_apart(bench: LaneBench) -> None:
    bench.kit.add_many(5)
    bench.switch(rate_count=1, rate_period=3600.0)
    bench.sweep()
    first = bench.try_claim()
    assert len(first.claims) == 1
    assert first.retry_in is not None
    assert 3590 < first.retry_in <= 3600
    assert bench.ids() == []


@pytest.mark.parametrize(
    ("count", "period"), [(250, 1.0), (1000, 1.0), (10**9, 0.001), (1, 1e-320)]
)
def test_a_rate_of_many_a_second_lets_jobs_start(
    bench: LaneBench, count: int, period: float
) -> None:
    """An instant is a float of seconds since 1970: it is exact to a fourth of a microsecond."""
    bench.kit.add()
    bench.switch(rate_count=count, rate_period=period)
    assert len(bench.ids()) == 1


def test_a_burst_lets_starts_run_ahead(bench: LaneBench) -> None:
    bench.kit.add_many(9)
    bench.switch(rate_count=60, rate_period=36000.0, rate_burst=4)
    assert len(bench.claim()) == 4


def test_a_clock_that_was_turned_back_holds_a_rate_up_for_one_burst(bench: LaneBench) -> None:
    bench.kit.add_many(3)
    bench.switch(rate_count=1, rate_period=60.0)
    bench.claim()
    with bench.kit.store.write() as connection:
        connection.execute(lanes.update().values(next_start=lanes.c.next_start + 7200))
    retry_in = bench.try_claim().retry_in
    assert retry_in is not None
    assert retry_in <= 60


def test_keys_share_a_fair_queue_by_weight(bench: LaneBench) -> None:
    heavy = set(bench.add("heavy", weight=3, count=60))
    light = set(bench.add("light", weight=1, count=60))
    bench.switch(fair=1)
    taken = [id_ for _ in range(10) for id_ in bench.ids(limit=4)]
    assert (len(heavy & set(taken)), len(light & set(taken))) == (30, 10)


@pytest.mark.parametrize("weight", [-1.0, 1e-320, 1e300, float("inf")])
def test_a_weight_that_only_plain_sql_can_write_counts_as_1(
    bench: LaneBench, weight: float
) -> None:
    odd, other = set(bench.add("odd", weight=weight, count=20)), set(bench.add("other", count=20))
    bench.switch(fair=1)
    taken = {id_ for _ in range(5) for id_ in bench.ids(limit=4)}
    assert (len(odd & taken), len(other & taken)) == (10, 10)


def test_a_late_key_of_a_fair_queue_does_not_wait_behind_a_backlog(bench: LaneBench) -> None:
    bench.add("heavy", count=500)
    bench.switch(fair=1)
    for _ in range(10):
        bench.claim(limit=10)
    late = bench.add("late", count=20)
    taken = bench.ids(limit=10)
    assert 5 <= len(set(taken) & set(late)) <= 6  # An equal share: it has saved nothing up.


@pytest.mark.parametrize("slots", [1, 2])
def test_jobs_without_a_key_share_a_fair_queue_too(bench: LaneBench, slots: int) -> None:
    keyed, plain = bench.add("a", count=20), bench.kit.add_many(20)
    bench.switch(fair=1)
    taken = [id_ for _ in range(10 // slots) for id_ in bench.ids(limit=slots)]
    assert (len(set(taken) & set(keyed)), len(set(taken) & set(plain))) == (5, 5)
