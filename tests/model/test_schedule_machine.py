"""A schedule against what must always hold: random ticks, operators' verbs, code that changes, and time that passes.

Hours pass by moving the row back: every interval here divides the hours of a step, so its runs stay its runs.
"""

from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import delete, select, update

from jobqueue import JobQueue, State, every
from jobqueue.schedules.scheduled_calls import call_of, definition_of
from jobqueue.schedules.definition import Definition
from jobqueue.store.schema import jobs, schedules
from jobqueue.store.schedule_ticks import Ticks
from tests.model.conftest import run_machine

pytestmark = pytest.mark.slow

EXAMPLES = {"sqlite": 10, "postgres": 4}
STEPS = 25
STEP = timedelta(hours=6)
HOURS = st.sampled_from([1, 2, 3])
CATCH_UPS = st.sampled_from(["latest", "all", "none"])
OVERLAPS = st.sampled_from(["skip", "allow"])
NAME = "report"


class Machine(RuleBasedStateMachine):
    """`passed` is the time by which the row was moved back; instants are told as they would be without."""

    def __init__(self, queue: JobQueue) -> None:
        super().__init__()
        self.queue, self.ticks = queue, Ticks(queue.store)
        self.task = queue.registry[NAME]
        self.passed = timedelta(0)
        self.made: list[datetime] = []
        self.seen: set[int] = set()
        self.code = self.definition(1, "latest", None)
        with queue.store.write() as connection:
            connection.execute(delete(jobs))
            connection.execute(delete(schedules))
        self.declare()

    def definition(self, hours: int, catch_up: Any, overlap: Any) -> Definition:
        return definition_of(self.task.call(), every(hours=hours), catch_up, overlap)

    def declare(self) -> None:
        self.ticks.declare({NAME: self.code}, [NAME])

    @property
    def row(self) -> Any:
        return self.queue.schedules.get(NAME)

    def new_jobs(self) -> list[Any]:
        """The jobs that are new since the last look, by id."""
        with self.queue.store.read() as connection:
            statement = select(jobs.c.id, jobs.c.scheduled_for, jobs.c.state).order_by(jobs.c.id)
            found = [row for row in connection.execute(statement) if row.id not in self.seen]
        self.seen |= {row.id for row in found}
        return found

    @rule(most=st.sampled_from([2, 100]))
    def tick(self, most: int) -> None:
        before, last_live = self.row, self.last_is_live()
        make = lambda record: call_of(self.task, record.definition).to_new_job()
        done = self.ticks.tick([NAME], [NAME], make, most=most)
        runs = [row.scheduled_for for row in self.new_jobs()]
        if done is None:
            assert runs == [] and self.row.next_at == before.next_at
            return
        interval = timedelta(seconds=int(before.definition.expression))
        due = [
            before.next_at + n * interval
            for n in range((done.handled - before.next_at) // interval + 1)
        ]
        after = self.row
        assert before.paused_at is None
        assert (after.nominal_at, after.next_at) == (done.handled, done.handled + interval)
        wanted = {"latest": due[-1:], "all": due[:most], "none": runs[:1] and due[-1:]}
        expected = wanted[before.definition.catch_up]
        if before.definition.overlap == "skip":
            expected = [] if last_live else expected[:1]
        assert runs == expected
        self.made += [run + self.passed for run in runs]

    def last_is_live(self) -> bool:
        last = self.row.last_job_id
        return last is not None and not self.queue.get(last).done()

    @rule(steps=st.sampled_from([1, 2, -1]))
    def time_passes(self, steps: int) -> None:
        """Or the clock is set back."""
        row, delta = self.row, steps * STEP
        moved = {
            "next_at": row.next_at - delta,
            "nominal_at": row.nominal_at and row.nominal_at - delta,
        }
        with self.queue.store.write() as connection:
            connection.execute(update(schedules).values(moved))
        self.passed += delta

    @rule()
    def the_jobs_end(self) -> None:
        with self.queue.store.write() as connection:
            connection.execute(update(jobs).values(state=State.SUCCEEDED.value))

    @rule(hours=HOURS, catch_up=CATCH_UPS, overlap=OVERLAPS)
    def an_operator_changes_it(self, hours: int, catch_up: Any, overlap: Any) -> None:
        wanted = {"catch_up": catch_up, "overlap": overlap, "replace": True}
        self.queue.schedules.add(NAME, self.task.call(), every(hours=hours), **wanted)
        assert self.row.definition == self.definition(hours, catch_up, overlap)

    @rule(hours=HOURS, catch_up=CATCH_UPS)
    def the_code_changes(self, hours: int, catch_up: Any) -> None:
        before = self.row
        self.code = self.definition(hours, catch_up, None)
        self.declare()
        kept = before.definition if before.differs else self.code
        assert self.row.definition == kept

    @rule()
    def reset(self) -> None:
        self.queue.schedules.reset(NAME)
        assert self.row.definition == self.code and not self.row.differs

    @rule()
    def pause(self) -> None:
        paused = self.row.paused_at is not None
        assert self.queue.schedules.pause(NAME) is not paused

    @rule()
    def resume(self) -> None:
        self.queue.schedules.resume(NAME)

    @rule()
    def run(self) -> None:
        live = self.last_is_live() and self.row.definition.overlap == "skip"
        assert self.queue.schedules.run(NAME).created is not live
        assert [row.scheduled_for for row in self.new_jobs()] == [None] * (not live)

    @invariant()
    def no_tick_is_done_twice(self) -> None:
        assert self.made == sorted(set(self.made))
        row = self.row
        assert row.nominal_at is None or row.next_at > row.nominal_at
        assert not self.made or row.next_at + self.passed > self.made[-1]


def test_no_history_of_a_schedule_makes_a_job_twice_or_in_the_wrong_moment(
    url: str, backend_name: str
) -> None:
    with closing(JobQueue(url)) as queue:

        @queue.task(name=NAME)
        def report() -> None: ...

        run_machine(lambda: Machine(queue), examples=EXAMPLES[backend_name], steps=STEPS)
