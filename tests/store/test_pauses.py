"""Pauses of tasks and of tags: what claims pass over, in plain queues and in lanes."""

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text

from jobqueue.store import paused_search
from jobqueue.store.audit import Audit
from jobqueue.store.claims import WorkerRef
from jobqueue.store.clock import after
from jobqueue.store.lane_admission import Lane
from jobqueue.store.lanes import Lanes
from jobqueue.store.paused import PausedJobs
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import LaneKind, Parked, PauseKind, jobs, lanes, queues
from jobqueue.store.sql.paused import Searched
from tests.store.conftest import StoreKit
from tests.store.lane_bench import add_new
from tests.store.reads import Reads

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

    def limit_queue(self) -> None:
        with self.store.write() as connection:
            connection.execute(insert(queues).values(name="default", max_running=50))

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
        bench.limit_queue()
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
        bench.lanes.unpark(connection, [(LaneKind.KEY, "a")])
    assert bench.of_lanes() == []
    bench.pauses.resume(TASK, "send")
    with bench.store.write() as connection:
        bench.lanes.unpark(connection, [(LaneKind.KEY, "a")])
    assert bench.of_lanes() == [first]
    assert behind not in bench.of_lanes()


def test_a_strict_job_that_is_paused_between_its_attempts_keeps_one_place_of_its_key(
    bench: PauseBench,
) -> None:
    of_key = {"lane": "a", "lane_limit": 2}
    (first,) = bench.add("send", **of_key, lane_strict=1)
    assert bench.of_lanes() == [first]
    bench.kit.finish(bench.holder, *map(bench.kit.released, held_claims(bench)))
    bench.pauses.pause(TASK, "send")
    (urgent, waits) = bench.add("add", **of_key, priority=-1, count=2)
    assert bench.of_lanes() == [urgent]
    bench.pauses.resume(TASK, "send")
    assert bench.of_lanes() == [first]
    assert bench.kit.row(waits).state == "available"


@pytest.mark.parametrize("count", [1, 20])
def test_jobs_with_a_limit_of_0_in_front_of_the_paused_ones_of_their_key_hold_up_no_other(
    bench: PauseBench, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(paused_search, "ROWS", 3)
    monkeypatch.setattr(paused_search, "ROWS_MIN", 3)
    bench.add(count=count, lane="a", lane_limit=0)
    bench.add("send", count=10, lane="a")
    (free,) = bench.add(lane="a", lane_limit=1)
    bench.pauses.pause(TASK, "send")
    assert [id_ for _ in range(15) for id_ in bench.of_lanes()] == [free]
    bench.add(lane="b", lane_limit=0)
    bench.lanes.sweep()
    assert "b" not in bench.keys()  # As if all of it were paused.
    bench.pauses.resume(TASK, "send")
    assert bench.keys() == {"a": Parked.NO, "b": Parked.NO}


@pytest.mark.parametrize("lane", ["a", None], ids=["of a key", "of a limited queue"])
def test_no_job_of_a_worse_priority_overtakes_one_that_is_behind_many_paused_jobs(
    bench: PauseBench, monkeypatch: pytest.MonkeyPatch, lane: str | None
) -> None:
    for name in ("ROWS", "ROWS_MIN"):
        monkeypatch.setattr(paused_search, name, 3)
    if lane is None:
        bench.limit_queue()
    bench.add("send", count=10, lane=lane)
    order = [bench.add(lane=lane, priority=priority)[0] for priority in (0, 1, 2)]
    bench.pauses.pause(TASK, "send")
    assert [id_ for _ in range(15) for id_ in bench.of_lanes(limit=1)] == order


def test_a_key_behind_many_paused_jobs_goes_before_no_key_whose_job_is_due_earlier(
    bench: PauseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is behind those that were looked at, not that of its first one."""
    for name in ("ROWS", "ROWS_MIN"):
        monkeypatch.setattr(paused_search, name, 3)
    paused = bench.add("send", count=20, lane="a")
    (other,), (free,) = (bench.add(lane=lane) for lane in ("b", "a"))
    for seconds, id_ in enumerate([*paused[:10], other, *paused[10:], free], -100):
        bench.kit.change(id_, run_at=after(seconds))
    bench.pauses.pause(TASK, "send")
    assert [id_ for _ in range(15) for id_ in bench.of_lanes(limit=1)] == [other, free]


def test_a_key_of_which_a_job_was_taken_goes_on_behind_the_last_that_was_looked_at(
    bench: PauseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ROWS", "ROWS_MIN"):
        monkeypatch.setattr(paused_search, name, 3)
    (first,), paused, (last,) = (
        bench.add(lane="a"),
        bench.add("send", count=2, lane="a"),
        bench.add(lane="a"),
    )
    (other,) = bench.add(lane="b")
    for seconds, id_ in enumerate((first, paused[0], other, paused[1], last), -100):
        bench.kit.change(id_, run_at=after(seconds))
    bench.pauses.pause(TASK, "send")
    assert [id_ for _ in range(5) for id_ in bench.of_lanes(limit=1)] == [first, other, last]


def test_no_worker_looks_into_a_limited_queue_of_which_all_is_paused(bench: PauseBench) -> None:
    bench.limit_queue()
    bench.add("send", count=3)
    bench.pauses.pause(TASK, "send")
    for _ in range(2):  # It has no lane, and then an empty one.
        bench.lanes.sweep()
        add_new(bench.store, bench.lanes, 0)
        with bench.store.read() as connection:
            assert bench.lanes.with_work(connection, None) == []
        assert bench.of_lanes() == []


def test_no_worker_looks_into_the_lane_of_a_new_job_that_is_paused(bench: PauseBench) -> None:
    bench.add("send", lane="a")
    bench.add("send", lane="b")
    bench.add("add", lane="b")
    bench.pauses.pause(TASK, "send")
    add_new(bench.store, bench.lanes, 0)
    assert bench.keys() == {"b": Parked.NO}


@pytest.mark.databases("sqlite")
def test_a_job_with_an_instant_in_another_form_is_claimed_while_something_is_paused(
    bench: PauseBench,
) -> None:
    ids_ = bench.add(count=2)
    with bench.store.write() as connection:
        connection.execute(text("UPDATE jobqueue_jobs SET run_at = '2026-01-31 23:59:59'"))
    bench.pauses.pause(TASK, "send")
    search = paused_search.PausedSearch(PausedJobs(bench.store))
    with bench.store.write() as connection:
        cursors, ends = search.look(connection, ["default"])
        taken = bench.kit.claims.claim_queues(
            connection, bench.holder, cursors, ends, share=3, limit=3, free=3
        )
    assert [claim.id for claim in taken["default"]] == ids_


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
def test_a_lane_that_a_claim_parks_while_its_pause_ends_comes_back(
    bench: PauseBench, wait_until: Any
) -> None:
    bench.add("send", lane="a", lane_limit=1, lane_strict=1)
    bench.lanes.sweep()
    bench.pauses.pause(TASK, "send")
    resuming = threading.Thread(target=bench.pauses.resume, args=(TASK, "send"))
    with bench.store.write() as connection:
        assert not bench.lanes.claim(connection, bench.holder, "default", 3).claims
        resuming.start()
        wait_until(lambda: not bench.pauses.all())
    resuming.join(30)
    assert bench.keys() == {"a": Parked.NO}


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
    bob = Pauses(bench.store, "bob")
    assert Pauses(bench.store, "ada").pause(TASK, "send")
    assert not bob.pause(TASK, "send")
    assert bench.pauses.pause(TAG, "bulk")
    tag, task = bench.pauses.all()
    assert (tag["kind"], tag["name"], tag["paused_by"]) == ("tag", "bulk", None)
    assert (task["kind"], task["name"], task["paused_by"]) == ("task", "send", "ada")
    assert not bench.pauses.resume(TASK, "bulk")
    assert bob.resume(TASK, "send")
    log = [(row["actor"], row["verb"], row["target"]) for row in Audit(bench.store).find(None)]
    assert log == [("bob", "resume", {"task": "send"}), ("ada", "pause", {"task": "send"})]


# Many of them


MANY, AT_ONCE = 12_000, 1_000  # More than the sweep passes over, and far more than one claim.


class ManyPaused:
    """A lane with many paused jobs in front."""

    def __init__(self, bench: PauseBench, of: str) -> None:
        self.bench, self.reads, self.newest = bench, Reads(bench.store), 0
        self.columns = {"lane": "a"} if of == "a key" else {}
        if of != "a key":
            bench.limit_queue()
        with bench.store.write() as connection:
            lane = "'a'" if of == "a key" else "NULL"
            connection.execute(text(
                f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
                f" INSERT INTO jobqueue_jobs (task, lane) SELECT 'send', {lane} FROM n"
            ))  # fmt: skip
        bench.pauses.pause(TASK, "send")

    def add(self, **columns: Any) -> int:
        return self.bench.add(**self.columns | columns)[0]

    def claim(self) -> list[int]:
        self.newest, _ = add_new(self.bench.store, self.bench.lanes, self.newest)
        with self.reads.write() as connection:
            found = self.bench.lanes.claim(connection, self.bench.holder, "default", 3)
        return [claim.id for claim in found.claims]

    def lane(self, key: str) -> Lane:
        """A key as a claim sees it in one look."""
        with self.bench.store.write() as connection:
            (lane,) = self.bench.lanes.of_keys(connection, "default", {key: 0.0}, 3, paused=True)
        return lane

    def look(self, key: str) -> list[int]:
        return [head.id for head in self.lane(key).heads]

    def claims(self) -> int:
        """How many claims it takes until one gives something."""
        return next(count for count in range(1, 2 * MANY // AT_ONCE) if self.claim())


def test_a_claim_of_a_range_looks_at_no_other_jobs_of_its_instants(bench: PauseBench) -> None:
    """One INSERT gives all of its jobs the same."""
    first, *_, last = bench.add(
        "send", count=2_000, run_at=(at := datetime(2020, 1, 1, tzinfo=UTC))
    )
    bench.kit.change(free := (first + last) // 2, task="add")
    bench.pauses.pause(TASK, "send")
    reads, cursors, ends = Reads(bench.store), {"default": (0, at, free - 5)}, (0, at, free + 5)
    with reads.write() as connection:
        taken = bench.kit.claims.claim_queues(
            connection, bench.holder, cursors, {"default": ends}, share=3, limit=3, free=3
        )
    assert [claim.id for claim in taken["default"]] == [free]
    assert reads.most < 100


@pytest.fixture(params=["a key", "a limited queue"])
def many(
    request: pytest.FixtureRequest, bench: PauseBench, monkeypatch: pytest.MonkeyPatch
) -> ManyPaused:
    monkeypatch.setattr(paused_search, "ROWS", AT_ONCE)
    return ManyPaused(bench, request.param)


def test_a_claim_from_a_lane_looks_at_few_of_the_paused_jobs_in_front_of_others(
    many: ManyPaused,
) -> None:
    many.add()
    assert MANY // AT_ONCE - 1 <= many.claims() <= MANY // AT_ONCE + 2
    many.add()
    assert many.claims() == 1  # It goes on from where it was.
    assert many.reads.most < 6 * AT_ONCE


def test_what_an_operator_puts_in_front_of_the_paused_jobs_of_a_lane_is_found_at_once(
    many: ManyPaused,
) -> None:
    many.add()
    many.claims()
    front = many.add(run_at=datetime(2020, 1, 1, tzinfo=UTC))
    Pauses(many.bench.store, "ada").pause(TAG, "other")
    assert many.claim() == [front]


def test_a_look_leaves_out_no_job_between_those_in_front_and_behind(many: ManyPaused) -> None:
    many.bench.lanes.sweep()  # It adds the lane of the key.
    assert not any(many.claim() for _ in range(2 * MANY // AT_ONCE))
    front = many.add(run_at=datetime(2020, 1, 1, tzinfo=UTC))
    with many.bench.store.read() as connection:
        middle = connection.execute(select(func.min(jobs.c.id))).scalar_one() + MANY // 2
    many.bench.kit.change(middle, task="add")
    last = many.add(lane_strict=1)
    Pauses(many.bench.store, "ada").pause(TAG, "other")
    got = [id_ for _ in range(4 * MANY // AT_ONCE) for id_ in many.claim()]
    assert got == [front, middle, last]


@pytest.fixture
def two_keys(bench: PauseBench, monkeypatch: pytest.MonkeyPatch) -> ManyPaused:
    """Many paused jobs in "a", and as many in "b"."""
    monkeypatch.setattr(paused_search, "ROWS", AT_ONCE)
    many = ManyPaused(bench, "a key")
    with bench.store.write() as connection:
        connection.execute(text(
            "INSERT INTO jobqueue_jobs (task, lane) SELECT task, 'b' FROM jobqueue_jobs"
        ))  # fmt: skip
    return many


def test_a_key_that_waits_for_its_turn_keeps_the_reason_for_another_search(
    two_keys: ManyPaused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paused_search, "INTERVAL", 600.0)
    look, pauses = two_keys.look, Pauses(two_keys.bench.store, "ada")
    for key in "ab":
        assert not any(look(key) for _ in range(2 * MANY // AT_ONCE))
    pauses.pause(TAG, "first")
    assert look("a") == []
    assert not any(look("b") for _ in range(2 * MANY // AT_ONCE))
    front = two_keys.bench.add(lane="a", run_at=datetime(2020, 1, 1, tzinfo=UTC))
    pauses.pause(TAG, "second")
    assert look("b") == []
    assert front in [look("a") for _ in range(3 * MANY // AT_ONCE)]


def test_a_key_that_waits_for_its_turn_keeps_its_place(
    two_keys: ManyPaused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paused_search, "INTERVAL", 600.0)
    for key in "ab":
        assert not any(two_keys.look(key) for _ in range(2 * MANY // AT_ONCE))
    last = two_keys.bench.add(lane="a")
    assert two_keys.look("a") == last


def test_a_search_of_one_key_does_not_begin_that_of_another_over_again(
    two_keys: ManyPaused, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "ab":
        assert not any(two_keys.look(key) for _ in range(2 * MANY // AT_ONCE))
    with two_keys.bench.store.read() as connection:
        of_b = select(jobs.c.id).where(jobs.c.lane == "b").order_by(jobs.c.id)
        middle = connection.execute(of_b.offset(MANY // 2)).scalars().first()
        rest_of_a = select(jobs.c.id).where(jobs.c.lane == "a").order_by(jobs.c.id).offset(1_500)
        others = connection.execute(rest_of_a).scalars().all()
    two_keys.bench.kit.change(middle, task="add")
    two_keys.bench.kit.change(*others, lane="c")
    monkeypatch.setattr(paused_search, "INTERVAL", 0.0)
    monkeypatch.setattr(paused_search, "SHARE", 1.0)
    assert [middle] in [two_keys.look(key)[:1] for _ in range(2 * MANY // AT_ONCE) for key in "ab"]


def test_a_key_is_passed_over_for_long_unless_another_search_of_it_is_under_way(
    two_keys: ManyPaused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at all while that has a reason, as it goes on without a rest."""
    monkeypatch.setattr(paused_search, "INTERVAL", 600.0)

    def rests() -> list[float | None]:
        return [two_keys.lane("a").rest for _ in range(MANY // AT_ONCE + 2)]

    assert rests()[-1] == paused_search.REST_MAX
    Pauses(two_keys.bench.store, "ada").pause(TAG, "other")
    (first, *_, last) = rests()
    assert (first, last) == (0.0, paused_search.REST_MAX)
    monkeypatch.setattr(paused_search, "INTERVAL", 0.0)
    assert rests()[0] == paused_search.REST_SEARCHING


def test_of_the_keys_that_are_not_looked_at_any_more_few_places_are_kept(
    bench: PauseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in {"ROWS": 3, "ROWS_MIN": 3, "PLACES_MAX": 4}.items():
        monkeypatch.setattr(paused_search, name, most)
    for key in "abcdefghi":
        bench.add("send", count=5, lane=key)
    bench.pauses.pause(TASK, "send")
    search = paused_search.PausedSearch(PausedJobs(bench.store, Searched.KEYS, "default"))
    for key in "abcdefghi":
        with bench.store.read() as connection:
            search.search(connection, [key])
    assert 1 < len(search._places) <= 1 + 2 + 4


def test_a_key_of_which_many_jobs_are_paused_is_passed_over_for_a_while(many: ManyPaused) -> None:
    many.bench.lanes.sweep()  # It does not look at all of them.
    of_key = many.bench.keys()
    while many.bench.keys() == {"a": Parked.NO}:
        assert many.claim() == []
    assert many.bench.keys() == dict.fromkeys(of_key, Parked.FULL)
    assert of_key.keys() == set(many.columns.values())
