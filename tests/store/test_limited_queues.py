"""Queues with a limit, a rate or fair shares: what holds them back, and for how long."""

from typing import Any

import pytest
from sqlalchemy import select

from jobqueue.store.clock import epoch
from jobqueue.store.lanes import PARKED_MAX
from jobqueue.store.schema import Parked, lanes
from jobqueue.store.sql.lanes import WAIT_MAX
from tests.store.lane_bench import LaneBench
from tests.store.lane_bench import bench as bench


@pytest.mark.parametrize("count", [1, 60])
def test_the_starts_of_a_rate_are_its_period_by_its_count_apart(
    bench: LaneBench, count: int
) -> None:
    bench.kit.add_many(3)
    bench.switch(rate_count=count, rate_period=3600.0 * count)
    bench.sweep()
    found = bench.try_claim()
    assert len(found.claims) == 1
    assert found.retry_in is not None
    assert 3590 < found.retry_in <= 3600


@pytest.mark.parametrize(
    "switch", [{"max_running": 0}, {"rate_count": 0}, {"max_running": -1}], ids=str
)
def test_a_limit_or_a_rate_of_0_is_a_pause(bench: LaneBench, switch: Any) -> None:
    bench.kit.add()
    bench.add("a")
    bench.switch(**switch)
    assert bench.ids() == []


def test_what_runs_in_other_queues_takes_no_room_of_a_limit(bench: LaneBench) -> None:
    bench.add(None, queue="other", count=3)
    bench.add(None, count=3)
    assert len(bench.kit.take(bench.holder, queue="other")) == 3
    bench.switch(max_running=2)
    assert len(bench.claim()) == 2


@pytest.mark.parametrize(
    ("switch", "wait"),
    [
        ({"rate_count": 2, "rate_period": 60.0}, 30.0),
        ({"rate_count": 1, "rate_period": 3600.0}, WAIT_MAX),
        ({"max_running": 1}, PARKED_MAX),
    ],
    ids=["rate", "slow rate", "limit"],
)
def test_a_queue_is_passed_over_until_its_rate_allows_a_start_or_for_five_seconds(
    bench: LaneBench, switch: Any, wait: float
) -> None:
    bench.kit.add_many(3)
    bench.switch(**switch)
    for _ in range(2):
        bench.claim()
    with bench.kit.store.read() as connection:
        present = connection.execute(select(epoch())).scalar_one()
    row = bench.rows()["default"]
    assert row.parked == Parked.FULL
    assert wait - 2 < row.parked_until - present <= wait


@pytest.mark.parametrize(("step", "are_found"), [(-30.0, set()), (-7200.0, {"default"})], ids=str)
def test_a_clock_that_was_turned_back_far_parks_no_queue(
    bench: LaneBench, step: float, are_found: set[str]
) -> None:
    """The worker that would look there again by its own clock may have stopped."""
    bench.kit.add_many(3)
    bench.switch(rate_count=1, rate_period=30.0)
    bench.claim()
    ahead = {name: lanes.c[name] - step for name in ("next_start", "parked_until")}
    with bench.kit.store.write() as connection:
        connection.execute(lanes.update().values(ahead))
    bench.sweep()
    with bench.kit.store.read() as connection:
        assert set(bench.lanes.with_work(connection, None)) == are_found


def test_keys_take_turns_at_a_single_slot_of_a_fair_queue(bench: LaneBench) -> None:
    heavy, light = bench.add("heavy", weight=3, count=12), bench.add("light", count=12)
    bench.switch(fair=1)
    taken = {id_ for _ in range(12) for id_ in bench.ids(limit=1)}
    assert (len({*heavy} & taken), len({*light} & taken)) == (9, 3)


def test_a_limited_queue_is_looked_into_though_a_key_of_another_queue_has_its_name(
    bench: LaneBench,
) -> None:
    bench.add("default", queue="other")
    bench.sweep()
    bench.kit.add()
    bench.switch(max_running=1)
    bench.sweep()
    with bench.kit.store.read() as connection:
        assert set(bench.lanes.with_work(connection, None)) == {"default", "other"}
