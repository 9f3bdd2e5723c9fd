"""The scaling policy: single decisions, and whole days of them simulated."""

import math
import random
from collections.abc import Callable

import pytest

from jobqueue.worker.execute.autoscale import Decision, Load, decide
from jobqueue.worker.settings import WorkerSettings


def bounds(least: int, most: int) -> WorkerSettings:
    return WorkerSettings(min_concurrency=least, max_concurrency=most)


RULES = bounds(2, 8)
LONG = 1000.0


def size(load: Load, *, since: float = LONG, rules: WorkerSettings = RULES) -> int:
    return decide(rules, load, since_change=since).size


def test_it_grows_while_jobs_wait_and_the_slots_are_busy() -> None:
    assert decide(RULES, Load(2, 2.0, 40), since_change=LONG) == Decision(
        4, "100% busy, jobs waiting"
    )


@pytest.mark.parametrize(
    "load",
    [Load(2, 2.0, 0), Load(2, 1.0, 40), Load(8, 8.0, 40)],
    ids=["none waits", "slots are free", "at the upper bound"],
)
def test_it_does_not_grow_without_need_or_beyond_its_bound(load: Load) -> None:
    assert size(load) == load.size


def test_it_grows_by_no_more_than_what_waits() -> None:
    assert size(Load(4, 4.0, 1)) == 5


def test_it_shrinks_while_the_slots_are_idle_and_none_waits() -> None:
    assert decide(RULES, Load(8, 0.0, 0), since_change=LONG) == Decision(2, "0% busy, none waiting")


@pytest.mark.parametrize(
    "load",
    [Load(8, 0.0, 1), Load(8, 4.0, 0), Load(2, 0.0, 0)],
    ids=["one waits", "half are busy", "at the lower bound"],
)
def test_it_does_not_shrink_without_reason_or_below_its_bound(load: Load) -> None:
    assert size(load) == load.size


@pytest.mark.parametrize("size_", [3, 4, 8])
def test_what_is_left_after_shrinking_is_not_busy_enough_to_grow_again(size_: int) -> None:
    for tenth in range(10 * size_):
        busy = tenth / 10
        left = size(Load(size_, busy, 0))
        if left < size_:
            assert busy / left < RULES.scale_up_at


def test_the_cooldowns_are_kept() -> None:
    assert size(Load(2, 2.0, 9), since=4.9) == 2
    assert size(Load(2, 2.0, 9), since=5.0) == 4
    assert size(Load(8, 0.0, 0), since=9.9) == 8
    assert size(Load(8, 0.0, 0), since=10.0) == 2


def test_a_size_out_of_bounds_comes_back_at_once() -> None:
    assert size(Load(1, 0.0, 0), since=0) == 2
    assert size(Load(12, 12.0, 90), since=0) == 8


# Simulated: a second a step


class Pool:
    """Jobs of a fixed length on a pool that the policy sizes."""

    def __init__(self, rules: WorkerSettings, length: float) -> None:
        self.rules, self.length = rules, length
        self.size, self.changed = rules.min_concurrency, -LONG
        self.waiting = 0
        self.running: list[float] = []
        self.sizes: list[int] = []
        self.longest_queue = 0

    def second(self, present: float, arrivals: int) -> None:
        self.running = [left - 1 for left in self.running if left > 1]
        self.waiting += arrivals
        begin = min(self.waiting, max(0, self.size - len(self.running)))
        self.waiting -= begin
        self.running += [self.length] * begin
        self.longest_queue = max(self.longest_queue, self.waiting)
        load = Load(self.size, float(min(len(self.running), self.size)), self.waiting)
        wanted = decide(self.rules, load, since_change=present - self.changed).size
        if wanted != self.size:
            self.size, self.changed = wanted, present
        self.sizes.append(self.size)

    def turns(self) -> int:
        """How often growing changed to shrinking or back."""
        steps = [b - a for a, b in zip(self.sizes, self.sizes[1:], strict=False) if a != b]
        return sum(
            math.copysign(1, a) != math.copysign(1, b)
            for a, b in zip(steps, steps[1:], strict=False)
        )


def simulate(pool: Pool, seconds: int, arrivals: Callable[[int], int]) -> Pool:
    for second in range(seconds):
        pool.second(second, arrivals(second))
    return pool


def test_two_bursts_grow_the_pool_and_it_ends_as_small_as_it_began() -> None:
    pool = simulate(
        Pool(bounds(2, 6), length=2.0), 120, lambda second: 30 if second in (0, 60) else 0
    )
    assert max(pool.sizes) == 6
    assert pool.sizes[-1] == 2
    assert pool.sizes[55] == 2
    assert pool.waiting == 0
    assert pool.turns() == 3, "up, down, up, down"


def test_a_ramp_is_followed_up_and_down() -> None:
    rate = lambda second: max(0, 10 - abs(second - 300) // 30)
    pool = simulate(Pool(bounds(1, 16), length=1.0), 700, rate)
    assert max(pool.sizes) >= 10
    assert pool.sizes[-1] == 1
    assert pool.longest_queue < 60
    assert pool.waiting == 0


def test_slow_jobs_do_not_starve_behind_a_small_pool() -> None:
    pool = simulate(Pool(bounds(2, 10), length=60.0), 600, lambda second: int(second % 10 == 0))
    assert pool.longest_queue <= 10, "six at a time are needed, so it grows to them"
    assert pool.sizes[-1] >= 6


def test_a_steady_load_settles() -> None:
    random.seed(7)
    pool = simulate(Pool(bounds(1, 20), length=3.0), 1800, lambda _: random.choice([1, 2, 3]))
    settled = pool.sizes[300:]
    assert max(settled) - min(settled) <= 4
    assert pool.turns() <= 1800 / 60, "it does not flap"
    assert pool.waiting < 20
