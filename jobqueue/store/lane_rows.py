"""The rows of lanes: how workers find lanes with work, add them, and bring them back.

Producers never write them. A lane that is full, or that waits, is parked: workers pass it over.
That is a hint only. The worker in which one of its jobs ends brings it back, and each worker does
after at most `PARKED_MAX`.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Executable, Row, exists, or_, select

from jobqueue.store.claims import WorkerRef
from jobqueue.store.database import Store
from jobqueue.store.paused_lanes import PausedLanes
from jobqueue.store.schema import LaneId, LaneKind, jobs, queues
from jobqueue.store.sql.lanes import FOUND, LANE_IDS, SERVED, lane_statements
from jobqueue.store.sql.predicates import HELD, IS_PAUSED, QUEUE_LIMITED, unpaused
from jobqueue.store.sql.rows import IDS, NAMES

STALL_MAX = 5.0  # seconds for which a worker that is frozen may keep lanes locked
LOCK_WAIT = 0.1  # seconds for which a lock on the table is waited for; rows are never waited for
LANES_AT_ONCE = 50
QUEUES_AT_ONCE = NEW_AT_ONCE = WRITTEN_AT_ONCE = 1000

_HELD_BACK = select(jobs.c.id).where(
    HELD,
    or_(exists().where(queues.c.name == jobs.c.queue, or_(IS_PAUSED, QUEUE_LIMITED)), ~unpaused()),
)
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)

_T = TypeVar("_T")
_Found = tuple[LaneKind, str, str, int, datetime | None]  # the columns of FOUND


class NewLanes(NamedTuple):
    """Lanes in which jobs may start that were just enqueued."""

    newest: int
    """The greatest id of a job so far."""
    keys: Mapping[str, _Found]
    queues: Sequence[str]
    """Limited queues."""

    @property
    def is_any(self) -> bool:
        """Return whether there is any such lane."""
        return bool(self.keys or self.queues)


class Unparked(NamedTuple):
    """Which lanes were brought back, and which were not."""

    queues: Sequence[str] = ()
    """The queues in which workers look for the jobs of these lanes."""
    locked: Collection[LaneId] = ()
    """Lanes that another worker locks."""


class LaneRows:
    """The lanes of one database. A method that takes a connection runs in its transaction.

    Used by one thread at a time: it remembers how far it has passed over paused jobs.
    """

    def __init__(self, store: Store, *, lock_wait: float = LOCK_WAIT) -> None:
        self._store = store
        self._backend = store.backend
        self._lock_wait = lock_wait
        self._limited: object = None
        """The transaction whose waits were limited last."""
        self._is_prepared = store.backend.single_writer  # All wait for the whole claim anyway.
        self._statements = lane_statements(store.backend)
        self._paused = PausedLanes(store)
        self._queues_after = ""
        """The last of the queues that were too many for the last look."""
        self.look_at = float("inf")
        """When to look for limited queues again, by the monotonic clock, behind paused jobs."""

    def limit_stall(self, connection: Connection) -> None:
        """Let this transaction fail where the table is locked, or this process frozen, for long."""
        transaction = connection.get_transaction()
        if transaction is not self._limited:
            self._backend.limit_stall(connection, STALL_MAX, lock_wait=self._lock_wait)
            self._limited = transaction

    def prepare(self, connection: Connection, holder: WorkerRef) -> None:
        """Run the statements of a claim without rows, once, before it locks any key.

        The first run of a statement takes ten times as long as others, here and in the server: all
        together 50 to 100 ms, for which other workers would find the key locked.
        """
        if self._is_prepared:
            return
        known, pack = self._statements, self._backend.batch_parameters
        of_queue = pack(NAMES, ()) | {"in_queue": "", "in_limit": 0}
        connection.execute(known.switches_and_lock, of_queue)
        connection.execute(known.heads_and_places, of_queue)
        mine = {"in_worker": holder.id, "in_worker_name": holder.name}
        connection.execute(known.claim, pack(IDS, ()) | mine)
        connection.execute(known.update_lanes, pack(SERVED, ()))
        self._is_prepared = True

    def exist(self, connection: Connection) -> bool:
        """Return whether any available job is in a lane, or any queue has a limit of its own."""
        return bool(connection.execute(self._statements.exist).scalar_one())

    def with_work(self, connection: Connection, served: Sequence[str] | None) -> list[str]:
        """Return the served queues (None: all) with lanes that are not parked, in random order.

        If there are more than `QUEUES_AT_ONCE`, the next call goes on behind these.
        """
        statement = self._statements.with_work
        parameters: dict[str, object] = {"in_limit": QUEUES_AT_ONCE, "in_after": self._queues_after}
        if served is not None:
            statement = self._statements.served_with_work
            parameters["in_queues"] = list(served)
        found = list(connection.execute(statement, parameters).scalars())
        if self._queues_after and not found:
            self._queues_after = ""
            return self.with_work(connection, served)
        self._queues_after = found[-1] if len(found) == QUEUES_AT_ONCE else ""
        random.shuffle(found)
        return found

    def held_back(self, connection: Connection, holder: WorkerRef) -> set[int]:
        """Return the worker's claims that are paused, or whose queue has a limit of some kind."""
        return set(connection.execute(_HELD_BACK, {"in_worker": holder.id}).scalars())

    def find_new(self, connection: Connection, after: int) -> NewLanes:
        """Return the lanes in which jobs with ids above `after` may start.

        Misses jobs that are committed later than those with greater ids: the next sweep finds their
        lanes.
        """
        newest = int(connection.execute(self._statements.newest).scalar_one())
        rows: Sequence[Row[Any]] = []
        if newest > after:
            parameters = {"in_after": after, "in_limit": NEW_AT_ONCE}
            rows = connection.execute(self._statements.new_jobs, parameters).all()
        keys = {row.lane: (LaneKind.KEY, *row) for row in reversed(rows)}
        return NewLanes(newest, keys, self._filled(connection))

    def add(self, found: NewLanes) -> Collection[LaneId]:
        """Unpark new lanes, in a transaction; return those that another worker locks."""
        with self._store.write() as connection:
            self.limit_stall(connection)
            self._add(connection, list(found.keys.values()))
            self._fill(connection, found.queues)
            return self.unpark(connection, _of_keys(found.keys)).locked

    def sweep(self, every: float | None = 0.0) -> bool:
        """Add the lanes that are missing, and bring back those that were parked for long enough.

        In transactions of its own, so that no lock is held while it searches. Return False, and do
        nothing, if another worker has done so less than `every` seconds ago; None: in any case. A
        lane with jobs in several queues is pointed to the next of them: its row names the queue in
        which workers look for its jobs.
        """
        if every is not None:
            with self._store.write() as connection:
                self.limit_stall(connection)
                if not self._may_sweep(connection, every):
                    return False
        with self._store.read() as connection:
            self.limit_stall(connection)
            missing, moved, overtaken = self._compare(connection)
            filled = self._filled(connection)
            roomy = list(connection.execute(self._statements.queues_with_room).scalars())
            overdue = list(map(tuple, connection.execute(self._statements.overdue)))
        self._in_parts(missing, self._add)
        self._in_parts(_of_queues(roomy), self.unpark)
        self._in_parts(moved + overtaken, self._move)
        # One that is full in a queue may not be so in the next, where limits differ.
        some = random.sample(moved, min(len(moved), LANES_AT_ONCE))
        self._in_parts([(kind, name) for kind, name, *_ in some], self.unpark)
        self._in_parts(filled, self._fill)
        self._in_parts(overdue, self.unpark)
        return True

    def _in_parts(
        self, rows: Sequence[_T], write: Callable[[Connection, Sequence[_T]], object]
    ) -> None:
        """Write rows in transactions of a bounded size: others wait for a writer of SQLite."""
        for first in range(0, len(rows), WRITTEN_AT_ONCE):
            with self._store.write() as connection:
                self.limit_stall(connection)
                write(connection, rows[first : first + WRITTEN_AT_ONCE])

    def _filled(self, connection: Connection) -> list[str]:
        """Return the limited queues with a job that may start, and no lane or an empty one."""
        self.look_at = float("inf")
        found = connection.execute(self._statements.unfilled_queues).all()
        names = [row.name for row in found]
        if any(row.is_any_paused for row in found):
            names, self.look_at = self._paused.filled(connection, names)
        return names

    def _fill(self, connection: Connection, queues: Sequence[str]) -> None:
        if queues:
            self._add(connection, [(LaneKind.QUEUE, name, name, 0, None) for name in queues])
            self.unpark(connection, _of_queues(queues))

    def _add(self, connection: Connection, missing: Sequence[_Found]) -> None:
        if missing:  # In one order: PostgreSQL waits for another insert of the same name.
            added = self._backend.batch_parameters(FOUND, sorted(missing))
            connection.execute(self._statements.add, added)

    def _move(self, connection: Connection, found: Sequence[_Found]) -> None:
        given = self._backend.batch_parameters(FOUND, found)
        connection.execute(self._statements.move, given)

    def _change(
        self, connection: Connection, statement: Executable, ids: Sequence[LaneId]
    ) -> Sequence[Any]:
        """Run a statement about lanes; return its rows."""
        return connection.execute(statement, self._backend.batch_parameters(LANE_IDS, ids)).all()

    def _compare(self, connection: Connection) -> tuple[list[_Found], list[_Found], list[_Found]]:
        """Return the lanes of keys that are missing, those to point to another queue, and others.

        These have a job in front of the one that workers expect to be the next.
        """
        rows = connection.execute(self._statements.known)
        known = {(kind, name): (queue, place) for kind, name, queue, *place in rows}
        lanes: dict[str, dict[str, _Found]] = {}
        passed_over: set[tuple[str, str]] = set()
        parameters = {"in_last_instant": _LAST_INSTANT}
        for row in connection.execute(self._statements.first_jobs, parameters):
            place = (LaneKind.KEY, row.lane, row.queue, row.priority, row.run_at)
            lanes.setdefault(row.lane, {})[row.queue] = place
            if not row.is_open:
                passed_over.add((row.lane, row.queue))
        missing, moved, overtaken = [], [], []
        for key, places in lanes.items():
            if (LaneKind.KEY, key) not in known:
                missing.append(next(iter(places.values())))
                continue
            queue, (priority, due_at) = known[LaneKind.KEY, key]
            if queue not in places or len(places) > 1:
                after = min((other for other in places if other > queue), default=min(places))
                moved.append(places[after])
            elif due_at is None or (
                (key, queue) not in passed_over and places[queue][3:] < (priority, due_at)
            ):
                overtaken.append(places[queue])
        return missing, moved, overtaken

    def _may_sweep(self, connection: Connection, every: float) -> bool:
        parameters = {"in_every": every}
        if connection.execute(self._statements.begin_sweep, parameters).rowcount:
            return True
        self._add(connection, [(LaneKind.SWEEP, "", "", 0, None)])
        return connection.execute(self._statements.begin_sweep, parameters).rowcount == 1

    def unpark_waiting(self, connection: Connection, ids: Sequence[LaneId]) -> None:
        """Unpark lanes that an operator's action has opened; wait for the locks of their rows."""
        self._change(connection, self._statements.unpark_waiting, ids)

    def unpark_all(self) -> None:
        """Bring all lanes back, in transactions of its own, after a change that claims look at.

        Wait for those that others lock: who saw the time before the change may park them yet.
        """
        with self._store.read() as connection:
            self.limit_stall(connection)
            known = connection.execute(self._statements.known).all()
        locked: set[LaneId] = set()
        ids = sorted((kind, name) for kind, name, *_ in known if kind != LaneKind.SWEEP)
        self._in_parts(ids, lambda *part: locked.update(self.unpark(*part).locked))
        for one in sorted(locked):
            with self._store.write() as connection:
                self.limit_stall(connection)
                self.unpark_waiting(connection, [one])

    def unpark_full(self, connection: Connection) -> set[LaneId]:
        """Bring back all full lanes, as some may have room; return those that others lock."""
        self.limit_stall(connection)
        connection.execute(self._statements.unpark_full)
        return set(map(tuple, connection.execute(self._statements.full)))

    def unpark(self, connection: Connection, ids: Iterable[LaneId]) -> Unparked:
        """Bring lanes back in which a job has ended.

        Bring those that another worker locks back later, as that worker may have counted the job
        that has ended, and parks the lane. A stopped process may hold them long.
        """
        wanted = sorted(set(ids))
        if not wanted:
            return Unparked()
        self.limit_stall(connection)
        done = self._change(connection, self._statements.unpark, wanted)
        queues = list(dict.fromkeys(row.queue for row in done))
        left = sorted({*wanted} - {(row.kind, row.name) for row in done})
        if not left:
            return Unparked(queues)
        locked = self._change(connection, self._statements.among, left)
        return Unparked(queues, set(map(tuple, locked)))


def _of_keys(names: Iterable[str]) -> list[LaneId]:
    return [(LaneKind.KEY, name) for name in names]


def _of_queues(names: Iterable[str]) -> list[LaneId]:
    return [(LaneKind.QUEUE, name) for name in names]
