"""What is asked of the database to tell why a job is where it is: read when it is asked for."""

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import Connection

from jobqueue.queue_switches import rate_of
from jobqueue.records import JobRecord, names_in
from jobqueue.states import State
from jobqueue.store.database import Store
from jobqueue.store.lane_admission import Head, Lane, Places, QueueLane, Switches, place_of
from jobqueue.store.lane_rows import LANES_AT_ONCE
from jobqueue.store.lanes import HEADS_MIN, Lanes
from jobqueue.store.sql.lanes import lane_statements
from jobqueue.store.sql.rows import NAMES
from jobqueue.store.sql.why import why_statements


class Before(NamedTuple):
    """How many jobs are claimed before one, of those that were looked at."""

    jobs: int = 0
    may_be_more: bool = False
    """Behind these are others that were not looked at."""

    def and_also(self, other: "Before") -> "Before":
        """Return how many these are together with others."""
        return Before(self.jobs + other.jobs, self.may_be_more or other.may_be_more)


class Estimate(NamedTuple):
    """How long a job without a key waits for those in front, by what is known of its queue."""

    seconds: float
    """By the rate, until this job may start; by the pace, until those in front have begun."""
    rate: str | None
    """The rate of the queue, if that is slower than its jobs were in the last hour."""


class Facts:
    """One job, and what holds it back, in one snapshot."""

    def __init__(self, store: Store, connection: Connection, job: JobRecord) -> None:
        self.job = job
        self._backend = store.backend
        self._connection = connection
        self._lanes = lane_statements(store.backend)
        self._of_lanes = Lanes(store)
        self._why = why_statements()
        self._parameters: dict[str, Any] = {
            "in_job": job.id,
            "in_queue": job.queue,
            "in_lane": job.lane or "",
        }
        store.backend.prefer_indexes(connection)
        self.verdicts = self._rows(self._why.verdicts).one_or_none()
        if self.verdicts is not None:
            self._parameters |= {
                "in_own_priority": self.verdicts.priority,
                "in_own_run_at": self.verdicts.run_at,
            }

    def _rows(self, statement: Any, more: Mapping[str, Any] | None = None) -> Any:
        return self._connection.execute(statement, {**self._parameters, **(more or {})})

    @property
    def are_current(self) -> bool:
        """Return whether the job is still as it was read."""
        now = self.verdicts
        return now is not None and (now.state, now.fence) == (self.job.state, self.job.fence)

    def since(self, instant: datetime | None) -> float:
        """Return the seconds that have passed, by the database's clock."""
        return 0.0 if instant is None else (self.present - instant).total_seconds()

    @property
    def present(self) -> datetime:
        """The database's present instant."""
        present: datetime = self.verdicts.present
        return present

    @cached_property
    def holder(self) -> Any:
        """The lease under which the job runs; None if it is gone."""
        return self._rows(self._why.holder, {"in_worker": self.verdicts.worker_id}).one_or_none()

    @cached_property
    def key_holder(self) -> Any:
        """The job that holds the key for which this one waits, as `rerun` does; None: no key."""
        return self._rows(self._why.key_holder).one_or_none()

    @cached_property
    def live_workers(self) -> list[Any]:
        """The workers with a heartbeat within their lease."""
        return list(self._rows(self._why.live_workers))

    @cached_property
    def _of_queue(self) -> list[Any]:
        return [
            row
            for row in self.live_workers
            if row.queues is None or self.job.queue in names_in(row.queues)
        ]

    @property
    def serving(self) -> list[Any]:
        """The live workers that serve the queue."""
        return [row for row in self._of_queue if row.stopping_at is None]

    @property
    def draining(self) -> list[Any]:
        """Those that served it, and only end what they run."""
        return [row for row in self._of_queue if row.stopping_at is not None]

    @cached_property
    def is_known(self) -> bool:
        """Whether a live worker that serves the queue knows the task."""
        return any(self.job.task in names_in(row.tasks) for row in self.serving)

    @cached_property
    def switches(self) -> Switches:
        """The queue's switches."""
        return Switches(*self._rows(self._lanes.switches).one())

    def paused_by(self) -> str | None:
        """Return which operator paused the queue; None where a program did."""
        given = {
            "in_target": json.dumps({"queue": self.job.queue}),
            "in_paused_at": self.switches.paused_at,
        }
        actor: str | None = self._rows(self._why.paused_by, given).scalar_one_or_none()
        return actor

    @cached_property
    def pauses(self) -> list[Any]:
        """The pauses of the job's task and of its tags: kind, name, since when and by whom."""
        return list(self._rows(self._why.pauses))

    def paused_ahead(self) -> int | None:
        """Return the first strict job of the key that is ahead and paused."""
        if not self.switches.is_any_paused:
            return None
        ahead: int | None = self._rows(self._why.paused_ahead).scalar_one_or_none()
        return ahead

    @cached_property
    def queue_lane(self) -> QueueLane:
        """The lane of the queue, as a claim sees it under its lock."""
        row = self._rows(self._lanes.queue_lane).one_or_none()
        turn, plain_turn, next_start = (0.0, 0.0, 0.0) if row is None else row
        running = 0
        if self.switches.max_running is not None:
            running = self._rows(self._lanes.running_in_queue).scalar_one()
        return QueueLane(self.switches, turn, plain_turn, next_start, running)

    def running_in_queue(self) -> tuple[int, ...]:
        """Return the ids of the queue's running jobs, at most 100."""
        return tuple(sorted(self._rows(self._why.running_in_queue).scalars()))

    @cached_property
    def places(self) -> Places:
        """What holds a place in the job's lane."""
        names = self._backend.batch_parameters(NAMES, [(self.job.lane,)])
        row = self._rows(self._lanes.places, names).one_or_none()
        return Places() if row is None else Places(*row[1:])

    def begun_of_key(self, state: State) -> tuple[int, ...]:
        """Return the ids of the jobs in a state that hold a place in the lane, at most 100."""
        rows = self._rows(self._why.begun_of_key)
        return tuple(sorted(row.id for row in rows if row.state == state))

    def is_admitted(self) -> bool:
        """Return whether the job may start when it is the first of its lane."""
        job = self.job
        head = Head(job.id, job.lane, job.priority, job.run_at, self.verdicts.lane_limit)
        allowed = Lane(job.lane, 0.0, [head], self.places).allowed
        return any(head.id == job.id for head in allowed)

    @cached_property
    def jobs_before(self) -> Before:
        """The jobs that are claimed before this one, counted: of its key, or without a key."""
        if self.verdicts.is_plain:
            return self._before(self._why.plain_before)
        if self.places.next_id == self.job.id:
            return Before()
        given = {"in_strict": int(self.verdicts.is_strict), "in_places": self.places.places}
        before = self._before(self._why.of_key_before, given)
        if not before.jobs:  # A claim passes over few of those that their own limits hold back.
            ahead = self._before(self._why.of_key_before, given | {"in_strict": 1})
            before = ahead if ahead.jobs > HEADS_MIN else Before(0, ahead.may_be_more)
        if self.verdicts.queue_limited and not self.switches.fair:
            before = before.and_also(self._before(self._why.plain_before))
        return before

    def keys_before(self) -> int:
        """Count the other keys that workers look at before this job, without held ones."""
        job, plain = self.job, self.verdicts.is_plain
        if plain and not self.verdicts.queue_limited:
            return 0
        key = None if plain else self._rows(self._why.key).one_or_none()
        if self.switches.fair:
            return self._keys_before_by_turn(None if plain else (key.turn if key else 0.0))
        # A key of the same instant may be first: the place of its next job decides.
        place = (job.priority, job.run_at + timedelta(milliseconds=1))
        if key is not None and key.queue == job.queue:
            place = (key.priority, key.due_at)
        given = {"in_priority": place[0], "in_due_at": place[1]}
        if not plain:
            return self._count_keys(self._why.keys_before, given)
        mine = (job.priority, job.run_at, job.id)
        before = self._count_keys(self._why.keys_before, given, mine)
        return before or self._first_key_is_before(mine)

    def _first_key_is_before(self, place: tuple[int, datetime, int]) -> bool:
        """Return whether the first key from which a claim takes a job goes before this place.

        So does one that a strict job is due again in, wherever the others of the key are.
        """
        given = {"in_limit": LANES_AT_ONCE}
        keys = dict(map(tuple, self._rows(self._why.first_keys, given)))
        first = next((lane.next for lane in self._of_keys(keys) if lane.next), None)
        return first is not None and place_of(first) < place

    def _of_keys(self, turns: Mapping[str, float]) -> list[Lane]:
        """Return the lanes of keys in the job's queue as a claim of one job sees them."""
        paused, queue = self.switches.is_any_paused, self.job.queue
        return self._of_lanes.of_keys(self._connection, queue, turns, 1, paused=paused)

    def _count_keys(
        self,
        statement: Any,
        given: Mapping[str, Any],
        place: tuple[int, datetime, int] | None = None,
    ) -> int:
        """Count keys. Of the keys that one claim locks, count only those from which it takes a job.

        `place`: of a job without a key. It goes before the keys whose next job is behind it.
        """
        rows = self._rows(statement, {**given, "in_limit": LANES_AT_ONCE}).all()
        held = 0
        for lane in self._of_keys({row.name: row.turn for row in rows}):
            head = lane.next
            held += head is None or (
                place is not None and (head.priority, head.run_at, head.id) > place
            )
        count: int = rows[0].total if rows else 0
        return count - held

    def _keys_before_by_turn(self, turn: float | None) -> int:
        """Count the keys that are further behind in a fair queue; jobs without one are one more.

        `turn` is that of the job's key, None without one. No key is further behind than the queue,
        and of keys and other jobs with the same turn, keys are first.
        """
        own = self.queue_lane
        plain_turn = max(own.plain_turn, own.turn)
        if turn is None:
            upto = math.nextafter(plain_turn, math.inf)
            return self._count_keys(self._why.keys_before_by_turn, {"in_turn": upto})
        before = self._count_keys(self._why.keys_before_by_turn, {"in_turn": turn})
        if plain_turn < turn:
            others = self._rows(self._lanes.plain_heads, {"in_limit": 1})
            before += others.first() is not None
        return before

    def _before(self, statement: Any, more: Mapping[str, Any] | None = None) -> Before:
        jobs, beyond = self._rows(statement, more).one()
        return Before(jobs, beyond is not None)

    @cached_property
    def estimate(self) -> Estimate | None:
        """How long a job without a key waits for those before it; None if nothing tells that.

        Other keys in front are not in it: how many of their jobs go first, nobody has counted.
        """
        count = self.jobs_before.jobs
        if not count or not self.verdicts.is_plain:
            return None
        ended, since = self._rows(self._why.pace).one()
        by_pace = count * max(self.since(since), 1.0) / float(ended) if ended else 0.0
        by_rate = self.queue_lane.wait(count) or 0.0
        if by_rate > by_pace and (rate := rate_of(self.switches._asdict())) is not None:
            return Estimate(by_rate, rate.to_text())
        return Estimate(by_pace, None) if ended else None
