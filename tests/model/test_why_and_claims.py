"""`why` against the claim: it says "claimable" of exactly the job that a claim takes.

Random jobs, with concurrency keys or without, queues that are paused, limited or fair, paused tasks and tags, workers that serve or
know less; then a claim for one free slot takes a job of each queue.
"""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, get_args

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from jobqueue.literal_types import WhyCode
from jobqueue.new_jobs import NewJob
from jobqueue.records import Registration
from jobqueue.store.claims import Claims, WorkerRef
from jobqueue.store.clock import after, epoch
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.lanes import Lanes
from jobqueue.store.leases import Leases
from jobqueue.store.schema import LaneKind, Parked, PauseKind, jobs, lanes, pauses, queues, workers
from jobqueue.store.why import explain

pytestmark = pytest.mark.slow


EXAMPLES = 60
BEHIND_TWO_HELD_JOBS = 317  # Of its key: a claim for one slot has to look at the third.
QUEUES = ("plain", "limited", "mixed")
TASKS = ("add", "send", "mystery")
SWITCHES: list[dict[str, Any]] = [
    *[{}] * 5,
    {"paused_at": after(-60.0)},
    {"max_running": 0},
    {"max_running": 1},
    {"max_running": 3},
    {"rate_count": 1, "rate_period": 3600.0},
    {"max_running": 9, "rate_count": 2, "rate_period": 3600.0, "rate_burst": 5},
    {"fair": 1},
    {"fair": 1, "max_running": 3},
]
QUEUE_PAUSES = SWITCHES[:6]
PAUSES = [(PauseKind.TASK, "send"), (PauseKind.TAG, "bulk"), (PauseKind.TAG, "bul")]
STATES = [*["available"] * 8, *["running"] * 2, "scheduled", "succeeded"]


class Draw(random.Random):
    """What one example is made of."""

    def job(self) -> dict[str, Any]:
        return {
            "queue": self.choice(QUEUES),
            "task": self.choice([*["add"] * 4, "send", "mystery"]),
            "tags": self.choice([None, None, None, '["urgent"]', '["a", "bulk"]']),
            "priority": self.randint(-1, 1),
            "state": self.choice(STATES),
            "key": self.choice([None, None, "a", "b", "c"]),
            "limit": self.choice([None, 0, 1, 1, 2, 3]),
            "strict": self.random() < 0.5,
            "begun": self.random() < 0.3,
        }

    def worker(self) -> dict[str, Any]:
        return {
            "queues": self.choice([None, None, ("plain", "mixed"), ("limited",)]),
            "tasks": self.choice([TASKS, TASKS, ("add", "send")]),
            "alive": self.random() < 0.8,
        }


@contextmanager
def rolled_back(store: Store) -> Iterator[Connection]:
    with store.engine.connect().execution_options(jobqueue_write=True) as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


class World:
    """A database with what was drawn, and workers that claim in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.jobs, self.claims, self.lanes = Jobs(store), Claims(store), Lanes(store)
        self.leases = Leases(store)

    def make(self, draw: Draw) -> None:
        drawn = [draw.job() for _ in range(draw.randint(3, 24))]
        fleet = [draw.worker() for _ in range(draw.randint(1, 3))]
        with self.store.write() as connection:
            for table in (jobs, workers, queues, lanes, pauses):
                connection.execute(delete(table))
        self.fleet = [(worker, self.register(worker)) for worker in fleet]
        new = [
            NewJob(
                task["task"],
                task["queue"],
                task["priority"],
                '{"args":[],"kwargs":{}}',
                task["tags"],
                *(None, None, 10, None, None, None, None),
            )  # fmt: skip
            for task in drawn
        ]
        ids = [made.id for made in self.jobs.insert(new)]
        with self.store.write() as connection:
            for place, (id_, job) in enumerate(zip(ids, drawn, strict=True)):
                connection.execute(self.placed(id_, job, place, len(drawn)))
            for name in QUEUES:
                if switches := draw.choice(QUEUE_PAUSES if name == "plain" else SWITCHES):
                    connection.execute(insert(queues).values(name=name, **switches))
            for kind, name in PAUSES:
                if draw.random() < 0.2:
                    connection.execute(insert(pauses).values(kind=kind, name=name))
        self.lanes.sweep()
        with self.store.write() as connection:
            started = update(lanes).where(lanes.c.kind == LaneKind.QUEUE)
            ahead = draw.choice([0.0, 3600.0])  # How far starts have run ahead of a rate.
            connection.execute(started.values(next_start=epoch() + ahead))
            for name in connection.execute(select(lanes.c.name)).scalars().all():
                turns = {each: 10 * draw.random() for each in ("turn", "plain_turn")}
                connection.execute(update(lanes).where(lanes.c.name == name).values(turns))
        for name in QUEUES:
            self.park_full(name)

    def register(self, worker: dict[str, Any]) -> WorkerRef:
        who = Registration("w", "h", 1, None, None, None, None, worker["queues"], worker["tasks"],
                           4, 30.0)  # fmt: skip
        ref = WorkerRef(self.leases.register(who), "w")
        if not worker["alive"]:
            with self.store.write() as connection:
                old = update(workers).where(workers.c.id == ref.id)
                connection.execute(old.values(heartbeat_at=after(-90.0)))
        return ref

    def placed(self, id_: int, job: dict[str, Any], place: int, count: int) -> Any:
        """Each job has an instant of its own; a key is in one queue, as a worker finds it."""
        key = None if job["key"] is None else f"{job['queue']} {job['key']}"
        # In a limited queue a strict job that is due again goes before any other.
        strict = job["strict"] and job["queue"] == "plain"
        running = job["state"] == "running"
        begun = running or job["begun"]
        return (
            update(jobs)
            .where(jobs.c.id == id_)
            .values(
                state=job["state"],
                run_at=after(place - count - (0.0 if job["state"] != "scheduled" else -3600.0)),
                lane=key,
                lane_limit=job["limit"] if key else None,
                lane_strict=int(strict) if key else None,
                fence=int(begun),
                worker_id=self.fleet[0][1].id if running else None,
            )
        )

    def park_full(self, queue: str) -> None:
        """Park the full lanes of a queue, as workers do: a claim passes over them."""
        full: set[str] = set()
        with rolled_back(self.store) as connection:
            connection.execute(update(queues).values(max_running=None, rate_count=None, fair=None))
            while names := self.unparked(connection, queue):
                taken = self.lanes.claim(connection, self.fleet[0][1], queue, 1)
                left = self.unparked(connection, queue)
                if not taken.claims:
                    full |= set(names) - set(left)
                    if left == names:
                        break
                park = update(lanes).where(lanes.c.name.in_(taken.keys.values()))
                connection.execute(park.values(parked=1))
        with self.store.write() as connection:
            parked = update(lanes).where(lanes.c.kind == LaneKind.KEY, lanes.c.name.in_(full))
            connection.execute(parked.values(parked=Parked.FULL.value, parked_until=2e10))

    def unparked(self, connection: Connection, queue: str) -> list[str]:
        statement = select(lanes.c.name).where(lanes.c.kind == LaneKind.KEY, lanes.c.queue == queue)
        return list(connection.execute(statement.where(lanes.c.parked == 0)).scalars())

    def taken(self, queue: str) -> set[int]:
        """The jobs that one claim of each kind takes from a queue, for one free slot each."""
        serving = [
            (worker, ref)
            for worker, ref in self.fleet
            if worker["alive"] and (worker["queues"] is None or queue in worker["queues"])
        ]
        if not serving:
            return set()
        known = {task for worker, _ in serving for task in worker["tasks"]}
        ref = serving[0][1]
        with rolled_back(self.store) as connection:
            found = list(self.lanes.claim(connection, ref, queue, 1).claims)
            parameters = {"in_worker": ref.id, "in_worker_name": ref.name, "in_queue": queue}
            statement = self.store.statements.claim_first
            rows = connection.execute(statement, {**parameters, "in_limit": 1}).all()
            found_plain = [(row.id, row.task) for row in rows]
        pairs = [(claim.id, claim.task) for claim in found] + found_plain
        return {id_ for id_, task in pairs if task in known}


@pytest.fixture
def world(url: str) -> Iterator[World]:
    with closing(Store(url)) as store:
        yield World(store)


@pytest.mark.timeout(600)  # It computes for a while.
def test_claimable_is_what_a_claim_takes(world: World) -> None:
    seen: set[str] = set()
    for seed in (*range(EXAMPLES), BEHIND_TWO_HELD_JOBS):
        world.make(Draw(seed))
        with world.store.read() as connection:
            rows = connection.execute(select(jobs.c.id, jobs.c.queue)).all()
        found = {row.id: explain(world.jobs, row.id) for row in rows}
        claimable = {id_ for id_, why in found.items() if why and why.code == "claimable"}
        taken = set().union(*(world.taken(queue) for queue in QUEUES))
        assert claimable == taken, (seed, {id_: found[id_] for id_ in claimable ^ taken})
        seen.update(why.code for why in found.values() if why)
    never = {"awaits_key", "worker_lost", "expired", "failed", "cancelled"}  # It draws no such job.
    assert seen >= set(get_args(WhyCode)) - never
