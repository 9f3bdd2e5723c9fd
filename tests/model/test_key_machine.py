"""Unique keys against a small model: enqueues under each conflict mode, and all that happens to a key's holder meanwhile.

The model knows who holds a key, who waits for it, and what a call does to either; nothing of SQL.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import delete, select, update

from jobqueue import Cancel, JobQueue, Retry, State, WrongState, current_job
from jobqueue.records import Claim
from jobqueue.states import FINAL, LIVE, WAITING
from jobqueue.store.clock import after
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.schema import attempts, counters, jobs, workers
from jobqueue.testing.inline_worker import Inline
from tests.model.conftest import run_machine

pytestmark = pytest.mark.slow

EXAMPLES = {"sqlite": 15, "postgres": 6}
STEPS = 30
KEYS = ["k1", "k1", "k2"]
MODES: dict[str, Any] = {
    "ignore": {},
    "replace": {"on_conflict": "replace"},
    "reschedule": {"on_conflict": "reschedule"},
    "debounce": {"debounce": 1000, "max_wait": 2000},
    "rerun": {"rerun": True},
    "rerun and replace": {"rerun": True, "on_conflict": "replace"},
}
ENDS = ["succeed", "succeed", "retry", "cancel"]


@dataclass(frozen=True)
class Model:
    """One job as it must be. `later`: its due time has not come; `late`: its expiry has."""

    state: State
    key: str
    awaits: bool
    number: int
    later: bool
    expires: bool
    late: bool = False
    attempt: int = 0
    crashes: int = 0
    runs: int = 0

    @property
    def has_begun(self) -> bool:
        return self.attempt > 0 or self.crashes > 0

    @property
    def due(self) -> State:
        return State.SCHEDULED if self.awaits or self.later else State.AVAILABLE


class Machine(RuleBasedStateMachine):
    """Does to the queue what it does to the model, and compares."""

    def __init__(self, queue: JobQueue) -> None:
        super().__init__()
        self.queue, self.began = queue, Counter[int]()
        self.leases, self.maintenance = Leases(queue.store), Maintenance(queue.store)
        queue.registry._tasks.pop("work", None)

        @queue.task(max_attempts=100)
        def work(number: int) -> None:
            self.began[current_job().id] += 1
            if self.ends in ("retry", "cancel"):
                raise Retry if self.ends == "retry" else Cancel

        self.work = work
        with queue.store.write() as connection:
            for table in (attempts, counters, workers, jobs):
                connection.execute(delete(table))
        self.model: dict[int, Model] = {}
        self.claims: list[Claim] = []
        self.asked: set[int] = set()
        """Jobs that calls with `rerun` were given: each is to begin after the call, unless it is cancelled, deleted or late."""
        self.new_worker()

    def new_worker(self) -> None:
        queue = self.queue
        self.worker = Inline(
            queue.store, queue.registry, queue._transactions, events=queue.events, middleware=()
        )
        self.lease = self.worker.lease()
        self.lease.__enter__()

    def find(self, key: str, *, awaits: bool) -> int | None:
        """The job that holds a key, or the one that waits for it."""
        states = (State.SCHEDULED,) if awaits else LIVE
        found = [
            id_
            for id_, job in self.model.items()
            if job.key == key and job.awaits is awaits and job.state in states
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def some(self, *states: State) -> list[int]:
        return sorted(id_ for id_, job in self.model.items() if job.state in states)

    def change(self, id_: int, **changes: Any) -> None:
        self.model[id_] = replace(self.model[id_], **changes)

    def set_columns(self, ids: list[int], **values: Any) -> None:
        with self.queue.store.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(values))

    # Enqueues

    @rule(
        key=st.sampled_from(KEYS),
        mode=st.sampled_from([*MODES, "rerun", "rerun"]),
        later=st.booleans(),
        expires=st.booleans(),
        number=st.integers(0, 999),
    )
    def enqueue(self, key: str, mode: str, later: bool, expires: bool, number: int) -> None:
        later = later or mode == "debounce"
        options = {"delay": 1000 if later and mode != "debounce" else None}
        options |= MODES[mode] | {"unique_key": key, "expires": 5000 if expires else None}
        given = Model(State.AVAILABLE, key, False, number, later, expires)
        expected = self.expected(given, mode)
        job = self.work.options(**options).enqueue(number)
        assert job.created is isinstance(expected, Model)
        if isinstance(expected, Model):
            assert job.id not in self.model
            self.model[job.id] = replace(expected, state=expected.due)
        else:
            assert job.id == expected
        if MODES[mode].get("rerun"):
            self.asked.add(job.id)

    def expected(self, given: Model, mode: str) -> int | Model:
        """The job that the call is given, changed as it asks; or the one that it makes."""
        holder, waits = (self.find(given.key, awaits=awaits) for awaits in (False, True))
        rerun = MODES[mode].get("rerun", False)
        if holder is None and rerun and waits is not None:
            self.take_key(waits)
            holder = waits
        if holder is None:
            return given
        if self.model[holder].state is not State.RUNNING:
            self.conflict(holder, given, mode)
            return holder
        if not rerun:
            return holder
        if waits is None:
            return replace(given, awaits=True)
        self.conflict(waits, given, mode)
        return waits

    def conflict(self, id_: int, given: Model, mode: str) -> None:
        job = self.model[id_]
        changes: dict[str, Any] = {}
        if mode in ("replace", "rerun and replace"):
            changes = {"number": given.number, "expires": given.expires, "late": False}
            changes |= {"later": given.later, "crashes": 0}
        elif mode == "reschedule" or (mode == "debounce" and not job.has_begun):
            changes = {"later": given.later}
        if changes:
            job = replace(job, **changes)
            self.model[id_] = replace(job, state=job.due)

    # Upkeep

    def take_key(self, id_: int) -> None:
        job = replace(self.model[id_], awaits=False)
        self.model[id_] = replace(job, state=job.due)

    @rule()
    def pass_on_keys(self) -> None:
        waiting = (self.find(key, awaits=True) for key in set(KEYS))
        waiters = [i for i in waiting if i and self.find(self.model[i].key, awaits=False) is None]
        assert self.maintenance.pass_on_keys() == len(waiters)
        for id_ in waiters:
            self.take_key(id_)

    @rule()
    def all_become_due(self) -> None:
        waiting = self.some(State.SCHEDULED)
        self.set_columns(waiting, run_at=after(-1.0))
        due = [id_ for id_ in waiting if not self.model[id_].awaits]
        assert len(self.maintenance.promote()) == len(due)
        for id_ in waiting:
            job = replace(self.model[id_], later=False)
            self.model[id_] = replace(job, state=job.due)

    @rule(upkeep=st.booleans())
    def time_to_begin_is_over(self, upkeep: bool) -> None:
        """Upkeep may come later: then a claim meets what has expired."""
        late = [id_ for id_ in self.some(*WAITING) if self.model[id_].expires]
        self.set_columns(late, expires_at=after(-1.0))
        for id_ in late:
            self.change(id_, late=True)
        if upkeep:
            expired = [id_ for id_ in late if not self.model[id_].has_begun]
            assert sorted(job.id for job in self.maintenance.expire()) == expired
            for id_ in expired:
                self.change(id_, state=State.CANCELLED)

    # Workers

    @rule()
    def claim(self) -> None:
        claim = self.worker.claim_next()
        assert (claim is None) == (self.some(State.AVAILABLE) == [])
        if claim is not None:
            job = self.model[claim.id]
            assert job.state is State.AVAILABLE
            self.change(claim.id, state=State.RUNNING, attempt=job.attempt + 1)
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), ends=st.sampled_from(ENDS))
    def end(self, data: Any, ends: str) -> None:
        self.end_one(data.draw(st.sampled_from(self.claims), "claim"), ends)

    def end_one(self, claim: Claim, ends: str) -> None:
        self.claims.remove(claim)
        self.ends = ends
        ran, job = self.worker.run(claim), self.model[claim.id]
        if self.too_late(job):
            assert ran.state is State.CANCELLED
            self.change(claim.id, state=State.CANCELLED, attempt=0)
            return
        after = {"succeed": State.SUCCEEDED, "retry": State.SCHEDULED, "cancel": State.CANCELLED}
        self.change(claim.id, state=after[ends], later=True, runs=job.runs + 1, crashes=0)

    @staticmethod
    def too_late(job: Model) -> bool:
        return job.late and job.attempt == 1 and not job.crashes

    @precondition(lambda self: self.claims)
    @rule()
    def the_worker_dies(self) -> None:
        """A job that it held counts as begun: nobody knows better. Unless it was claimed too late to begin."""
        self.leases.deregister(self.worker._worker.id)
        assert {lost.id for lost in self.leases.reap()} == {claim.id for claim in self.claims}
        for claim in self.claims:
            job = self.model[claim.id]
            changes = {"crashes": job.crashes + 1, "later": False}
            if self.too_late(job):
                self.change(claim.id, state=State.CANCELLED, **changes)
            else:
                self.change(claim.id, state=State.AVAILABLE, attempt=job.attempt - 1, **changes)
        self.claims = []
        self.new_worker()

    # Operators

    @precondition(lambda self: self.some(*WAITING))
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        id_ = data.draw(st.sampled_from(self.some(*WAITING)), "job")
        self.queue.cancel(id_)
        self.change(id_, state=State.CANCELLED)

    @precondition(lambda self: self.some(State.SCHEDULED, State.CANCELLED))
    @rule(data=st.data())
    def retry(self, data: Any) -> None:
        id_ = data.draw(st.sampled_from(self.some(State.SCHEDULED, State.CANCELLED)), "job")
        job = self.model[id_]
        final = job.state in FINAL
        refused = final and self.find(job.key, awaits=job.awaits) is not None
        try:
            self.queue.retry(id_)
        except WrongState:
            assert refused
            return
        assert not refused
        job = replace(job, later=False)
        if final:
            job = replace(job, expires=False, late=False, crashes=0)
        self.model[id_] = replace(job, state=job.due)

    @precondition(lambda self: self.some(*WAITING))
    @rule(data=st.data(), later=st.booleans())
    def update(self, data: Any, later: bool) -> None:
        id_ = data.draw(st.sampled_from(self.some(*WAITING)), "job")
        self.queue.update(id_, at="2099-01-01T00:00Z" if later else "2020-01-01T00:00Z")
        job = replace(self.model[id_], later=later)
        self.model[id_] = replace(job, state=job.due)

    @precondition(lambda self: len(self.model) > 6)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        idle = self.some(*(state for state in State if state is not State.RUNNING))
        if idle:
            id_ = data.draw(st.sampled_from(idle), "job")
            self.queue.delete(id_)
            assert self.began.pop(id_, 0) == self.model.pop(id_).runs

    # What must always hold

    @invariant()
    def the_jobs_are_as_the_model(self) -> None:
        with self.queue.store.read() as connection:
            rows = connection.execute(select(jobs)).all()
        found = {
            row.id: (
                *(row.state, row.unique_key, row.awaited_key, row.args),
                *(row.attempt, row.crashes, self.began[row.id]),
            )
            for row in rows
        }
        assert found == {
            id_: (
                *(job.state, None if job.awaits else job.key, job.key if job.awaits else None),
                *(f'{{"args":[{job.number}],"kwargs":{{}}}}', job.attempt, job.crashes, job.runs),
            )
            for id_, job in self.model.items()
        }
        for key in set(KEYS):  # At most one of each: `find` asserts it.
            self.find(key, awaits=False), self.find(key, awaits=True)

    def teardown(self) -> None:
        """No rerun is lost: all that was asked for begins, if it was not cancelled."""
        for _ in range(2 * len(self.model) + 2):
            self.all_become_due()
            self.pass_on_keys()
            self.claim()
            for claim in [*self.claims]:
                self.end_one(claim, "succeed")
        assert self.some(*LIVE) == []
        for id_ in self.asked & self.model.keys():
            assert self.model[id_].runs or self.model[id_].state is State.CANCELLED
        self.the_jobs_are_as_the_model()
        self.lease.__exit__(None, None, None)


def test_no_history_of_a_key_gives_it_two_holders_or_loses_a_run(
    url: str, backend_name: str
) -> None:
    with JobQueue(url) as queue:
        run_machine(lambda: Machine(queue), examples=EXAMPLES[backend_name], steps=STEPS)
