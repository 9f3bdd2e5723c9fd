"""Lanes against the rules: random histories of keys, queues' switches, claims, ends and lost workers.

Every claim is held against the rows that were there before it: whether each of its jobs might start, one after the other. When all
workers are idle, nothing that may start is left. The rules are told here once more, in Python, and know nothing of parked lanes.
What a claim says is what a worker goes by, so it is held against the rows too: keys are over that it brought back or parked, and it
has seen all that may start if it has not told to look again.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import delete, select, update

from jobqueue.new_jobs import ExtraColumns
from jobqueue.queue_switches import Rate
from jobqueue.records import Claim, JobFilter
from jobqueue.states import FINAL, State
from jobqueue.store import lanes as lane_claims
from jobqueue.store.claims import WorkerRef
from jobqueue.store.clock import after
from jobqueue.store.database import Store
from jobqueue.store.lanes import LaneClaims, Lanes
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schema import (
    LaneId,
    LaneKind,
    Parked,
    PauseKind,
    attempts,
    counters,
    jobs,
    lanes,
    queues,
    workers,
)
from tests.store.conftest import StoreKit
from tests.store.lane_bench import add_new
from tests.model.conftest import run_machine

pytestmark = pytest.mark.slow

EXAMPLES = {"sqlite": 10, "postgres": 8}
STEPS = 30
QUEUES, KEYS = ("a", "b"), ("k", "m")
MANY_KEYS = (*KEYS, *(f"n{number}" for number in range(10)))
LANES_AT_ONCE = 5  # instead of 50, of which more keys were needed
OTHERS = [(), (), ("k",), ("m", "a"), (*MANY_KEYS, *QUEUES), (*MANY_KEYS, *QUEUES)]
"""Lanes that another worker locks."""
ENOUGH = 12  # jobs that wait; more verbs meet then what an earlier one has left
HOUR = 3600.0
WAYS = ("succeeded", "succeeded", "errored", "snoozed", "released", "failed")

Ended = tuple[LaneId, str | None]
"""A lane; with the queue of the claims that bring it back, if it is a key of a queue without a limit."""


@dataclass(frozen=True)
class Row:
    """What the rules say about a job is said of these columns."""

    id: int
    queue: str
    place: tuple[int, Any, int]
    state: State
    fence: int
    worker: int | None
    key: str | None
    limit: float
    strict: bool

    @property
    def running(self) -> bool:
        return self.state is State.RUNNING

    @property
    def holds_a_place(self) -> bool:
        """One that runs, or a strict one that awaits its next attempt."""
        awaits = self.strict and self.fence > 0
        return self.running or (awaits and self.state in (State.SCHEDULED, State.AVAILABLE))

    def is_ahead(self, other: "Row") -> bool:
        """Whether it is in line in front of the other, which is of its queue and key."""
        return (
            self.state is State.AVAILABLE
            and (self.limit > 0 or self.strict)
            and not self.holds_a_place
            and (self.queue, self.key) == (other.queue, other.key)
            and self.place < other.place
        )


@dataclass
class Switches:
    """Of one queue. `ahead`: by how many starts it has run ahead of its rate of one per hour."""

    limit: int | None = None
    burst: int | None = None
    fair: bool = False
    paused: bool = False
    ahead: int = 0

    @property
    def limited(self) -> bool:
        return self.limit is not None or self.burst is not None or self.fair


class Machine(RuleBasedStateMachine):
    """Does to the lanes what workers do, and looks at the rows in between."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.kit, self.lanes = StoreKit(self.store), Lanes(self.store)
        self.control, self.pauses = QueueControl(self.store), Pauses(self.store)
        with self.store.write() as connection:
            for table in (attempts, counters, workers, queues, lanes, jobs):
                connection.execute(delete(table))
        self.switches = {queue: Switches() for queue in QUEUES}
        self.workers = [self.kit.worker(name) for name in ("w1", "w2")]
        self.held: list[Claim] = []
        self.names: dict[int, list[LaneId]] = {}
        self.ended: set[Ended] = set()
        """Lanes in which jobs have ended, and that nobody has brought back yet."""
        self.unsure: set[str] = set()
        """Keys that workers may pass over for seconds, since a place became free in another way."""

    # What the rules say

    def rows(self) -> dict[int, Row]:
        with self.store.read() as connection:
            return {
                row.id: Row(
                    *(row.id, row.queue, (row.priority, row.run_at, row.id), State(row.state)),
                    *(row.fence, row.worker_id, row.lane),
                    float("inf") if row.lane_limit is None else row.lane_limit,
                    bool(row.lane_strict),
                )
                for row in connection.execute(select(jobs))
            }

    def may_start(self, job: Row, rows: dict[int, Row]) -> bool:
        """Whether the job may be claimed now."""
        switches = self.switches[job.queue]
        running = sum(row.running and row.queue == job.queue for row in rows.values())
        if (
            job.state is not State.AVAILABLE
            or switches.paused
            or (switches.limit is not None and running >= switches.limit)
            or (switches.burst is not None and switches.ahead >= switches.burst)
        ):
            return False
        return job.key is None or self.has_room_in(job, rows)

    def has_room_in(self, job: Row, rows: dict[int, Row]) -> bool:
        """Whether its key lets it start."""
        return self.has_room(job, [row for row in rows.values() if row.key == job.key])

    @staticmethod
    def has_room(job: Row, lane: Sequence[Row]) -> bool:
        """Whether the key has room for it, and order lets it."""
        if job.holds_a_place:  # A strict one that is due again: the oldest first.
            due = [m.id for m in lane if m.holds_a_place and m.state is State.AVAILABLE
                   and m.queue == job.queue]  # fmt: skip
            return sum(other.running for other in lane) < job.limit and job.id == min(due)
        places = [other for other in lane if other.holds_a_place]
        due_again = any(m.state is State.AVAILABLE and m.queue == job.queue for m in places)
        ahead = [other for other in lane if other.is_ahead(job)]
        in_order = not ahead if job.strict else not any(other.strict for other in ahead)
        return len(places) < job.limit and not due_again and in_order

    def started(self, claims: Sequence[Claim], rows: dict[int, Row]) -> None:
        """Check one claim's jobs, one after the other."""
        for claim in claims:
            job = rows[claim.id]
            assert self.may_start(job, rows), (job, sorted(rows.values(), key=lambda row: row.id))
            self.switches[job.queue].ahead += self.switches[job.queue].burst is not None
            rows[job.id] = replace(
                job, state=State.RUNNING, fence=job.fence + 1, worker=claim.worker_id
            )
        self.held += claims

    # Verbs

    @precondition(lambda self: self.waiting() <= ENOUGH)
    @rule(queue=st.sampled_from(QUEUES), limit=st.sampled_from([1, 1, 2, None]))
    def enqueue_in_each_key(self, queue: str, limit: int | None) -> None:
        for place, key in enumerate(MANY_KEYS):
            self.enqueue(key, limit if place % 2 else 1, strict=False, queue=queue, count=1)

    @precondition(lambda self: self.waiting() <= ENOUGH)
    @rule(
        key=st.sampled_from([None, *KEYS, *KEYS]),
        limit=st.sampled_from([0, 1, 1, 2, 3, None]),
        strict=st.booleans(),
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([0, 0, 1]),
        delay=st.sampled_from([None, None, HOUR]),
        count=st.integers(1, 4),
    )
    def enqueue(self, key: str | None, limit: int | None, strict: bool, **given: Any) -> None:
        count = given.pop("count")
        extra = None
        if key is not None:
            limit = 1 if strict and limit is None else limit
            extra = ExtraColumns(lane=key, lane_limit=limit, lane_strict=int(strict))
            self.unsure.add(key)
        self.kit.add_many(count, extra=extra, **given)

    def waiting(self) -> int:
        return sum(row.state in (State.SCHEDULED, State.AVAILABLE) for row in self.rows().values())

    @rule(
        data=st.data(),
        queue=st.sampled_from(QUEUES),
        slots=st.sampled_from([1, 1, 2, 4]),
        others=st.sampled_from(OTHERS),
    )
    def claim(self, data: Any, queue: str, slots: int, others: Collection[str]) -> None:
        worker = data.draw(st.sampled_from(self.workers), "worker")
        with self.locking(others) as locked:
            looks_again = self.take(worker, queue, slots, locked)
        if looks_again:
            self.take(worker, queue, slots)

    @contextmanager
    def locking(self, names: Collection[str]) -> Iterator[Collection[str]]:
        """Lock lanes as another worker does; none on SQLite, where who writes holds the database."""
        if self.store.backend.name == "sqlite":
            yield ()
            return
        with self.store.write() as other:
            other.execute(select(lanes).where(lanes.c.name.in_(names)).with_for_update())
            yield names

    def take(self, worker: WorkerRef, queue: str, slots: int, others: Collection[str] = ()) -> bool:
        """Claim as a worker does: from the lanes, then plain jobs; return whether it looks again."""
        rows, switches, before = self.rows(), self.switches[queue], self.lane_rows()
        if switches.limited and not switches.paused:
            switches.ahead = min(switches.ahead, switches.burst or 0)
        ended = sorted(name for (_, name), of in self.ended if of == queue)
        ended = ended[: min(slots, LANES_AT_ONCE)]
        with self.store.write() as connection:
            found = self.lanes.claim(connection, worker, queue, slots, ended)
        self.started(found.claims, rows)
        assert switches.limited or all(rows[claim.id].key for claim in found.claims)
        self.told(found, queue, {*ended}, rows, before, others)
        for claim in found.claims:
            keys = [found.keys[claim.id]] if claim.id in found.keys else []
            assert found.keys.get(claim.id) == rows[claim.id].key
            self.names[claim.id] = [(LaneKind.KEY, key) for key in keys]
            self.names[claim.id] += [(LaneKind.QUEUE, queue)] * found.is_limited
        free = slots - len(found.claims)
        plain = self.kit.take(worker, queue=queue, limit=free, free=free)
        assert not (plain and switches.limited)
        self.started(plain, rows)
        return bool(plain) or found.has_more or found.is_locked

    def told(self, found: LaneClaims, queue: str, ended: set[str], rows: dict[int, Row],
             before: dict[LaneId, Any], others: Collection[str]) -> None:  # fmt: skip
        """Hold what a claim told against the rows: those of jobs after it, of lanes before it and after."""
        assert {*found.brought_back} <= ended
        if not (found.is_limited or self.switches[queue].paused):
            here = {name for (_, name), lane in before.items() if lane.queue == queue}
            assert (ended & here) - {*others} <= {*found.brought_back}
        assert others or not found.is_locked
        self.ended -= {((LaneKind.KEY, name), queue) for name in found.brought_back}
        now = self.lane_rows()
        left = [job for job in rows.values() if job.state is State.AVAILABLE]
        for key in [*found.brought_back, *self.open_keys(before, queue)]:
            where = now[LaneKind.KEY, key].queue if (LaneKind.KEY, key) in now else queue
            if key not in self.open_keys(now, where):
                here = [job for job in left if (job.queue, job.key) == (where, key)]
                assert not any(self.has_room_in(job, rows) for job in here), (key, rows)
                self.unsure.discard(key)
        if not found.has_more and not found.is_locked:
            # A worker holds the lane of a limited queue first: keys of it are locked for a moment only.
            seen = {*self.open_keys(now, queue)} - {*(others if found.is_limited else ())}
            here = [job for job in left if job.queue == queue and job.key in seen]
            assert not any(self.may_start(job, rows) for job in here), rows

    @staticmethod
    def open_keys(rows: dict[LaneId, Any], queue: str) -> list[str]:
        """The keys of a queue that are not parked."""
        return [
            name
            for (kind, name), lane in rows.items()
            if (kind, lane.queue, lane.parked) == (LaneKind.KEY, queue, Parked.NO)
        ]

    def lane_rows(self) -> dict[LaneId, Any]:
        with self.store.read() as connection:
            every = connection.execute(select(lanes).where(lanes.c.kind != LaneKind.SWEEP))
            return {(row.kind, row.name): row for row in every}

    @rule()
    def sweep(self) -> None:
        self.lanes.sweep()

    @rule()
    def look_for_new(self) -> None:
        add_new(self.store, self.lanes, 0)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        way=st.sampled_from(WAYS),
        then=st.sampled_from(["claim", "claim", "unpark", "nothing"]),
        others=st.sampled_from(OTHERS),
    )
    def end(self, data: Any, way: str, then: str, others: Collection[str]) -> None:
        """An outcome, perhaps of a claim that is over; then, perhaps later, the lane is brought back."""
        claim = data.draw(st.sampled_from(self.held[-6:]), "claim")
        self.finish(claim, way)
        if then == "unpark":
            self.unpark(others)
        elif then == "claim":
            with self.locking(others) as locked:
                self.take(self.workers[0], claim.queue, 1, locked)

    def finish(self, claim: Claim, way: str) -> None:
        job = self.rows().get(claim.id)
        holds = job is not None and (job.running, job.fence) == (True, claim.fence)
        holder = WorkerRef(claim.worker_id, "w")
        assert bool(self.kit.finish(holder, getattr(self.kit, way)(claim))) >= holds
        self.held.remove(claim)
        if holds:
            ids = self.names.pop(claim.id, [])
            of = job.queue if len(ids) == 1 else None
            self.ended.update((one, of if one[0] is LaneKind.KEY else None) for one in ids)
            if job.strict and way not in ("succeeded", "failed"):
                self.unsure.add(job.key)

    def unpark(self, others: Collection[str] = ()) -> None:
        with self.locking(others) as names, self.store.write() as connection:
            locked = self.lanes.unpark(connection, {one for one, _ in self.ended}).locked
        assert {name for _, name in locked} <= {*names}
        self.ended = {(one, None) for one in locked}

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def lose_a_worker(self, data: Any) -> None:
        """Its lease ends. It may offer outcomes yet."""
        dead = data.draw(st.sampled_from(self.workers), "worker")
        self.kit.leases.deregister(dead.id)
        self.workers[self.workers.index(dead)] = self.kit.worker(dead.name)

    @rule()
    def reap(self) -> None:
        for lost in self.kit.leases.reap():
            self.ended.update([((LaneKind.KEY, lost.lane), None)] if lost.lane else [])
            self.ended.add(((LaneKind.QUEUE, lost.queue), None))
            if self.rows()[lost.id].strict:
                self.unsure.add(lost.lane)

    @rule(queue=st.sampled_from(QUEUES), limit=st.sampled_from([None, None, None, 0, 1, 2, 4]))
    def limit(self, queue: str, limit: int | None) -> None:
        self.control.limit(queue, limit)
        self.switches[queue].limit = limit

    @rule(queue=st.sampled_from(QUEUES), burst=st.sampled_from([None, None, None, 1, 3, 6]))
    def rate(self, queue: str, burst: int | None) -> None:
        self.control.rate(queue, None if burst is None else Rate(1, HOUR, burst))
        self.switches[queue].burst = burst

    @rule(queue=st.sampled_from(QUEUES), fair=st.sampled_from([False, False, True]))
    def fair(self, queue: str, fair: bool) -> None:
        self.control.fair(queue, fair=fair)
        self.switches[queue].fair = fair

    @rule(queue=st.sampled_from(QUEUES), paused=st.sampled_from([False, False, True]))
    def pause(self, queue: str, paused: bool) -> None:
        self.set_pause(queue, paused)

    def set_pause(self, queue: str, paused: bool) -> None:
        (self.pauses.pause if paused else self.pauses.resume)(PauseKind.QUEUE, queue)
        self.switches[queue].paused = paused

    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        waiting = [row for row in self.rows().values() if not row.running]
        if waiting:
            job = data.draw(st.sampled_from(waiting), "job")
            self.kit.jobs.cancel(JobFilter(ids=(job.id,)))
            self.unsure.add(job.key)

    @rule()
    def time_passes(self) -> None:
        """What is scheduled becomes due, and no lane is passed over any more."""
        with self.store.write() as connection:
            scheduled = jobs.c.state == State.SCHEDULED.value
            connection.execute(update(jobs).where(scheduled).values(run_at=after(-1.0)))
            parked = update(lanes).where(lanes.c.kind != LaneKind.SWEEP)
            connection.execute(parked.values(parked_until=0.0))
        self.kit.maintenance.promote()
        self.unsure.clear()

    # What must always hold

    @invariant()
    def no_key_is_over_its_limit(self) -> None:
        """Who was claimed last was within its own limit."""
        running = [row for row in self.rows().values() if row.running and row.key]
        for key in {row.key for row in running}:
            mine = [row for row in running if row.key == key]
            assert len(mine) <= max(row.limit for row in mine)

    @rule(slots=st.sampled_from([1, 9]))
    def nothing_is_left_that_may_start(self, slots: int = 9) -> None:
        """When workers with free slots find nothing more, and know of every end."""
        self.claim_all(slots)
        for job in (rows := self.rows()).values():
            if job.key not in self.unsure and job.queue not in self.unsure:
                assert not self.may_start(job, rows), (job, rows)

    def claim_all(self, slots: int) -> None:
        self.take_all(slots)
        self.unpark()
        for _ in range(1 + len(QUEUES)):  # A sweep looks for the jobs of a key in another queue.
            self.lanes.sweep()
            self.take_all(slots)

    def take_all(self, slots: int) -> None:
        for queue in QUEUES:
            rounds = 100
            while self.take(self.workers[0], queue, slots):
                assert (rounds := rounds - 1), "A worker looks again without end."

    def teardown(self) -> None:
        """Nothing is lost: without switches, all that its own limit lets start comes to its end."""
        for queue in QUEUES:
            self.set_pause(queue, paused=False)
            self.limit(queue, None)
            self.rate(queue, None)
            self.fair(queue, fair=False)
        for worker in self.workers:
            self.kit.leases.deregister(worker.id)
        self.reap()
        self.workers = [self.kit.worker()]
        for _ in range(len(rows := self.rows())):
            self.time_passes()
            self.nothing_is_left_that_may_start()
            mine = [claim for claim in self.held if claim.worker_id == self.workers[0].id]
            if not mine:
                break
            for claim in mine:
                self.finish(claim, "succeeded")
        left = [row for row in self.rows().values() if row.state not in FINAL]
        assert all(row.limit == 0 or self.is_behind_a_limit_of_0(row, left) for row in left), rows

    @staticmethod
    def is_behind_a_limit_of_0(job: Row, left: Sequence[Row]) -> bool:
        return any(row.is_ahead(job) and row.limit == 0 for row in left)


def test_no_history_of_lanes_passes_a_limit_or_loses_a_job(
    url: str, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_claims, "LANES_AT_ONCE", LANES_AT_ONCE)
    with closing(Store(url)) as store:
        run_machine(
            type("MachineOnAStore", (Machine,), {"store": store}),
            examples=EXAMPLES[backend_name],
            steps=STEPS,
        )
