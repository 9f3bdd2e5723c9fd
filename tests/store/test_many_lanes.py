"""Databases with thousands of lanes: what a claim reads of them, and how many one transaction writes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from jobqueue.store import lane_rows
from jobqueue.store import lanes as store_lanes
from jobqueue.store.database import Store
from jobqueue.store.schema import Parked, jobs, lanes
from tests.store.lane_bench import LaneBench, ids
from jobqueue.store.sql.lane_discovery import PASSED_OVER_MAX
from tests.store.lane_bench import bench as bench
from tests.store.reads import Reads

MANY = 5_000


class Watched:
    """A store whose write transactions are those of another context."""

    def __init__(self, store: Store, write: Any) -> None:
        self.read, self.write = store.read, write


@pytest.fixture
def many(bench: LaneBench) -> LaneBench:
    """A database with two jobs in each of many lanes."""
    with bench.kit.store.write() as connection:
        connection.execute(text(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :jobs)"
            " INSERT INTO jobqueue_jobs (task, lane) SELECT 'add', 'k' || (i / 2) FROM n"
        ), {"jobs": 2 * MANY})  # fmt: skip
    bench.sweep()
    if not bench.kit.store.backend.single_writer:
        with bench.kit.store.write() as connection:
            connection.execute(text("ANALYZE jobqueue_lanes"))
    return bench


def test_a_claim_reads_of_many_lanes_those_that_it_serves(many: LaneBench) -> None:
    reads = Reads(many.kit.store)
    with reads.write() as connection:
        found = many.lanes.claim(connection, many.holder, "default", 40)
    assert len(found.claims) == 40
    assert reads.most < 2 * MANY


def test_the_end_of_a_job_reads_of_many_lanes_its_own(many: LaneBench) -> None:
    reads = Reads(many.kit.store)
    with reads.write() as connection:
        assert set(many.lanes.unpark(connection, ids("k1", "gone")).locked) == set()
    assert reads.most < 100


def test_a_sweep_reads_each_of_the_lanes_that_it_moves_once(
    many: LaneBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with many.kit.store.write() as connection:
        connection.execute(jobs.update().values(queue="other"))
    reads = Reads(many.kit.store)
    with monkeypatch.context() as watched:
        watched.setattr(many.lanes, "_store", Watched(many.kit.store, reads.write))
        many.sweep()
    assert reads.most < 20 * MANY
    assert {row.queue for row in many.rows().values()} == {"other"}


def test_a_claim_looks_behind_the_paused_jobs_of_few_keys_and_leaves_out_none(
    bench: LaneBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of 0 is a pause: each look may read ten thousand jobs."""
    monkeypatch.setattr(store_lanes, "HIDING_AT_ONCE", 2)
    free = []
    for key in "abcdefg":
        bench.add(key, limit=0, count=store_lanes.HEADS_MIN + 2)
        free += bench.add(key, limit=1)
    bench.sweep()
    found = [bench.try_claim(limit=7).claims for _ in range(8)]  # Each key is looked at twice.
    assert max(map(len, found)) == 2
    assert sorted(claim.id for claims in found for claim in claims) == free


def test_a_claim_reads_ten_thousand_jobs_with_a_limit_of_0_in_front_of_their_key_and_no_more(
    bench: LaneBench,
) -> None:
    with bench.kit.store.write() as connection:
        connection.execute(text(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :jobs)"
            " INSERT INTO jobqueue_jobs (task, lane, lane_limit) SELECT 'add', 'a', 0 FROM n"
        ), {"jobs": PASSED_OVER_MAX})  # fmt: skip
    (free,) = bench.add("a", limit=1)
    assert bench.ids() == []
    with bench.kit.store.write() as connection:
        connection.execute(jobs.delete().where(jobs.c.id == free - 1))
    bench.unpark("a")
    assert bench.ids() == [free]


def test_none_overtakes_a_strict_job_behind_many_of_its_key_with_a_limit_of_0(
    bench: LaneBench,
) -> None:
    bench.add("a", limit=0, count=store_lanes.HEADS_MIN + 2)
    bench.add("a", limit=0, strict=True)
    bench.add("a", limit=1)
    assert bench.ids(limit=1) == []


@pytest.mark.parametrize("what", ["missing", "moved", "overdue", "limited queues", "all"])
def test_what_is_written_of_many_lanes_is_written_in_parts(
    bench: LaneBench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """On SQLite others wait for the writer meanwhile."""
    monkeypatch.setattr(lane_rows, "WRITTEN_AT_ONCE", 3)
    store, sizes = bench.kit.store, []

    def of_lanes(connection: Connection) -> set[Any]:
        columns = (lanes.c.kind, lanes.c.name, lanes.c.queue, lanes.c.parked)
        return {tuple(row) for row in connection.execute(select(*columns))}

    @contextmanager
    def write() -> Iterator[Connection]:
        with store.write() as connection:
            before = of_lanes(connection)
            yield connection
            sizes.append(len(of_lanes(connection) - before))

    names = "abcdefg"
    for name in names:
        bench.add(None if what == "limited queues" else name, queue=name)
    if what == "limited queues":
        for name in names:
            bench.switch(name, max_running=1)
    if what in ("moved", "overdue", "all"):
        bench.sweep()
        with store.write() as connection:
            if what == "moved":
                connection.execute(jobs.update().values(queue="other"))
            else:
                until = 0 if what == "overdue" else 1e12
                parked = {"parked": Parked.FULL, "parked_until": until}
                connection.execute(lanes.update().where(lanes.c.name != "").values(parked))
    monkeypatch.setattr(bench.lanes, "_store", Watched(store, write))
    work: Callable[[], object] = bench.lanes.unpark_all if what == "all" else bench.sweep
    work()
    assert sum(sizes) >= len(names)
    assert max(sizes) == 3


def test_a_sweep_that_finds_nothing_new_writes_nothing(
    bench: LaneBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside its own turn: all lanes are as they are, full ones and those that were served."""
    bench.add("full", limit=0)
    bench.add("served", count=4)
    bench.add("strict", limit=0, strict=True)
    bench.add("strict", limit=1)  # It may not overtake the other, whose place is that of the key.
    bench.add("waits")
    assert len(bench.claim(limit=3)) == 3
    monkeypatch.setattr(bench.lanes, "_store", Watched(bench.kit.store, None))
    bench.lanes.sweep(every=None)
