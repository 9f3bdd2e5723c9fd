"""When a worker looks again into keys: where jobs have ended, and where a claim has not seen all."""

from typing import Any

import pytest
from sqlalchemy import event, select

from jobqueue.records import Claim
from jobqueue.store.lanes import LaneClaims
from jobqueue.store.schema import Parked, lanes
from jobqueue.worker.claim.lanes import LanePlanner
from tests.store.lane_bench import LaneBench
from tests.store.lane_bench import bench as bench


def claim(bench: LaneBench, *ended: str, limit: int = 10, queue: str = "default") -> LaneClaims:
    with bench.kit.store.write() as connection:
        return bench.lanes.claim(connection, bench.holder, queue, limit, ended)


def ids(found: LaneClaims) -> list[int]:
    return [claim.id for claim in found.claims]


def parked(bench: LaneBench) -> dict[str, int]:
    return {name: row.parked for name, row in bench.rows().items()}


def fill(bench: LaneBench, *keys: str, count: int = 2) -> tuple[list[Claim], list[int]]:
    """Full keys: what runs in them, and the jobs that wait."""
    waiting = [bench.add(key, limit=1, count=count)[1:] for key in keys]
    return bench.claim(), [id_ for jobs in waiting for id_ in jobs]


def test_a_parked_key_in_which_a_job_has_ended_is_claimed_from(bench: LaneBench) -> None:
    running, waiting = fill(bench, "a")
    bench.end(*running)
    assert ids(claim(bench)) == []
    found = claim(bench, "a")
    assert (ids(found), found.brought_back, found.has_more) == (waiting, {"a"}, False)
    assert bench.rows() == {}


def test_an_ended_key_that_is_still_full_is_parked_again(bench: LaneBench) -> None:
    running, _ = fill(bench, "a")
    found = claim(bench, "a")
    assert (ids(found), found.brought_back, len(running)) == ([], {"a"}, 1)
    assert parked(bench) == {"a": Parked.FULL}


def test_an_ended_key_is_left_to_others_where_this_worker_has_room_for_no_more(
    bench: LaneBench,
) -> None:
    running, waiting = fill(bench, "a", "b")
    bench.end(*running)
    found = claim(bench, "a", "b", limit=1)
    assert (ids(found), found.brought_back, found.has_more) == (waiting[:1], {"a", "b"}, True)
    assert parked(bench) == {"b": Parked.NO}


def test_an_ended_key_does_not_go_before_a_job_with_a_better_priority(bench: LaneBench) -> None:
    running, _ = fill(bench, "a")
    (first,) = bench.add("b")
    bench.kit.change(first, priority=-1)
    bench.sweep()
    bench.end(*running)
    assert ids(claim(bench, "a", limit=1)) == [first]


def test_an_ended_key_that_is_claimed_in_another_queue_is_not_brought_back(
    bench: LaneBench,
) -> None:
    running, _ = fill(bench, "a")
    bench.end(*running)
    found = claim(bench, "a", queue="other")
    assert (ids(found), found.brought_back) == ([], set())


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_an_ended_key_that_another_worker_locks_is_not_brought_back(bench: LaneBench) -> None:
    running, waiting = fill(bench, "a", "b")
    bench.end(*running)
    with bench.kit.store.write() as other:
        other.execute(select(lanes).where(lanes.c.name == "a").with_for_update())
        found = claim(bench, "a", "b")
    assert (ids(found), found.brought_back) == (waiting[1:], {"b"})


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_a_worker_looks_again_where_another_one_locks_a_key_beside_the_ended_one(
    bench: LaneBench,
) -> None:
    running, waiting = fill(bench, "a")
    bench.end(*running)
    bench.add("b")
    bench.sweep()
    with bench.kit.store.write() as other:
        other.execute(select(lanes).where(lanes.c.name == "b").with_for_update())
        found = claim(bench, "a")
    assert (ids(found), found.has_more) == (waiting, True)


class Worker:
    """A worker's claims from lanes, which has claimed the first of two jobs of a key, and ended it."""

    def __init__(self, bench: LaneBench) -> None:
        self._bench = bench
        self.planner = LanePlanner(bench.kit.store, None)
        with bench.kit.store.read() as connection:
            self.planner.look(connection, announced=True)
        self.planner.refresh()

    def take(self, limit: int = 4) -> list[int]:
        with self._bench.kit.store.write() as connection:
            claims = self.planner.claim(
                connection, self._bench.holder, limit=limit, room=lambda *_: limit
            )
        for claim in claims:
            self._bench.end(claim)
        self.planner.ended([self._bench.kit.succeeded(claim) for claim in claims])
        return [claim.id for claim in claims]


@pytest.mark.parametrize("room", [0, 4])
def test_a_worker_brings_back_by_itself_what_its_claim_does_not(
    bench: LaneBench, room: int
) -> None:
    first, second, _ = bench.add("a", limit=1, count=3)
    worker = Worker(bench)
    assert worker.take() == [first]
    unparked: list[Any] = []

    def note(*given: Any) -> None:
        if given[2].startswith("UPDATE jobqueue_lanes SET parked=") and "kind" in given[2]:
            unparked.append(given[2])

    event.listen(bench.kit.store.engine, "before_cursor_execute", note)
    assert worker.take(room) == [second][:room]
    assert bool(unparked) == (not room)
    assert parked(bench) == {"a": Parked.FULL if room else Parked.NO}


def test_a_key_of_a_queue_that_was_limited_meanwhile_is_brought_back_for_the_next_claim(
    bench: LaneBench,
) -> None:
    first, second = bench.add("a", limit=1, count=2)
    worker = Worker(bench)
    assert worker.take() == [first]
    bench.switch(max_running=3)
    assert worker.take() == []
    assert worker.planner.due_in() == 0
    assert worker.take() == [second]


def test_a_key_of_a_limited_queue_is_brought_back_before_the_claim(bench: LaneBench) -> None:
    first, second = bench.add("a", limit=1, count=2)
    bench.switch(max_running=3)
    worker = Worker(bench)
    assert (worker.take(), worker.take()) == ([first], [second])


def test_an_ended_key_that_a_claim_leaves_out_is_not_brought_back_by_it(bench: LaneBench) -> None:
    running = [bench.add(key, limit=1) and bench.claim()[0] for key in ("a", "b")]
    for key in ("a", "b"):
        bench.add(key, limit=0, count=12)
    waiting = [*bench.add("a", limit=1), *bench.add("b", limit=1)]
    bench.sweep()
    while Parked.NO in parked(bench).values():
        assert ids(claim(bench)) == []
    bench.end(*running)
    found = claim(bench, "a", "b")
    assert len(found.brought_back) == 1
    bench.unpark(*({"a", "b"} - {*found.brought_back}))
    assert sorted(ids(found) + ids(claim(bench)) + ids(claim(bench))) == waiting


def test_the_first_claim_runs_its_statements_without_rows_before_it_locks_a_key(
    bench: LaneBench,
) -> None:
    """The first run of each takes long, and other workers would find the key locked meanwhile."""
    bench.add("a", limit=2, count=5)
    bench.sweep()
    run: list[str] = []
    engine = bench.kit.store.engine
    event.listen(engine, "before_cursor_execute", lambda *args: run.append(args[2]))
    assert len(claim(bench, limit=1).claims) == 1
    first, run[:] = [said for said in run if "jobqueue_" in said], []
    assert len(claim(bench, limit=1).claims) == 1
    again = [said for said in run if "jobqueue_" in said]
    assert len(again) == 4
    assert first == (again if bench.kit.store.backend.single_writer else [*again, *again])
