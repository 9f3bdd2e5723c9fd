"""Lanes that many workers claim from at once, and how they are found."""

import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import DBAPIError

from jobqueue.records import Claim
from jobqueue.states import State
from jobqueue.store import lane_rows
from jobqueue.store.clock import after
from jobqueue.store.lanes import LaneClaims
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import LaneKind, Parked, PauseKind, jobs, lanes
from jobqueue.store.sql.lanes import lane_statements
from jobqueue.worker.claim.lanes import LanePlanner
from tests.store.lane_bench import LaneBench, ids
from tests.store.lane_bench import bench as bench


@pytest.mark.parametrize("seed", range(2))
def test_no_limit_is_passed_while_workers_claim_at_once(
    bench: LaneBench, together: Any, second_store: Any, seed: int
) -> None:
    limits = {"a": 1, "b": 2, "c": 3}
    for key, limit in limits.items():
        bench.add(key, limit=limit, count=30)
    workers = [LaneBench(type(bench.kit)(second_store())) for _ in range(4)]
    over: list[Any] = []
    done: list[Claim] = []

    def work(own: LaneBench) -> None:
        choose = random.Random(seed)
        ended: set[str] = set()
        idle = 0
        while len(done) < 90 and idle < 50:
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
            done.extend(result.claims)
            idle = 0 if result.claims else idle + 1

    assert together(*(lambda own=own: work(own) for own in workers)) == [None] * 4
    assert over == []
    assert len({claim.id for claim in done}) == len(done) == 90


@pytest.mark.parametrize("backend_name", ["postgres"])  # On SQLite, who claims holds the database.
def test_the_lock_of_a_lane_is_not_waited_for(bench: LaneBench) -> None:
    bench.add("a", limit=1)
    bench.sweep()
    with bench.kit.store.write() as connection:
        connection.execute(select(lanes).with_for_update())
        assert bench.try_claim().is_locked


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_claims_from_a_paused_queue_lock_no_lane_but_for_the_first(bench: LaneBench) -> None:
    """Each lock would be written to the disk: workers look there as long as the pause lasts."""
    (job,) = bench.add("a")
    bench.sweep()
    Pauses(bench.kit.store).pause(PauseKind.QUEUE, "default")
    bench.try_claim()
    with bench.kit.store.write() as connection:
        assert not bench.lanes.claim(connection, bench.holder, "default", 9).claims
        assert connection.execute(text("SELECT pg_current_xact_id_if_assigned()")).scalar() is None
    Pauses(bench.kit.store).resume(PauseKind.QUEUE, "default")
    assert [claim.id for claim in bench.try_claim().claims] == [job]


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
    newest, _ = bench.add_new()
    bench.add("new", count=3)
    bench.add_new(newest)
    assert set(bench.rows()) == {"old", "new"}


def test_no_worker_looks_into_a_paused_queue_with_a_limit(bench: LaneBench) -> None:
    bench.kit.add()
    bench.switch(max_running=1, paused_at=after(0.0))
    bench.sweep()
    bench.add_new()
    with bench.kit.store.read() as connection:
        assert bench.lanes.with_work(connection, None) == []


@pytest.mark.parametrize("served", [None, ["a", "b", "c", "d"]], ids=str)
def test_of_more_queues_than_one_look_finds_each_has_its_turn(
    bench: LaneBench, monkeypatch: pytest.MonkeyPatch, served: list[str] | None
) -> None:
    monkeypatch.setattr(lane_rows, "QUEUES_AT_ONCE", 2)
    for queue in "abc":
        bench.add("key of " + queue, queue=queue)
    bench.sweep()
    with bench.kit.store.read() as connection:
        looks = [sorted(bench.lanes.with_work(connection, served)) for _ in range(3)]
    assert looks == [["a", "b"], ["c"], ["a", "b"]]


def test_a_new_lane_is_in_line_with_its_first_job(bench: LaneBench) -> None:
    ids = [bench.add(key)[0] for key in "aba"]
    for seconds, id_ in enumerate(ids):  # On SQLite they may be of one millisecond.
        bench.kit.change(id_, run_at=after(seconds))
    bench.add_new()
    assert [claim.id for claim in bench.try_claim(limit=1).claims] == ids[:1]


@pytest.mark.databases("sqlite")
def test_the_search_for_new_jobs_does_not_read_the_others(bench: LaneBench) -> None:
    jobs = 2_000
    bench.add("a", count=jobs)
    newest, _ = bench.add_new()
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with bench.kit.store.read() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(count, 1)
        parameters = {"in_after": newest, "in_limit": 10}
        found = lane_statements(bench.kit.store.backend).new_jobs
        assert connection.execute(found, parameters).all() == []
        driver.set_progress_handler(None, 1)
    assert steps < jobs


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


@pytest.mark.parametrize("of_key", [True, False])
def test_a_worker_does_not_look_again_where_its_claim_has_filled_the_limit(
    bench: LaneBench, of_key: bool
) -> None:
    if of_key:
        bench.add("a", limit=1, count=3)
    else:
        bench.add(None, count=3)
        bench.switch(max_running=1)
    planner = LanePlanner(bench.kit.store, None)
    with bench.kit.store.read() as connection:
        planner.look(connection, announced=True)
    planner.refresh()
    with bench.kit.store.write() as connection:
        assert len(planner.claim(connection, bench.holder, limit=4, room=lambda *_: 4)) == 1
    assert not planner.has_work()


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_a_worker_looks_again_where_another_one_has_locked_more_keys(bench: LaneBench) -> None:
    bench.add("a", limit=1)
    (free,) = bench.add("b", limit=1)
    bench.sweep()
    with bench.kit.store.write() as other:
        other.execute(select(lanes).where(lanes.c.name == "a").with_for_update())
        found = bench.try_claim()
    assert ([claim.id for claim in found.claims], found.has_more) == ([free], True)


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
    bench.try_claim(queue="none")  # The first claim runs its statements twice.

    def claim_before_the_choice(*given: Any) -> None:
        if given[2].startswith("SELECT jobqueue_jobs.id, jobqueue_jobs.lane") and not meanwhile:
            meanwhile.append(other.try_claim())

    event.listen(bench.kit.store.engine, "before_cursor_execute", claim_before_the_choice)
    mine = bench.try_claim()
    assert [len(found.claims) for found in (*meanwhile, mine)] == [0, 1]


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize("changes", [{"lane": "full"}, {"queue": "full"}], ids=["key", "queue"])
def test_a_job_that_is_moved_after_it_was_chosen_is_not_claimed(
    bench: LaneBench, second_store: Any, changes: dict[str, Any]
) -> None:
    """As an enqueue that replaces it does, or an operator: its new key or queue may be full."""
    (moved, stays) = bench.add("a", count=2)
    bench.sweep()
    other = type(bench.kit)(second_store())
    moves: list[dict[str, Any]] = [changes]
    bench.try_claim(queue="none")  # The first claim runs its statements twice.

    def move_before_the_claim(*given: Any) -> None:
        if given[2].startswith("UPDATE jobqueue_jobs SET state='running'") and moves:
            other.change(moved, **moves.pop())

    event.listen(bench.kit.store.engine, "before_cursor_execute", move_before_the_claim)
    assert [claim.id for claim in bench.try_claim().claims] == [stays]
    left = bench.kit.jobs.get(moved)
    assert (moves, left.state, left.attempt, left.fence) == ([], "available", 0, 0)


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_a_rate_counts_no_start_of_a_job_that_was_locked_after_it_was_chosen(
    bench: LaneBench,
) -> None:
    first, second = bench.kit.add_many(2)
    bench.switch(rate_count=2, rate_period=3600.0, rate_burst=2)
    bench.sweep()
    with bench.kit.store.write() as other:
        other.execute(select(jobs).where(jobs.c.id == first).with_for_update())
        assert [claim.id for claim in bench.try_claim().claims] == [second]
    bench.unpark("default")
    assert [claim.id for claim in bench.try_claim().claims] == [first]


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize("max_running", [None, 9], ids=["key", "limited queue"])
def test_a_key_whose_first_job_another_transaction_locks_is_passed_over_until_the_next_sweep(
    bench: LaneBench, max_running: int | None
) -> None:
    """Nothing of it runs whose end would bring it back."""
    first, second = bench.add("a", limit=1, count=2)
    bench.switch(max_running=max_running)
    bench.sweep()
    with bench.kit.store.write() as other:
        other.execute(select(jobs).where(jobs.c.id == first).with_for_update())
        assert not bench.try_claim().claims
        other.execute(jobs.delete().where(jobs.c.id == first))
    assert bench.ids() == [second]


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize(
    ("strict", "starts"), [((0, 0), 1), ((1, 0), 0), ((0, 1), 0), ((1, 1), 0)], ids=str
)
def test_a_strict_job_neither_overtakes_one_that_is_locked_nor_is_overtaken_while_it_is(
    bench: LaneBench, strict: tuple[int, int], starts: int
) -> None:
    made = [bench.add("a", limit=2, strict=bool(one))[0] for one in strict]
    bench.sweep()
    with bench.kit.store.write() as other:
        other.execute(select(jobs).where(jobs.c.id == made[0]).with_for_update())
        early = [claim.id for claim in bench.try_claim().claims]
    assert early == made[1:][:starts]
    assert bench.ids() == [id_ for id_ in made if id_ not in early]
    assert {bench.kit.jobs.get(id_).attempt for id_ in made} == {1}


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_a_lane_that_another_worker_locks_is_brought_back_later(bench: LaneBench) -> None:
    bench.add("a", limit=0)
    bench.claim()
    with bench.kit.store.write() as other:
        other.execute(select(lanes).with_for_update())
        with bench.kit.store.write() as connection:
            assert set(bench.lanes.unpark(connection, ids("a", "gone")).locked) == {
                (LaneKind.KEY, "a")
            }
    with bench.kit.store.write() as connection:
        assert set(bench.lanes.unpark(connection, ids("a", "gone")).locked) == set()
    assert bench.rows()["a"].parked == 0


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize("locked", [LaneKind.KEY, LaneKind.QUEUE], ids=str)
def test_of_a_key_and_a_queue_with_one_name_each_comes_back_though_the_other_is_locked(
    bench: LaneBench, locked: LaneKind
) -> None:
    bench.add("default", limit=0)
    bench.switch(max_running=1)
    bench.claim()
    with bench.kit.store.write() as connection:
        connection.execute(lanes.update().values(parked=Parked.FULL))
    with bench.kit.store.write() as other:
        other.execute(select(lanes).where(lanes.c.kind == locked).with_for_update())
        assert bench.unpark("default") == {"default"}
        with bench.kit.store.write() as connection:
            bench.lanes.unpark_full(connection)
        still = select(lanes.c.kind).where(lanes.c.parked == Parked.FULL)
        with bench.kit.store.read() as connection:
            found = set(connection.execute(still.where(lanes.c.kind != LaneKind.SWEEP)).scalars())
    assert found == {locked}
    assert bench.unpark("default") == set()


@pytest.mark.databases("postgres")  # On SQLite a process that is frozen in a write holds up all.
def test_a_worker_that_is_frozen_in_a_claim_does_not_hold_up_the_lane(
    bench: LaneBench, second_store: Any, monkeypatch: Any, wait_until: Any
) -> None:
    monkeypatch.setattr("jobqueue.store.lane_rows.STALL_MAX", 0.1)
    bench.add("a", limit=1, count=2)
    bench.sweep()
    other = LaneBench(type(bench.kit)(second_store()))
    with pytest.raises(DBAPIError), bench.kit.store.write() as connection:
        assert len(bench.lanes.claim(connection, bench.holder, "default", 1).claims) == 1
        wait_until(lambda: other.try_claim().claims)
        connection.execute(select(1))


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_what_a_claim_has_written_is_not_waited_for(bench: LaneBench) -> None:
    """Neither by the search for new jobs, nor by a claim from the same limited queue."""
    bench.switch(max_running=1)
    bench.add("a", limit=1, count=2)
    bench.add("b", limit=3)
    assert len(bench.claim(limit=1)) == 1
    with bench.kit.store.write() as connection:
        parked = {"parked": Parked.FULL, "parked_until": 0}
        connection.execute(lanes.update().values(parked))
    with bench.kit.store.write() as connection:
        connection.execute(lanes.update().values(parked=Parked.FULL))
        with bench.kit.store.write() as own:
            own.execute(text("SET LOCAL lock_timeout = '1ms'"))
            assert bench.lanes.claim(own, bench.holder, "default", 9).is_locked
        assert bench.add_new()[1] == {"b"}  # "a" is full.
        bench.sweep()


@pytest.mark.databases("postgres")  # On SQLite, who writes holds the database.
@pytest.mark.parametrize("step", ["add_new", "sweep", "unpark", "unpark_full"])
def test_the_server_ends_each_transaction_that_a_frozen_worker_keeps_lanes_locked_in(
    bench: LaneBench, step: str
) -> None:
    steps: dict[str, Any] = {
        "add_new": lambda _: bench.add_new(),
        "sweep": lambda _: bench.sweep(),
        "unpark": lambda connection: bench.lanes.unpark(connection, ids("a")),
        "unpark_full": lambda connection: bench.lanes.unpark_full(connection),
    }
    bench.add(None)
    bench.switch(max_running=1)
    limits: list[str] = []

    def ask(connection: Any) -> None:
        shown = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
        limits.append(shown.scalar_one())

    with bench.kit.store.write() as own:
        event.listen(bench.kit.store.engine, "commit", ask)
        try:
            steps[step](own)
            ask(own)
        finally:
            event.remove(bench.kit.store.engine, "commit", ask)
    in_own = step.startswith("unpark")
    assert limits[-1 if in_own else -2] == "5s"


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("asks_first", [True, False])
def test_every_transaction_of_lanes_has_its_limits_and_none_outlasts_it(
    bench: LaneBench, asks_first: bool
) -> None:
    names = ("idle_in_transaction_session_timeout", "lock_timeout")

    def limits(connection: Any) -> list[str]:
        return [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]

    with bench.kit.store.write() as connection:
        before = limits(connection)
    for _ in range(2):
        with bench.kit.store.write() as connection:
            assert not asks_first or limits(connection) == before
            bench.lanes.unpark(connection, ids("a"))
            bench.lanes.limit_stall(connection)
            assert limits(connection) == ["5s", "100ms"]
        with bench.kit.store.write() as connection:
            assert limits(connection) == before


@pytest.mark.parametrize(
    "switch", [{"max_running": 9}, {"fair": 1}, {"rate_count": 9, "rate_burst": 9}]
)
def test_a_worker_looks_again_in_a_limited_queue_of_more_keys_than_it_has_looked_at(
    bench: LaneBench, switch: dict[str, int]
) -> None:
    bench.add("a")
    bench.add("b")
    bench.switch(**switch)
    bench.sweep()
    found = bench.try_claim(1)
    assert (len(found.claims), found.has_more) == (1, True)
    assert (len(bench.try_claim(1).claims), bench.try_claim(1).has_more) == (1, False)


def test_a_worker_looks_again_where_a_claim_leaves_keys_out(bench: LaneBench) -> None:
    for key in ("a", "b", "c"):
        bench.add(key, limit=0, count=12)
    bench.sweep()
    assert [bench.try_claim(10).has_more for _ in range(4)] == [True, True, False, False]
