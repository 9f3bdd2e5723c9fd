"""The store against a small model: random verbs, stale fences included, and what must always hold.

The model knows MOVES, how attempts are charged, and who holds a key; nothing of SQL.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs
from sqlalchemy import delete, select, update

from jobqueue.store.clock import after
from jobqueue.new_jobs import NewJob
from jobqueue.records import AttemptError, Claim, Unsuccessful, JobFilter, Registration, Succeeded
from jobqueue.store.schema import attempts, counters, jobs, workers
from jobqueue.states import FINAL, MOVES, State
from jobqueue.store.claims import Claims, WorkerRef
from jobqueue.store.jobs import Jobs
from jobqueue.store.database import Store
from jobqueue.store.leases import Leases
from jobqueue.store.completion import Completion
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.sql.leases import REFUNDS_MAX
from tests.model.conftest import run_machine

pytestmark = pytest.mark.slow

EXAMPLES = {"sqlite": 60, "postgres": 20}
STEPS = 30
ENOUGH = 8  # jobs; more verbs meet then what an earlier one has left
KEYS = [None, None, "k1", "k2"]
SCOPES = ["finished", "started", "deleted"]
OUTCOMES = ["succeed", "retry", "fail", "snooze", "release", "cancel", "crash"]


@dataclass(frozen=True)
class Model:
    """One job as it must be."""

    state: State
    fence: int
    attempt: int
    max_attempts: int
    budget: int
    key: str | None
    scope: str | None
    worker: int | None = None
    wish: bool = False
    crashes: int = 0
    snoozes: int = 0
    child_crashes: int = 0
    begun: bool = False

    def move(self, verb: str, **changes: Any) -> "Model":
        assert self.state in MOVES[verb].before, f"{verb} of a job that is {self.state}"
        return replace(self, state=MOVES[verb].after, **changes)

    @property
    def holds_key(self) -> bool:
        if self.key is None:
            return False
        return {
            "finished": self.state not in FINAL,
            "started": self.state not in FINAL and not self.begun,
            "deleted": True,
        }[self.scope or "finished"]


class Machine(RuleBasedStateMachine):
    """Does to the store what it does to the model, and compares."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.jobs, self.claims = Jobs(self.store), Claims(self.store)
        self.leases, self.maintenance = Leases(self.store), Maintenance(self.store)
        self.completion = Completion(self.store)
        with self.store.write() as connection:
            for table in (attempts, counters, workers, jobs):
                connection.execute(delete(table))
        self.model: dict[int, Model] = {}
        self.held: list[Claim] = []  # every claim ever made, stale ones too
        self.seen: dict[int, tuple[State, int]] = {}
        self.workers = [self.register(), self.register()]
        for most in (1, 2):  # Something runs from the start: most of the verbs are about that.
            self.insert(key=None, scope="finished", delayed=False, most=most, count=3)
            self.take(self.workers[0], 2, 2)

    def register(self) -> WorkerRef:
        who = Registration("w", "h", 1, None, None, None, None, None, ("t",), 4, 30.0)
        return WorkerRef(self.leases.register(who), "w")

    def holder_of_key(self, key: str | None) -> int | None:
        found = [id_ for id_, job in self.model.items() if job.holds_key and job.key == key]
        assert len(found) <= 1
        return found[0] if found else None

    def some(self, *states: State) -> bool:
        return any(job.state in states for job in self.model.values())

    def pick(self, data: Any) -> int:
        return data.draw(st.sampled_from(sorted(self.model)), "job")

    # Verbs

    @precondition(lambda self: len(self.model) <= ENOUGH)
    @rule(
        key=st.sampled_from(KEYS),
        scope=st.sampled_from(SCOPES),
        delayed=st.booleans(),
        most=st.integers(1, 3),
        count=st.integers(1, 2),
    )
    def insert(self, key: str | None, scope: str, delayed: bool, most: int, count: int) -> None:
        call = NewJob(
            *("t", "q", 0, '{"args":[],"kwargs":{}}', None, 3600.0 if delayed else None, None),
            *(most, None, None, key, scope if key else None),
        )
        for made in self.jobs.insert([call] * count):
            holder = self.holder_of_key(key)
            assert made.created == (holder is None)
            if made.created:
                assert made.id not in self.model
                state = State.SCHEDULED if delayed else State.AVAILABLE
                self.model[made.id] = Model(state, 0, 0, most, most, key, scope if key else None)
            else:
                assert made.id == holder

    @rule(data=st.data(), limit=st.integers(1, 4), free=st.integers(0, 4))
    def claim(self, data: Any, limit: int, free: int) -> None:
        self.take(data.draw(st.sampled_from(self.workers), "worker"), limit, free)

    def take(self, worker: WorkerRef, limit: int, free: int) -> None:
        with self.store.write() as connection:
            taken = self.claims.claim(connection, worker, "q", limit=limit, free=free)
        available = [i for i, job in self.model.items() if job.state is State.AVAILABLE]
        assert len(taken) <= limit
        assert free < limit or len(taken) == min(limit, len(available))
        assert not any(claim.immediate_only for claim in taken[free:])
        for claim in taken:
            job = self.model[claim.id]
            changed = job.move(
                "claim", fence=job.fence + 1, attempt=job.attempt + 1, worker=worker.id
            )
            self.model[claim.id] = changed
            assert (claim.fence, claim.attempt) == (changed.fence, changed.attempt)
            solo = job.budget == 1 or job.crashes > 0 or job.scope == "started"
            frees = job.scope == "started" and not job.begun
            assert (claim.at_most_once, claim.immediate_only) == (job.budget == 1, solo)
            assert claim.releases_key_on_start == frees
        self.held += taken

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def begin(self, data: Any) -> None:
        claim = data.draw(st.sampled_from(self.held[-6:]), "claim")
        job = self.model.get(claim.id)
        holds = job is not None and job.state is State.RUNNING and job.fence == claim.fence
        assert self.claims.mark_started(claim) == holds
        if holds:
            self.model[claim.id] = replace(job, begun=True)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), verb=st.sampled_from(OUTCOMES), shift=st.sampled_from([0, 0, 0, 0, -1]))
    def finish(self, data: Any, verb: str, shift: int) -> None:
        claim = data.draw(st.sampled_from(self.held[-6:]), "claim")
        claim = structs.replace(claim, fence=claim.fence + shift)
        job = self.model.get(claim.id)
        holds = job is not None and job.state is State.RUNNING and job.fence == claim.fence
        crash = verb == "crash"
        verb = "retry" if crash else verb
        if verb == "retry" and holds and job.attempt >= job.max_attempts:
            verb = "fail"  # As a worker decides.
        answer = self.offer(claim, verb, crash)
        if holds:
            self.model[claim.id] = self.ended(job, verb, crash)
            assert answer == {claim.id: self.model[claim.id].state}
        elif answer:  # It is in this outcome's own final state, by this very claim.
            assert job.state in FINAL and job.state is MOVES[verb].after
            assert job.fence == claim.fence + 1

    def offer(self, claim: Claim, verb: str, crash: bool) -> dict[int, State]:
        given_back = verb in ("snooze", "release")
        error = AttemptError("E", "m", None) if verb in ("retry", "fail") else None
        outcome: Succeeded | Unsuccessful = Succeeded(claim, "1", None, 0.1, 0.1)
        if verb != "succeed":
            outcome = Unsuccessful(
                claim,
                verb,
                MOVES[verb].after,
                refund=given_back,
                snooze=verb == "snooze",
                error=error,
                duration=None if verb == "release" else 0.1,
                crash=crash,
            )
        with self.store.write() as connection:
            return self.completion.complete(connection, WorkerRef(claim.worker_id, "w"), [outcome])

    @staticmethod
    def ended(job: Model, verb: str, crash: bool) -> Model:
        changes: dict[str, Any] = {"fence": job.fence + 1, "worker": None}
        changes["attempt"] = job.attempt - (verb in ("snooze", "release"))
        changes["snoozes"] = job.snoozes + (verb == "snooze")
        if crash:
            changes |= {"crashes": job.crashes + 1, "child_crashes": job.child_crashes + 1}
        elif verb != "release":
            changes |= {"crashes": 0, "child_crashes": 0}
        return job.move("cancel" if job.wish else verb, **changes)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), what_runs=st.booleans())
    def cancel(self, data: Any, what_runs: bool) -> None:
        running = [id_ for id_, job in self.model.items() if job.state is State.RUNNING]
        id_ = (
            data.draw(st.sampled_from(running), "running")
            if running and what_runs
            else self.pick(data)
        )
        changed, refused = self.jobs.cancel(JobFilter(ids=(id_,)))
        job = self.model[id_]
        assert bool(changed) == (job.state in MOVES["cancel"].before)
        assert bool(refused) == (job.state in (State.SUCCEEDED, State.FAILED))
        if job.state is State.RUNNING:
            self.model[id_] = replace(job, wish=True)
        elif changed:
            self.model[id_] = job.move("cancel", wish=True)

    @precondition(lambda self: self.some(State.SCHEDULED, *FINAL))
    @rule(data=st.data())
    def rerun(self, data: Any) -> None:
        count = data.draw(st.integers(1, 3), "count")
        ids = sorted({self.pick(data) for _ in range(count)})
        asked = data.draw(st.booleans(), "succeeded jobs too")
        changed, _ = self.jobs.retry(JobFilter(ids=tuple(ids)), succeeded=asked)
        # Those without a key first, then those with one in order: the first gets a free key.
        for id_ in ids:
            job = self.model[id_]
            if job.state is State.SCHEDULED:
                assert id_ in changed
                self.model[id_] = job.move("run_now", snoozes=0)
            elif job.state in FINAL and (asked or job.state is not State.SUCCEEDED):
                other = self.holder_of_key(job.key)
                takes = job.scope == "finished" or (job.scope == "started" and not job.begun)
                held = takes and job.key and other not in (None, id_)
                assert (id_ in changed) == (not held)
                if not held:
                    self.model[id_] = self.granted(job)
            else:
                assert id_ not in changed

    @staticmethod
    def granted(job: Model) -> Model:
        changes = {"fence": job.fence + 1, "max_attempts": job.attempt + job.budget}
        return job.move("requeue", wish=False, crashes=0, child_crashes=0, snoozes=0, **changes)

    @precondition(lambda self: len(self.model) > ENOUGH)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        id_ = self.pick(data)
        changed, refused = self.jobs.delete(JobFilter(ids=(id_,)))
        running = self.model[id_].state is State.RUNNING
        assert (bool(changed), bool(refused)) == (not running, running)
        if not running:
            del self.model[id_]
            self.seen.pop(id_, None)

    def busy(self) -> list[WorkerRef]:
        holding = {job.worker for job in self.model.values()}
        return [worker for worker in self.workers if worker.id in holding]

    @precondition(lambda self: self.busy() and not self.orphans())
    @rule(data=st.data())
    def lose_a_worker(self, data: Any) -> None:
        """A worker's lease ends; it lives on and claims nothing, and its outcomes are stale later."""
        dead = data.draw(st.sampled_from(self.busy()), "worker")
        self.leases.deregister(dead.id)
        with self.store.write() as connection:
            assert self.claims.claim(connection, dead, "q", limit=9, free=9) == []
        self.workers[self.workers.index(dead)] = self.register()

    def orphans(self) -> set[int]:
        alive = {None, *(worker.id for worker in self.workers)}
        return {id_ for id_, job in self.model.items() if job.worker not in alive}

    @precondition(lambda self: self.orphans())
    @rule(limit=st.integers(1, 5))
    def reap(self, limit: int) -> None:
        orphans = self.orphans()
        lost = self.leases.reap(limit)
        assert len(lost) == min(limit, len(orphans))
        for gone in lost:
            assert gone.id in orphans
            job = self.model[gone.id]
            charged = job.crashes >= REFUNDS_MAX
            spent = job.budget == 1 or (charged and job.attempt >= job.max_attempts)
            verb = "cancel" if job.wish else "fail" if spent else "reap"
            changes = {"fence": job.fence + 1, "crashes": job.crashes + 1, "worker": None}
            changes["attempt"] = job.attempt - (verb == "reap" and not charged)
            self.model[gone.id] = job.move(verb, **changes)
            assert (gone.state, gone.fence) == (self.model[gone.id].state, job.fence + 1)
            assert gone.attempt == job.attempt

    @precondition(lambda self: self.some(State.SCHEDULED))
    @rule()
    def promote(self) -> None:
        waiting = [i for i, job in self.model.items() if job.state is State.SCHEDULED]
        with self.store.write() as connection:
            due = update(jobs).where(jobs.c.id.in_(waiting)).values(run_at=after(-1.0))
            connection.execute(due)
        assert len(self.maintenance.promote()) == len(waiting)
        for id_ in waiting:
            self.model[id_] = self.model[id_].move("promote")

    # What must always hold

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        with self.store.read() as connection:
            rows = {row.id: row for row in connection.execute(select(jobs))}
        found = {
            id_: Model(
                State(row.state),
                row.fence,
                row.attempt,
                row.max_attempts,
                row.base_max_attempts or row.max_attempts,
                row.unique_key,
                row.unique_until,
                row.worker_id,
                row.cancel_requested_at is not None,
                row.crashes,
                row.snoozes,
                row.child_crashes,
                bool(row.key_released),
            )
            for id_, row in rows.items()
        }
        assert found == self.model
        for id_, job in found.items():
            self.check(id_, job, rows[id_])

    def check(self, id_: int, job: Model, row: Any) -> None:
        assert 0 <= job.attempt <= job.max_attempts
        assert (job.worker is not None) == (job.state is State.RUNNING)
        assert (row.finished_at is not None) == (job.state in FINAL)
        before, fence = self.seen.get(id_, (None, 0))
        assert job.fence >= fence
        if before is not None and before is not job.state:
            steps = {(start, move.after) for move in MOVES.values() for start in move.before}
            assert (before, job.state) in steps
        assert (State.RUNNING in (before, job.state) and before is not job.state) <= (
            job.fence > fence
        )
        self.seen[id_] = (job.state, job.fence)

    @invariant()
    def a_key_has_at_most_one_holder(self) -> None:
        keys = [job.key for job in self.model.values() if job.holds_key]
        assert len(keys) == len(set(keys))


def test_the_store_does_what_the_model_does(backend_name: str, url: str) -> None:
    with closing(Store(url)) as store:
        machine = type("MachineOnAStore", (Machine,), {"store": store})
        run_machine(machine, examples=EXAMPLES[backend_name], steps=STEPS)
