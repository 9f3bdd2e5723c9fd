"""Databases with thousands of lanes: what is read of them."""

from typing import Any

import pytest
from sqlalchemy import text

from jobqueue.store.database import Store
from jobqueue.store.schema import jobs
from tests.store.lane_bench import LaneBench
from tests.store.lane_bench import bench as bench
from tests.store.reads import Reads

MANY = 2_000


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
        assert many.lanes.unpark(connection, ["k1", "gone"]) == set()
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
