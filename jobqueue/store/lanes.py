"""Lanes: how workers claim jobs that a limit, a rate or a fair share holds back.

A job with a concurrency key is in the lane of its key, whatever its queue. A queue with a limit, a
rate or fair shares is a lane too, of all its jobs. A lane's row is locked while its jobs are
claimed, and the running ones are counted under that lock. Producers never write the row. Locks are
taken in the order queue, keys, and never waited for.

A lane that is full, or that waits, is parked: workers pass it over. That is a hint only. The worker
in which one of its jobs ends brings it back, and each worker does after at most `PARKED_MAX`.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Connection, Executable, exists, or_, select

from jobqueue.records import Claim
from jobqueue.store.claims import WorkerRef, claims_of
from jobqueue.store.database import Store
from jobqueue.store.lane_admission import (
    Head,
    Lane,
    Places,
    QueueLane,
    Switches,
    choose_fairly,
    choose_in_order,
    is_held,
)
from jobqueue.store.schema import LaneKind, Parked, jobs, queues
from jobqueue.store.sql.lanes import FOUND, SERVED, lane_statements
from jobqueue.store.sql.predicates import HELD, IS_PAUSED, QUEUE_LIMITED, unpaused
from jobqueue.store.sql.rows import IDS, NAMES

PARKED_MAX = 5.0  # seconds for which a full lane is passed over, if nothing brings it back
PARKED_BETWEEN_ATTEMPTS = 1.0  # seconds; for a lane whose strict job awaits its next attempt
STALL_MAX = 5.0  # seconds for which a worker that is frozen may keep lanes locked
LANES_AT_ONCE = 50
HEADS_MIN = 10  # jobs of a key that a claim looks at: their own limits may hold back the first
QUEUES_AT_ONCE = NEW_AT_ONCE = 1000
PAUSED_AT_ONCE = 10_000

_HELD_BACK = select(jobs.c.id).where(
    HELD,
    or_(exists().where(queues.c.name == jobs.c.queue, or_(IS_PAUSED, QUEUE_LIMITED)), ~unpaused()),
)
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)

_Found = tuple[LaneKind, str, str, int, datetime | None]  # the columns of FOUND


class LaneClaims(NamedTuple):
    """What one claim from the lanes of a queue gave."""

    claims: Sequence[Claim] = ()
    keys: Mapping[int, str] = MappingProxyType({})
    """By id: the concurrency keys of the claims that have one."""
    retry_in: float | None = None
    """Seconds until the queue's rate allows the next start; None if no rate holds it back."""
    is_locked: bool = False
    """Another worker claims from these lanes at this moment: look again soon."""
    is_limited: bool = False
    """The queue itself has a limit, a rate or fair shares."""
    passed_over: bool = False
    """Full lanes were parked: there may be others behind them."""


class Lanes:
    """The lanes of one database. A method that takes a connection runs in its transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._backend = store.backend
        self._statements = lane_statements(store.backend)

    def exist(self, connection: Connection) -> bool:
        """Return whether any available job is in a lane, or any queue has a limit of its own."""
        return bool(connection.execute(self._statements.exist).scalar_one())

    def with_work(self, connection: Connection, served: Sequence[str] | None) -> list[str]:
        """Return the served queues (None: all) with lanes that are not parked.

        At most `QUEUES_AT_ONCE` of them, in random order.
        """
        statement = self._statements.with_work
        parameters: dict[str, object] = {"in_limit": QUEUES_AT_ONCE}
        if served is not None:
            statement = self._statements.served_with_work
            parameters["in_queues"] = list(served)
        found = list(connection.execute(statement, parameters).scalars())
        random.shuffle(found)
        return found

    def held_back(self, connection: Connection, holder: WorkerRef) -> set[int]:
        """Return the worker's claims that are paused, or whose queue has a limit of some kind."""
        return set(connection.execute(_HELD_BACK, {"in_worker": holder.id}).scalars())

    def add_new(self, after: int) -> tuple[int, set[str]]:
        """Bring lanes to work that jobs with ids above `after` may start in, in two transactions.

        Return the greatest id so far, and those that another worker locks, as `unpark` does. Misses
        jobs that are committed later than those with greater ids: the next sweep finds their lanes.
        """
        with self._store.read() as connection:
            newest = int(connection.execute(self._statements.newest).scalar_one())
            parameters = {"in_after": after, "in_limit": NEW_AT_ONCE}
            rows = connection.execute(self._statements.new_jobs, parameters).all()
            filled = self._filled(connection, PAUSED_AT_ONCE)
        places = {row.lane: (LaneKind.KEY, *row) for row in reversed(rows)}
        if not places and not filled:
            return newest, set()
        with self._store.write() as connection:
            self._backend.limit_lock_wait(connection)
            self._backend.limit_stall(connection, STALL_MAX)
            self._add(connection, sorted(places.values()))
            self._fill(connection, filled)
            return newest, self.unpark(connection, places)

    def sweep(self, every: float | None = 0.0) -> bool:
        """Add the lanes that are missing, and bring back those that were parked for long enough.

        In transactions of its own, so that no lock is held while it searches. Return False, and do
        nothing, if another worker has done so less than `every` seconds ago; None: in any case. A
        lane with jobs in several queues is pointed to the next of them: its row names the queue in
        which workers look for its jobs.
        """
        if every is not None:
            with self._store.write() as connection:
                if not self._may_sweep(connection, every):
                    return False
        with self._store.read() as connection:
            missing, moved = self._compare(connection)
            filled = self._filled(connection)
        with self._store.write() as connection:
            self._backend.limit_lock_wait(connection)
            self._backend.limit_stall(connection, STALL_MAX)
            self._add(connection, missing)
            if moved:
                given = self._backend.batch_parameters(FOUND, moved)
                connection.execute(self._statements.move, given)
                # One that is full in a queue may not be so in the next, where limits differ.
                some = random.sample(moved, min(len(moved), LANES_AT_ONCE))
                self.unpark(connection, [name for _, name, *_ in some])
            self._fill(connection, filled)
            connection.execute(self._statements.unpark_overdue)
        return True

    def _filled(self, connection: Connection, most: int = 2**31 - 1) -> list[str]:
        """Return limited queues with an unpaused job among `most`, and no lane or an empty one."""
        found = connection.execute(self._statements.filled_queues, {"in_most": most})
        return list(found.scalars())

    def _fill(self, connection: Connection, queues: Sequence[str]) -> None:
        if queues:
            self._add(connection, [(LaneKind.QUEUE, name, name, 0, None) for name in queues])
            names = self._backend.batch_parameters(NAMES, [(name,) for name in queues])
            connection.execute(self._statements.unpark_filled, names)

    def _add(self, connection: Connection, missing: Sequence[_Found]) -> None:
        if missing:
            added = self._backend.batch_parameters(FOUND, missing)
            connection.execute(self._statements.add, added)

    def _compare(self, connection: Connection) -> tuple[list[_Found], list[_Found]]:
        """Return the lanes of keys that are missing, and those to point elsewhere."""
        rows = connection.execute(self._statements.known)
        known = {(kind, name): queue for kind, name, queue in rows}
        lanes: dict[str, dict[str, _Found]] = {}
        parameters = {"in_last_instant": _LAST_INSTANT}
        for row in connection.execute(self._statements.first_jobs, parameters):
            place = (LaneKind.KEY, row.lane, row.queue, row.priority, row.run_at)
            lanes.setdefault(row.lane, {})[row.queue] = place
        missing, moved = [], []
        for key, places in lanes.items():
            current = known.get((LaneKind.KEY, key))
            if current is None:
                missing.append(next(iter(places.values())))
            elif current not in places or len(places) > 1:
                after = min((queue for queue in places if queue > current), default=min(places))
                moved.append(places[after])
        return missing, moved

    def _may_sweep(self, connection: Connection, every: float) -> bool:
        parameters = {"in_every": every}
        if connection.execute(self._statements.begin_sweep, parameters).rowcount:
            return True
        self._add(connection, [(LaneKind.SWEEP, "", "", 0, None)])
        return connection.execute(self._statements.begin_sweep, parameters).rowcount == 1

    def unpark_waiting(self, connection: Connection, name: str) -> None:
        """Bring a lane back whose limit an operator has changed; wait for who locks it."""
        given = self._backend.batch_parameters(NAMES, [(name,)])
        connection.execute(self._statements.unpark_waiting, given)

    def unpark_full(self, connection: Connection) -> set[str]:
        """Bring back all full lanes, as some may have room; return those that others lock."""
        self._backend.limit_stall(connection, STALL_MAX)
        connection.execute(self._statements.unpark_full)
        return set(connection.execute(self._statements.full).scalars())

    def unpark(self, connection: Connection, names: Iterable[str]) -> set[str]:
        """Bring lanes back in which a job has ended: keys, and names of limited queues.

        Return those that another worker locks: bring them back later, as that worker may have
        counted the job that has ended, and parks the lane. A stopped process may hold them long.
        """
        rows = [(name,) for name in sorted(set(names))]
        if not rows:
            return set()
        self._backend.limit_stall(connection, STALL_MAX)
        given = self._backend.batch_parameters(NAMES, rows)
        done = set(connection.execute(self._statements.unpark, given).scalars())
        left = [row for row in rows if row[0] not in done]
        if not left:
            return set()
        given = self._backend.batch_parameters(NAMES, left)
        return set(connection.execute(self._statements.among, given).scalars())

    def claim(
        self, connection: Connection, holder: WorkerRef, queue: str, limit: int
    ) -> LaneClaims:
        """Claim up to `limit` jobs from the lanes of a queue, each to start at once.

        Hand them out only after the commit.
        """
        row = connection.execute(self._statements.switches, {"in_queue": queue}).one_or_none()
        switches = Switches(*row) if row is not None else Switches()
        if switches.paused_at is not None or limit <= 0:
            return LaneClaims()
        self._backend.limit_stall(connection, STALL_MAX)
        if not switches.is_limited:
            lanes = self._lock(connection, queue, limit, fair=False)
            chosen = choose_in_order(lanes, limit)
            claims = self.claim_jobs(connection, holder, chosen)
            self._write(connection, lanes)
            is_locked = not lanes and bool(self.with_work(connection, [queue]))
            given = _keys(lanes, claims)
            return LaneClaims(claims, given, is_locked=is_locked, passed_over=_passed_over(lanes))
        own = self._lock_queue(connection, queue, switches)
        if own is None:
            return LaneClaims(is_locked=True, is_limited=True)
        room = min(limit, own.room())
        lanes = self._lock_all(connection, queue, own, room) if room else []
        chosen = choose_fairly(lanes, room, own) if switches.fair else choose_in_order(lanes, room)
        claims = self.claim_jobs(connection, holder, chosen)
        own.started(len(claims))
        self._write(connection, lanes)
        self._write_queue(connection, queue, own, lanes, room)
        return LaneClaims(
            claims,
            _keys(lanes, claims),
            retry_in=own.wait(),
            is_limited=True,
            passed_over=_passed_over(lanes),
        )

    def _lock_queue(
        self, connection: Connection, queue: str, switches: Switches
    ) -> QueueLane | None:
        """Lock the lane of a queue; return None if another worker holds it."""
        parameters = {"in_queue": queue}
        row = connection.execute(self._statements.lock_queue, parameters).one_or_none()
        if row is None:  # It is locked, or not there yet.
            self._add(connection, [(LaneKind.QUEUE, queue, queue, 0, None)])
            row = connection.execute(self._statements.lock_queue, parameters).one_or_none()
        if row is None:
            return None
        running = 0
        if switches.max_running is not None:  # After the lock: who held it has committed.
            counted = connection.execute(self._statements.running_in_queue, {"in_queue": queue})
            running = counted.scalar_one()
        return QueueLane(switches, row.turn, row.plain_turn, row.next_start, running)

    def _lock_all(
        self, connection: Connection, queue: str, own: QueueLane, limit: int
    ) -> list[Lane]:
        """Lock the lanes of a limited queue's keys; add the lane of its jobs without a key."""
        given = {"in_queue": queue, "in_limit": limit + 1}
        rows = connection.execute(self._statements.plain_heads, given).all()
        lanes = self._lock(connection, queue, limit, fair=own.switches.fair == 1)
        if rows:
            lanes.append(Lane(None, own.plain_turn, [Head(*row) for row in rows]))
        return lanes

    def _lock(self, connection: Connection, queue: str, limit: int, *, fair: bool) -> list[Lane]:
        statement = self._statements.lock_by_turn if fair else self._statements.lock_by_due_time
        parameters = {"in_queue": queue, "in_limit": min(limit, LANES_AT_ONCE)}
        turns = dict(map(tuple, connection.execute(statement, parameters)))
        return self.of_keys(connection, queue, turns, limit)

    def of_keys(
        self, connection: Connection, queue: str, turns: Mapping[str, float], limit: int
    ) -> list[Lane]:
        """Return the lanes of keys, given their turns, as a claim of `limit` jobs sees them."""
        if not turns:
            return []
        names = self._backend.batch_parameters(NAMES, [(name,) for name in sorted(turns)])
        rows = connection.execute(self._statements.places, names | {"in_queue": queue})
        places = {key: Places(*counts) for key, *counts in rows}
        heads = self._heads(connection, queue, turns, max(limit, HEADS_MIN) + 1)
        return [
            Lane(name, turn, heads[name], places.get(name, Places()))
            for name, turn in turns.items()
        ]

    def _heads(
        self, connection: Connection, queue: str, names: Iterable[str], limit: int
    ) -> dict[str, list[Head]]:
        """Return the first jobs of lanes, up to `limit` of each, and those behind limits of 0."""
        heads: dict[str, list[Head]] = {name: [] for name in names}

        def read(statement: Executable, names: Iterable[str]) -> None:
            given = self._backend.batch_parameters(NAMES, [(name,) for name in sorted(names)])
            parameters = given | {"in_queue": queue, "in_limit": limit}
            for row in connection.execute(statement, parameters):
                heads[row.lane].append(Head(*row))

        read(self._statements.heads, heads)
        held = [
            name for name, jobs in heads.items() if len(jobs) == limit and all(map(is_held, jobs))
        ]
        if held:
            read(self._statements.heads_behind, held)
        return heads

    def claim_jobs(
        self, connection: Connection, holder: WorkerRef, ids: Sequence[int]
    ) -> list[Claim]:
        """Claim these jobs, in this order, whatever their limits; without those that are gone."""
        if not ids:
            return []
        parameters = self._backend.batch_parameters(IDS, [(id_,) for id_ in sorted(ids)])
        parameters |= {"in_worker": holder.id, "in_worker_name": holder.name}
        rows = connection.execute(self._statements.claim, parameters)
        by_id = {claim.id: claim for claim in claims_of(self._store, rows, holder)}
        return [by_id[id_] for id_ in ids if id_ in by_id]  # Some may be locked or gone.

    def _write(self, connection: Connection, lanes: Sequence[Lane]) -> None:
        """Write where the lanes stand: removed if empty, parked if no job of them may start."""
        empty, served = [], []
        for lane in lanes:
            if lane.key is None:
                continue
            left = lane.first_left
            awaits = lane.places.places > lane.places.running
            if left is None and not awaits:
                empty.append((lane.key,))
                continue
            parked, wait = Parked.NO, 0.0
            if not lane.may_give_more:
                parked = Parked.FULL
                wait = PARKED_BETWEEN_ATTEMPTS if awaits else PARKED_MAX
            place = (0, None) if left is None else (left.priority, left.run_at)
            served.append((lane.key, lane.turn, *place, parked, wait))
        if empty:
            names = self._backend.batch_parameters(NAMES, empty)
            connection.execute(self._statements.remove, names)
        if served:
            given = self._backend.batch_parameters(SERVED, served)
            connection.execute(self._statements.update_lanes, given)

    def _write_queue(
        self,
        connection: Connection,
        queue: str,
        own: QueueLane,
        lanes: Sequence[Lane],
        room: int,
    ) -> None:
        """Write where a limited queue stands: parked if it is full, or nothing is left in it."""
        for lane in lanes:
            if lane.key is None:
                own.plain_turn = lane.turn
        parked, wait = Parked.NO, own.wait()
        if wait is not None or not room:
            parked = Parked.FULL
        elif not any(lane.first_left for lane in lanes):
            parked = Parked.EMPTY
        parameters = {
            "in_queue": queue,
            "in_turn": own.turn,
            "in_plain_turn": own.plain_turn,
            "in_next_start": own.next_start,
            "in_parked": parked.value,
            "in_wait": PARKED_MAX if wait is None else wait,
        }
        connection.execute(self._statements.update_queue, parameters)


def _passed_over(lanes: Sequence[Lane]) -> bool:
    return any(lane.key is not None and not lane.allowed for lane in lanes)


def _keys(lanes: Sequence[Lane], claims: Sequence[Claim]) -> dict[int, str]:
    """Return the keys of claims by id."""
    taken = {head.id: lane.key for lane in lanes if lane.key for head in lane.allowed[: lane.taken]}
    return {claim.id: taken[claim.id] for claim in claims if claim.id in taken}
