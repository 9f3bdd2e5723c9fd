"""Where a key is in line among others, and when workers pass it over."""

from typing import Any

import pytest
from sqlalchemy import event, select

from jobqueue.store.clock import after, epoch
from jobqueue.store.lane_rows import LANES_AT_ONCE
from jobqueue.store.lanes import HEADS_MIN, PARKED_MAX
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import LaneKind, Parked, PauseKind, jobs, lanes
from tests.store.lane_bench import LaneBench
from tests.store.lane_bench import bench as bench


def in_order(bench: LaneBench, *made: int) -> None:
    """Have jobs be due in this order: on SQLite they may be of one millisecond."""
    for seconds, id_ in enumerate(made, -100):
        bench.kit.change(id_, run_at=after(seconds))


def is_passed_over(bench: LaneBench, key: str) -> bool:
    return bool(bench.rows()[key].parked == Parked.FULL)


# In line


def test_a_full_key_is_in_line_with_its_next_job_and_not_with_one_that_a_limit_of_0_holds(
    bench: LaneBench,
) -> None:
    (held,) = bench.add("a", limit=0)
    first, last = bench.add("a", limit=1, count=2)
    (other,) = bench.add("b", limit=1)
    in_order(bench, held, first, other, last)
    (claim,) = bench.claim(limit=1)
    bench.end(claim, key="a")
    assert [claim.id, *bench.ids(limit=1), *bench.ids(limit=1)] == [first, other, last]


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_a_key_whose_only_job_another_transaction_locks_is_not_removed(bench: LaneBench) -> None:
    (locked,) = bench.add("a")
    bench.sweep()
    with bench.kit.store.write() as other:
        other.execute(select(jobs).where(jobs.c.id == locked).with_for_update())
        assert not bench.try_claim().claims
    assert bench.ids() == [locked]


def test_a_key_with_more_jobs_than_were_claimed_at_once_stays_in_line(bench: LaneBench) -> None:
    made = bench.add("a", count=2 * HEADS_MIN + 1)
    assert len(bench.claim(limit=2 * HEADS_MIN)) == 2 * HEADS_MIN
    assert [claim.id for claim in bench.try_claim().claims] == made[-1:]


@pytest.mark.parametrize("max_running", [None, 1000])
def test_one_claim_serves_a_bounded_number_of_keys_and_the_next_goes_on(
    bench: LaneBench, max_running: int | None
) -> None:
    for number in range(LANES_AT_ONCE + 1):
        bench.add(f"key {number}")
    bench.switch(max_running=max_running)
    bench.sweep()
    found = [len(bench.try_claim(limit=2 * LANES_AT_ONCE).claims) for _ in range(3)]
    assert found == [LANES_AT_ONCE, 1, 0]


# Passed over


@pytest.mark.parametrize("limits", [(1,), (1, 2)], ids=str)
def test_full_keys_are_passed_over_at_once_however_many_jobs_wait_in_them(
    bench: LaneBench, limits: tuple[int, ...]
) -> None:
    for key in "abc":
        bench.add(key, limit=2, count=2)
    assert len(bench.claim()) == 6
    for key in "abc":
        for limit in limits:
            bench.add(key, limit=limit, count=1 + HEADS_MIN // len(limits))
    bench.unpark(*"abc")
    assert not bench.claim(limit=3)
    assert all(is_passed_over(bench, key) for key in "abc")


def test_jobs_with_a_limit_of_0_among_others_leave_out_no_key_of_a_claim(bench: LaneBench) -> None:
    held = [bench.add(key, limit=0)[0] for key in "abc"]
    made = [bench.add(key)[0] for _ in range(HEADS_MIN + 1) for key in "abc"]
    in_order(bench, *held, *made)
    assert bench.ids(limit=3) == made[:3]


def test_a_key_with_nothing_left_but_a_limit_of_0_is_passed_over(bench: LaneBench) -> None:
    bench.add("a", limit=1)
    bench.add("a", limit=0)
    assert len(bench.claim()) == 1
    assert is_passed_over(bench, "a")


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("other", [None, 1])
def test_a_job_behind_many_with_a_limit_of_0_starts_and_leaves_the_key_of_these_passed_over(
    bench: LaneBench, limit: int, other: int | None
) -> None:
    bench.add("a", limit=limit, count=HEADS_MIN + 2)
    (free,) = bench.add("a", limit=other)
    assert [id_ for _ in range(3) for id_ in bench.ids(limit=1)] == [free]
    assert is_passed_over(bench, "a")


def test_a_full_key_is_passed_over_for_five_seconds_at_most(bench: LaneBench) -> None:
    bench.add("a", limit=1, count=2)
    bench.claim()
    with bench.kit.store.read() as connection:
        present = connection.execute(select(epoch())).scalar_one()
    assert PARKED_MAX - 1 < bench.rows()["a"].parked_until - present <= PARKED_MAX == 5.0


def test_a_strict_job_that_is_due_again_waits_while_its_limit_is_0(bench: LaneBench) -> None:
    (first, _) = bench.add("a", limit=1, strict=True, count=2)
    (claim,) = bench.claim()
    bench.kit.finish(bench.holder, bench.kit.released(claim))
    bench.kit.change(first, lane_limit=0)
    bench.unpark("a")
    assert bench.ids() == []


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_strict_job_that_is_due_again_is_held_to_its_own_limit_and_not_to_another_one(
    bench: LaneBench, is_paused: bool
) -> None:
    first, second, _ = bench.add("a", limit=3, strict=True, count=3)
    running = bench.claim()
    bench.kit.finish(bench.holder, *(bench.kit.released(claim) for claim in running[:2]))
    bench.kit.change(second, lane_limit=1)
    if is_paused:
        Pauses(bench.kit.store).pause(PauseKind.TASK, "another")
    assert bench.ids() == [first]


# Found


def test_a_new_key_with_the_name_of_a_limited_queue_is_found_without_a_sweep(
    bench: LaneBench,
) -> None:
    bench.add(None, queue="mail")
    bench.switch("mail", max_running=1)
    bench.sweep()
    bench.add("mail")
    bench.add_new()
    with bench.kit.store.read() as connection:
        kinds = connection.execute(select(lanes.c.kind).where(lanes.c.name == "mail")).scalars()
        assert set(kinds) == {LaneKind.QUEUE, LaneKind.KEY}


def test_lanes_are_added_in_the_order_of_their_names(bench: LaneBench) -> None:
    """Two workers that add the same ones in different orders would wait for each other."""
    bench.add("z", queue="first")
    bench.add("a", queue="second")
    added: list[Any] = []

    def note(*given: Any) -> None:
        if given[2].startswith("INSERT INTO jobqueue_lanes"):
            added.append(str(given[3]))

    event.listen(bench.kit.store.engine, "before_cursor_execute", note)
    bench.sweep()
    (names,) = (text for text in added if "first" in text)
    assert names.index("second") < names.index("first")


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize("max_running", [None, 9])
def test_a_key_behind_one_whose_first_job_another_transaction_locks_is_next(
    bench: LaneBench, max_running: int | None
) -> None:
    (locked,), (free,) = bench.add("a"), bench.add("b")
    bench.kit.change(locked, priority=-1)
    bench.switch(max_running=max_running)
    bench.sweep()
    with bench.kit.store.write() as other:
        other.execute(select(jobs).where(jobs.c.id == locked).with_for_update())
        found = bench.try_claim(limit=1)
        assert (found.claims, found.has_more) == ([], True)
        assert [claim.id for claim in bench.try_claim(limit=1).claims] == [free]
        assert not bench.try_claim(limit=1).has_more
    assert bench.ids() == [locked]
