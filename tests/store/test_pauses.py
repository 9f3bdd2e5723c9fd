"""Pauses of tasks and of tags: what claims pass over, in plain queues and in lanes."""

import json
from typing import Any

import pytest
from sqlalchemy import insert, select

from jobqueue.store.audit import Action, Audit
from jobqueue.store.claims import WorkerRef
from jobqueue.store.lanes import Lanes
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import LaneKind, Parked, PauseKind, lanes, queues
from tests.store.conftest import StoreKit

TASK, TAG = PauseKind.TASK, PauseKind.TAG


class PauseBench:
    """A database with jobs of several tasks and tags, and the ways in which a worker takes them."""

    def __init__(self, kit: StoreKit) -> None:
        self.kit, self.store = kit, kit.store
        self.pauses, self.lanes = Pauses(kit.store), Lanes(kit.store)
        self.holder: WorkerRef = kit.worker(tasks=("add", "send"))
        with kit.store.write() as connection:
            connection.execute(lanes.delete())

    def add(self, task: str = "add", *tags: str, count: int = 1, **columns: Any) -> list[int]:
        given = {"tags": json.dumps(tags)} if tags else {}
        ids = self.kit.add_many(count, task=task, **given)
        if columns:
            self.kit.change(*ids, **columns)
        return ids

    def plain(self) -> list[int]:
        return [claim.id for claim in self.kit.take(self.holder)]

    def first(self) -> list[int]:
        return [claim.id for claim in self.kit.claims.claim_first(self.holder, "default", 100)]

    def of_lanes(self, limit: int = 3) -> list[int]:
        """As many as there are of a kind: what is in front must not take their places."""
        self.lanes.sweep()
        with self.store.write() as connection:
            return [
                claim.id
                for claim in self.lanes.claim(connection, self.holder, "default", limit).claims
            ]

    def keys(self) -> dict[str, int]:
        with self.store.read() as connection:
            rows = connection.execute(
                select(lanes.c.name, lanes.c.parked).where(lanes.c.kind == LaneKind.KEY)
            )
            return dict(map(tuple, rows))


@pytest.fixture
def bench(kit: StoreKit) -> PauseBench:
    return PauseBench(kit)


@pytest.mark.parametrize("way", ["plain", "first", "of_lanes"])
def test_claims_pass_over_what_is_paused_and_take_it_again(bench: PauseBench, way: str) -> None:
    if way == "of_lanes":  # A limit on the queue: jobs without a key are in its lane.
        with bench.store.write() as connection:
            connection.execute(insert(queues).values(name="default", max_running=50))
    of_task = bench.add("send", "urgent", count=3)
    of_tag = bench.add("add", "bulk", "a.b", count=3)
    free = bench.add("add", "bul", "bulk2") + bench.add("sen")
    bench.pauses.pause(TASK, "send")
    bench.pauses.pause(TAG, "bulk")
    bench.pauses.pause(TAG, "nobody")
    bench.pauses.pause(TASK, "bul")  # The name of a tag: kinds are apart.
    take = getattr(bench, way)
    assert (take(), take()) == (free, [])
    assert bench.pauses.resume(TAG, "bulk")
    assert take() == of_tag
    assert bench.pauses.resume(TASK, "send")
    assert take() == of_task


def test_paused_jobs_of_keys_are_passed_over_and_hold_up_no_other(bench: PauseBench) -> None:
    held = bench.add("send", count=3, lane="a", lane_limit=1)
    (same,) = bench.add("add", lane="a", lane_limit=1)
    (other,) = bench.add("add", "bulk", lane="b")
    bench.pauses.pause(TASK, "send")
    bench.pauses.pause(TAG, "bulk")
    assert bench.of_lanes() == [same]
    assert "b" not in bench.keys()  # As if nothing waited: no worker looks at it.
    bench.kit.finish(bench.holder, *map(bench.kit.succeeded, held_claims(bench)))
    assert bench.of_lanes() == []
    bench.pauses.resume(TAG, "bulk")
    assert bench.of_lanes() == [other]
    bench.pauses.resume(TASK, "send")
    assert bench.of_lanes() == held[:1]


def held_claims(bench: PauseBench) -> list[Any]:
    with bench.store.read() as connection:
        return bench.kit.claims.unknown(connection, bench.holder, {})


def test_in_a_strict_key_what_is_behind_a_paused_job_waits(bench: PauseBench) -> None:
    strict = {"lane": "a", "lane_limit": 1, "lane_strict": 1}
    (first,) = bench.add("send", **strict)
    (behind,) = bench.add("add", **strict)
    bench.pauses.pause(TASK, "send")
    assert bench.of_lanes() == []
    assert bench.keys() == {"a": Parked.FULL}
    bench.pauses.resume(TASK, "send")
    assert bench.keys() == {"a": Parked.NO}  # At once, not after the time of a full lane.
    assert bench.of_lanes() == [first]
    bench.kit.finish(
        bench.holder, *(bench.kit.errored(claim, -1.0) for claim in held_claims(bench))
    )
    bench.kit.maintenance.promote()
    bench.pauses.pause(TASK, "send")  # Between two attempts.
    bench.pauses.resume(TASK, "nothing")
    with bench.store.write() as connection:
        bench.lanes.unpark(connection, ["a"])
    assert bench.of_lanes() == []
    bench.pauses.resume(TASK, "send")
    with bench.store.write() as connection:
        bench.lanes.unpark(connection, ["a"])
    assert bench.of_lanes() == [first]
    assert behind not in bench.of_lanes()


def test_a_drain_does_not_wait_for_paused_jobs_and_counts_them(bench: PauseBench) -> None:
    bench.add("add", "bulk", count=2)
    bench.add("add", "bulk", lane="a")
    bench.add("other", "bulk")
    bench.pauses.pause(TAG, "bulk")
    assert not bench.kit.maintenance.unfinished(None, ("add",))
    assert bench.kit.maintenance.left_behind(None, ("add",)) == {
        "of unknown tasks": 1,
        "of paused tasks or tags": 3,
    }
    assert bench.kit.maintenance.available(None, 10) == 0
    bench.pauses.resume(TAG, "bulk")
    assert bench.kit.maintenance.unfinished(None, ("add",))


def test_a_pause_is_written_once_with_since_when_and_by_whom(bench: PauseBench) -> None:
    by_ada = Action("ada", "pause", {"task": "send"})
    assert bench.pauses.pause(TASK, "send", by_ada)
    assert not bench.pauses.pause(TASK, "send", Action("bob", "pause", {"task": "send"}))
    assert bench.pauses.pause(TAG, "bulk")
    tag, task = bench.pauses.all()
    assert (tag["kind"], tag["name"], tag["paused_by"]) == ("tag", "bulk", None)
    assert (task["kind"], task["name"], task["paused_by"]) == ("task", "send", "ada")
    assert not bench.pauses.resume(TASK, "bulk")
    assert bench.pauses.resume(TASK, "send", Action("bob", "resume", {"task": "send"}))
    log = [(row["actor"], row["verb"], row["target"]) for row in Audit(bench.store).find(None)]
    assert log == [("bob", "resume", {"task": "send"}), ("ada", "pause", {"task": "send"})]
