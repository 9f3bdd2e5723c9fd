"""Lanes: limits, rates, order and shares of the jobs of a concurrency key, and of limited queues."""

import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import DBAPIError

from jobqueue.records import Claim
from jobqueue.states import State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.lanes import LaneClaims, Lanes
from jobqueue.worker.claim.lanes import LanePlanner
from jobqueue.store.sql.lanes import lane_statements
from jobqueue.store.schema import LaneKind, jobs, lanes, queues
from tests.store.conftest import StoreKit


class LaneBench:
    """A database with jobs in lanes, and a worker that claims them."""

    def __init__(self, kit: StoreKit) -> None:
        self.kit = kit
        self.lanes = Lanes(kit.store)
        self.holder: WorkerRef = kit.worker()

    def add(self, key: str | None, *, limit: int | None = None, strict: bool = False,
            weight: float | None = None, queue: str = "default", count: int = 1) -> list[int]:  # fmt: skip
        ids: list[int] = self.kit.add_many(count, queue=queue)
        self.kit.change(
            *ids, lane=key, lane_limit=limit, lane_strict=int(strict), lane_weight=weight
        )
        return ids

    def switch(self, queue: str = "default", **switches: Any) -> None:
        with self.kit.store.write() as connection:
            connection.execute(queues.insert().values(name=queue, **switches))

    def sweep(self) -> None:
        self.lanes.sweep()

    def try_claim(self, limit: int = 100, queue: str = "default", holder: WorkerRef | None = None) -> LaneClaims:  # fmt: skip
        with self.kit.store.write() as connection:
            return self.lanes.claim(connection, holder or self.holder, queue, limit)

    def claim(self, limit: int = 100, queue: str = "default") -> list[Claim]:
        self.sweep()
        return list(self.try_claim(limit, queue).claims)

    def ids(self, limit: int = 100, queue: str = "default") -> list[int]:
        return [claim.id for claim in self.claim(limit, queue)]

    def end(self, *claims: Claim, key: str | None = None) -> None:
        self.kit.finish(self.holder, *(self.kit.succeeded(claim) for claim in claims))
        if key is not None:
            self.unpark(key)

    def unpark(self, *names: str) -> set[str]:
        with self.kit.store.write() as connection:
            return self.lanes.unpark(connection, names)

    def rows(self) -> dict[str, Any]:
        with self.kit.store.read() as connection:
            every = connection.execute(select(lanes).where(lanes.c.kind != LaneKind.SWEEP))
            return {row.name: row for row in every}


@pytest.fixture
def bench(kit: StoreKit) -> LaneBench:
    with kit.store.write() as connection:
        connection.execute(lanes.delete())
    return LaneBench(kit)


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


def test_a_rate_holds_starts_apart(bench: LaneBench) -> None:
    bench.kit.add_many(5)
    bench.switch(rate_count=1, rate_period=3600.0)
    bench.sweep()
    first = bench.try_claim()
    assert len(first.claims) == 1
    assert first.retry_in is not None
    assert 3590 < first.retry_in <= 3600
    assert bench.ids() == []


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


def test_a_late_key_of_a_fair_queue_does_not_wait_behind_a_backlog(bench: LaneBench) -> None:
    bench.add("heavy", count=500)
    bench.switch(fair=1)
    for _ in range(10):
        bench.claim(limit=10)
    late = bench.add("late", count=20)
    taken = bench.ids(limit=10)
    assert 5 <= len(set(taken) & set(late)) <= 6  # An equal share: it has saved nothing up.


def test_jobs_without_a_key_share_a_fair_queue_too(bench: LaneBench) -> None:
    keyed, plain = bench.add("a", count=20), bench.kit.add_many(20)
    bench.switch(fair=1)
    taken = [id_ for _ in range(5) for id_ in bench.ids(limit=2)]
    assert (len(set(taken) & set(keyed)), len(set(taken) & set(plain))) == (5, 5)


# Many workers at once


@pytest.mark.parametrize("seed", range(3))
def test_no_limit_is_passed_while_workers_claim_at_once(
    bench: LaneBench, together: Any, second_store: Any, seed: int
) -> None:
    limits = {"a": 1, "b": 2, "c": 3}
    for key, limit in limits.items():
        bench.add(key, limit=limit, count=40)
    workers = [LaneBench(type(bench.kit)(second_store())) for _ in range(4)]
    over: list[Any] = []

    def work(own: LaneBench) -> int:
        choose, done = random.Random(seed), 0
        ended: set[str] = set()
        idle = 0
        while idle < 50:
            own.sweep()
            result = own.try_claim(choose.randint(1, 4))
            with own.kit.store.read() as connection:
                counted = connection.execute(
                    select(jobs.c.lane, func.count())
                    .where(jobs.c.state == State.RUNNING)
                    .group_by(jobs.c.lane)
                ).all()
            over.extend((key, count) for key, count in counted if count > limits[key])
            own.end(*result.claims)
            ended = own.unpark(*ended, *result.keys.values())
            done += len(result.claims)
            idle = 0 if result.claims else idle + 1
        return done

    counts = together(*(lambda own=own: work(own) for own in workers))
    assert over == []
    assert sum(counts) == 120


@pytest.mark.parametrize("backend_name", ["postgres"])  # On SQLite, who claims holds the database.
def test_the_lock_of_a_lane_is_not_waited_for(bench: LaneBench) -> None:
    bench.add("a", limit=1)
    bench.sweep()
    with bench.kit.store.write() as connection:
        connection.execute(select(lanes).with_for_update())
        assert bench.try_claim().is_locked


def test_with_work_names_queues_once(bench: LaneBench) -> None:
    for key in "abc":
        bench.add(key)
    bench.sweep()
    with bench.kit.store.read() as connection:
        assert bench.lanes.with_work(connection, None) == ["default"]
        assert bench.lanes.exist(connection)


def test_a_database_without_keys_and_limits_has_no_lanes(bench: LaneBench) -> None:
    bench.kit.add()
    with bench.kit.store.read() as connection:
        assert not bench.lanes.exist(connection)
    assert Counter(bench.rows()) == Counter()


def test_one_sweep_serves_the_whole_fleet(bench: LaneBench) -> None:
    bench.add("a")
    assert bench.lanes.sweep(every=30.0)
    assert not bench.lanes.sweep(every=30.0)


def test_a_clock_that_was_turned_back_does_not_stop_the_sweeps(bench: LaneBench) -> None:
    bench.lanes.sweep(every=30.0)
    with bench.kit.store.write() as connection:
        connection.execute(lanes.update().values(parked_until=lanes.c.parked_until + 7200))
    assert bench.lanes.sweep(every=30.0)


def test_the_lane_of_a_new_job_is_added_without_a_sweep(bench: LaneBench) -> None:
    bench.add("old")
    newest = bench.lanes.add_new(0)
    bench.add("new", count=3)
    bench.lanes.add_new(newest)
    assert set(bench.rows()) == {"old", "new"}


@pytest.mark.databases("sqlite")
def test_each_lane_is_found_by_one_search_on_sqlite(bench: LaneBench) -> None:
    """By the whole place: by its first column alone, the search is quadratic in the lanes."""
    compiled = lane_statements(bench.kit.store.backend).first_jobs.compile(bench.kit.store.engine)
    with bench.kit.store.read() as connection:
        plan = text(f"EXPLAIN QUERY PLAN {compiled}")
        steps = " ".join(
            str(row) for row in connection.execute(plan, dict.fromkeys(compiled.params, 1))
        )
    assert "jobqueue_jobs_lane ((queue,lane,priority,run_at)>" in steps


def test_a_strict_job_that_is_due_again_is_left_to_the_workers_of_its_queue(
    bench: LaneBench,
) -> None:
    (first,) = bench.add("a", limit=1, strict=True, queue="two")
    (claim,) = bench.claim(queue="two")
    bench.kit.finish(bench.holder, bench.kit.released(claim))
    bench.add("a", limit=1, strict=True, queue="one")
    bench.sweep()
    assert bench.rows()["a"].queue == "one"
    assert not bench.try_claim(queue="one").claims
    bench.unpark("a")
    assert bench.ids(queue="two") == [first]


def test_full_keys_are_passed_over_one_after_the_other_without_another_look(
    bench: LaneBench,
) -> None:
    for key in "abc":
        bench.add(key, limit=0)
    (free,) = bench.add("free")
    planner = LanePlanner(bench.kit.store, None)
    with bench.kit.store.read() as connection:
        planner.look(connection, announced=True)
    planner.refresh()
    taken: list[Claim] = []
    for _ in range(4):
        with bench.kit.store.write() as connection:
            taken += planner.claim(connection, bench.holder, limit=1, room=lambda *_: 1)
    assert [claim.id for claim in taken] == [free]


def test_a_worker_does_not_look_again_where_nothing_is_left(bench: LaneBench) -> None:
    bench.add("a")
    planner = LanePlanner(bench.kit.store, None)
    with bench.kit.store.read() as connection:
        planner.look(connection, announced=True)
    planner.refresh()
    for _ in range(3):
        with bench.kit.store.write() as connection:
            planner.claim(connection, bench.holder, limit=4, room=lambda *_: 4)
    assert planner.due_in() == float("inf")
    assert not planner.has_work()


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize("of_key", [True, False])
def test_no_other_worker_claims_between_the_count_and_the_choice(
    bench: LaneBench, second_store: Any, of_key: bool
) -> None:
    if of_key:
        bench.add("a", limit=1, count=3)
    else:
        bench.kit.add_many(3)
        bench.switch(max_running=1)
    bench.sweep()
    other = LaneBench(type(bench.kit)(second_store()))
    meanwhile: list[LaneClaims] = []

    def claim_before_the_choice(*given: Any) -> None:
        if given[2].startswith("SELECT jobqueue_jobs.id, jobqueue_jobs.lane") and not meanwhile:
            meanwhile.append(other.try_claim())

    event.listen(bench.kit.store.engine, "before_cursor_execute", claim_before_the_choice)
    mine = bench.try_claim()
    assert [len(found.claims) for found in (*meanwhile, mine)] == [0, 1]


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_a_lane_that_another_worker_locks_is_brought_back_later(bench: LaneBench) -> None:
    bench.add("a", limit=0)
    bench.claim()
    with bench.kit.store.write() as other:
        other.execute(select(lanes).with_for_update())
        with bench.kit.store.write() as connection:
            assert bench.lanes.unpark(connection, ["a", "gone"]) == {"a"}
    with bench.kit.store.write() as connection:
        assert bench.lanes.unpark(connection, ["a", "gone"]) == set()
    assert bench.rows()["a"].parked == 0


@pytest.mark.databases("postgres")  # On SQLite a process that is frozen in a write holds up all.
def test_a_worker_that_is_frozen_in_a_claim_does_not_hold_up_the_lane(
    bench: LaneBench, second_store: Any, monkeypatch: Any, wait_until: Any
) -> None:
    monkeypatch.setattr("jobqueue.store.lanes.STALL_MAX", 0.1)
    bench.add("a", limit=1, count=2)
    bench.sweep()
    other = LaneBench(type(bench.kit)(second_store()))
    with pytest.raises(DBAPIError), bench.kit.store.write() as connection:
        assert len(bench.lanes.claim(connection, bench.holder, "default", 1).claims) == 1
        wait_until(lambda: other.try_claim().claims)
        connection.execute(select(1))
