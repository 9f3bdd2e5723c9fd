"""Lanes in a worker: when it looks for jobs that a limit holds back, and in which queues.

A worker of a database without concurrency keys and limited queues pays one look in each rescan.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

from sqlalchemy import Connection

from jobqueue.records import Claim, Outcome, ReapedJob
from jobqueue.store.claims import WorkerRef
from jobqueue.store.database import Store
from jobqueue.store.lane_rows import LANES_AT_ONCE
from jobqueue.store.lanes import Lanes
from jobqueue.store.schema import LaneId, LaneKind
from jobqueue.worker.log_context import log

SWEEP_INTERVAL = 0.5  # seconds, in the whole fleet
SWEEP_SHARE = 0.1  # of the time, at most, where the sweep takes longer
SWEEP_INTERVAL_MAX = 5.0
"""Seconds, in any case: one sweep that met a lock or a busy machine must not put off the next."""
LOOK_INTERVAL = 0.05  # seconds between two looks for the lanes of new jobs, if none are announced
UNPARK_INTERVAL = 0.02  # seconds until a lane that another worker locked is brought back
ROOM_INTERVAL = 0.05  # seconds until room in this worker is looked for, if no end of a job wakes it
FORGOTTEN_LATE = 100  # claims
RETRY_FIRST, RETRY_MAX = 0.005, 0.02
"""Seconds until lanes that another worker locked are tried again.

It claims from them for some 5 ms, or is frozen, and the server ends its transaction within 5 s.
"""

SKIP_FIRST, SKIP_MAX = 0.5, 5.0
"""Seconds for which lanes are skipped after a lock on their table was waited for."""

Room = Callable[[str, list[Claim]], int]
"""How many more jobs of a queue this worker may hold, besides those that were just claimed."""


class LanePlanner:
    """Claims from lanes. Used by the thread that claims, but for `ended`."""

    def __init__(self, store: Store, queues: Iterable[str] | None) -> None:
        self._store = store
        self._lanes = Lanes(store)
        self._served = None if queues is None else tuple(queues)
        self._queues: list[str] = []
        """Served queues with lanes that may have jobs to claim."""
        self._waits_for_room = False
        """The queues that are left had no room for more jobs in this worker."""
        self._goes_on = False
        """The last claims have not seen all that may start, as behind full lanes: go on at once."""
        self._exist = False
        self._sweep_at = 0.0
        self._sweep_cost = 0.0
        self._look_at = 0.0
        self._newest = 0
        self._retry: dict[str, float] = {}
        """By queue: when to look again, since its rate or another worker's lock held it back."""
        self._retry_after = RETRY_FIRST
        self.lanes_of: dict[int, Sequence[LaneId]] = {}
        """By id: the lanes of the claims in hand."""
        self._ended: deque[tuple[LaneId, str | None]] = deque()
        """Lanes in which jobs have ended; with the queue of a key's job if it has no limit."""
        self._recheck = False
        self._locked: dict[LaneId, float] = {}
        """Lanes to bring back that another worker locked, and when to try again."""
        self._brought_back: set[LaneId] = set()
        """The lanes that the last transaction was to bring back, which may fail yet."""
        self._skip_for = 0.0
        """Seconds of the last skip; 0 if the lanes' table was free since."""
        self._skipped_until = 0.0

    def look(self, connection: Connection, *, announced: bool) -> None:
        """See whether there are lanes, within a rescan; `announced`: jobs were just enqueued."""
        self._exist = self._lanes.exist(connection)
        if not self._exist:
            self._queues = []
        elif announced:
            self._look_at = 0.0

    def held_back(self, connection: Connection, holder: WorkerRef) -> set[int]:
        """Return the plain claims that would not be made now: paused, or of a limited queue."""
        return self._lanes.held_back(connection, holder) - self.lanes_of.keys()

    def has_ended(self) -> bool:
        """Return whether lanes in which jobs have ended are to be brought back now."""
        now = time.monotonic()
        if now < self._skipped_until:
            return False
        return self.is_behind() or any(until <= now for until in self._locked.values())

    def is_behind(self) -> bool:
        """Return whether lanes in which jobs have ended were not brought back yet."""
        return bool(self._ended) or self._recheck

    def has_work(self) -> bool:
        """Return whether to open a transaction for lanes: to claim, or to bring them back."""
        return self.has_ended() or bool(self._due())

    def due_in(self) -> float:
        """Return the seconds until there may be something to do."""
        if (skip := self._skipped_until - time.monotonic()) > 0:
            return skip
        if self._queues:
            return ROOM_INTERVAL if self._waits_for_room else 0.0
        if self._exist and not self._look_at:
            return 0.0
        # Sweeps, and looks that nothing announced, come with the rounds that are made anyway.
        look_at = max(self._look_at, self._lanes.look_at)
        times = (*self._retry.values(), *self._locked.values(), look_at)
        return max(0.0, min(times, default=float("inf")) - time.monotonic())

    def refresh(self) -> None:
        """Find lanes with work if it is time, before the transaction of the claim."""
        now = time.monotonic()
        if not self._exist or now < max(self._skipped_until, min(self._look_at, self._sweep_at)):
            return
        if now >= self._sweep_at:
            if self._lanes.sweep(self._interval):
                self._sweep_cost = time.monotonic() - now
            self._sweep_at = time.monotonic() + self._interval
        self._look(is_due=now >= self._look_at)
        self._waits_for_room = False
        if self._skip_for and now > self._skipped_until + SKIP_MAX:
            log.info("jobs with a concurrency key or in a limited queue are claimed again")
            self._skip_for = 0.0

    def _look(self, *, is_due: bool) -> None:
        """Find the lanes that may have jobs to claim; `is_due`: with those of new jobs."""
        found = None
        with self._store.read() as connection:
            self._lanes.limit_stall(connection)
            if is_due:
                found = self._lanes.find_new(connection, self._newest)
            if found is None or not found.is_any:
                self._queues = self._lanes.with_work(connection, self._served)
        if found is None:
            return
        if found.is_any:
            locked = self._lanes.add(found)
            self._locked |= dict.fromkeys(locked, time.monotonic() + UNPARK_INTERVAL)
            self._look(is_due=False)
        self._newest, present = found.newest, time.monotonic()
        self._look_at = 0.0 if self._lanes.look_at <= present else present + LOOK_INTERVAL

    def skip(self, error: Exception) -> bool:
        """Skip lanes for a while if a table was locked, so that free jobs go on if it is theirs.

        By an operator's VACUUM FULL or ALTER TABLE, as rows are never waited for. Return False if
        that is not what failed.
        """
        if not self._store.backend.is_lock_timeout(error):
            return False
        if not self._skip_for:
            log.warning(
                "jobs with a concurrency key or in a limited queue wait for a table that another "
                "session locks; other jobs wait too, unless it is jobqueue_lanes: see pg_locks"
            )
        self._skip_for = min(2 * self._skip_for, SKIP_MAX) or SKIP_FIRST
        self._skipped_until = time.monotonic() + self._skip_for
        self._queues, self._look_at = [], 0.0
        self.failed()
        return True

    @property
    def _interval(self) -> float:
        return max(SWEEP_INTERVAL, min(self._sweep_cost / SWEEP_SHARE, SWEEP_INTERVAL_MAX))

    def claim(
        self, connection: Connection, holder: WorkerRef, *, limit: int, room: Room
    ) -> list[Claim]:
        """Claim up to `limit` jobs that start at once, each queue its share."""
        now = time.monotonic()
        if now < self._skipped_until:
            return []
        ids, ended = self._take_ended()
        self._bring_back(connection, ids)
        self._queues += ended.keys() - {*self._queues}
        for queue in self._due():
            self._retry.pop(queue, None)
            if queue not in self._queues:
                self._queues.append(queue)
        queues, self._queues = self._queues, []
        self._goes_on = False
        taken: list[Claim] = []
        for place, queue in enumerate(queues):
            share = -(-(limit - len(taken)) // (len(queues) - place))
            wanted = min(share, room(queue, taken))
            if wanted <= 0:
                self._queues.append(queue)
                continue
            keys = ended.get(queue, set())
            taken += self._claim_queue(connection, holder, queue, wanted, keys)
        self._waits_for_room = not taken and not self._goes_on
        self._queues.sort(key=lambda queue: any(claim.queue == queue for claim in taken))
        left = _of_keys(ended)
        if left and self._bring_back(connection, left):
            self._waits_for_room = False
        return taken

    def _claim_queue(
        self, connection: Connection, holder: WorkerRef, queue: str, wanted: int, ended: set[str]
    ) -> list[Claim]:
        """Claim from a queue, and leave in `ended` the keys that are not brought back by that."""
        now, some = time.monotonic(), set(islice(ended, min(wanted, LANES_AT_ONCE)))
        found = self._lanes.claim(connection, holder, queue, wanted, some)
        ended.difference_update(found.brought_back)
        for claim in found.claims:
            ids = [(LaneKind.KEY, found.keys[claim.id])] if claim.id in found.keys else []
            self.lanes_of[claim.id] = [*ids, (LaneKind.QUEUE, queue)] if found.is_limited else ids
        if found.is_locked:
            self._retry[queue] = now + self._next_retry()
        elif found.retry_in is not None:
            self._retry[queue] = now + found.retry_in
        elif found.claims or found.has_more:
            self._retry_after = RETRY_FIRST
        if found.has_more and queue not in self._retry:
            self._queues.append(queue)
            self._goes_on = True
        return list(found.claims)

    def unpark_ended(self, connection: Connection) -> None:
        """Bring back the lanes in which jobs have ended."""
        ids, ended = self._take_ended()
        self._bring_back(connection, ids | _of_keys(ended))

    def _take_ended(self) -> tuple[set[LaneId], dict[str, set[str]]]:
        """Return lanes to bring back, and the keys of each queue that its claim brings back."""
        ids: set[LaneId] = set()
        keys: dict[str, set[str]] = defaultdict(set)
        for _ in range(len(self._ended)):
            one, queue = self._ended.popleft()
            if queue is None:
                ids.add(one)
            else:
                keys[queue].add(one[1])
        self._brought_back = ids | _of_keys(keys)
        return ids, keys

    def _bring_back(self, connection: Connection, ids: set[LaneId]) -> bool:
        """Bring back these lanes, and those whose time has come; return whether any was."""
        now = time.monotonic()
        due = [one for one, until in self._locked.items() if until <= now]
        if self._recheck:
            self._recheck = False
            locked = self._lanes.unpark_full(connection)
            self._locked |= dict.fromkeys(locked, now + UNPARK_INTERVAL)
            self._queues = self._lanes.with_work(connection, self._served)
        for one in due:
            del self._locked[one]
        ids = ids.union(due)
        self._brought_back |= ids
        if not ids:
            return False
        found = self._lanes.unpark(connection, ids)
        if found.locked:
            self._locked |= dict.fromkeys(found.locked, now + self._next_retry())
        for queue in found.queues:
            if queue not in self._queues and self._serves(queue):
                self._queues.append(queue)
        return bool(found.queues)

    def _next_retry(self) -> float:
        """Return the seconds until what another worker locks is tried again."""
        retry, self._retry_after = self._retry_after, min(2 * self._retry_after, RETRY_MAX)
        return retry

    def _serves(self, queue: str) -> bool:
        return self._served is None or queue in self._served

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Note that claims are over, after the commit. May be called from any thread."""
        for outcome in outcomes:
            ids = self.lanes_of.pop(outcome.claim.id, ())
            queue = outcome.claim.queue if len(ids) == 1 else None
            self._ended.extend((one, queue if one[0] == LaneKind.KEY else None) for one in ids)

    def claimed_with(self, outcomes: Sequence[Outcome], held: Mapping[int, Claim]) -> bool:
        """Return whether claims in hand were made together with some of these, from lanes.

        May be called from any thread. `lanes_of` has claims too that were lost, and are not held.
        """
        ended = {outcome.claim.id: outcome.claim.started_at for outcome in outcomes}
        began = {began for id_, began in ended.items() if id_ in self.lanes_of}
        return any(
            id_ not in ended and (claim := held.get(id_)) is not None and claim.started_at in began
            for id_ in list(self.lanes_of)  # A copy at once: other threads add and remove claims.
        )

    def recheck(self, ids: Iterable[LaneId] = ()) -> None:
        """Look again at full lanes, and at these. May be called from any thread.

        After the loss of a worker, which may have ended jobs without bringing their lanes back.
        """
        self._ended.extend((one, None) for one in ids)
        self._recheck = True

    def lost(self, jobs: Sequence[ReapedJob]) -> None:
        """Look again at full lanes, and at those of jobs that a lost worker held."""
        ids = {(LaneKind.KEY, job.lane) for job in jobs if job.lane is not None}
        self.recheck(ids.union((LaneKind.QUEUE, job.queue) for job in jobs))

    def failed(self) -> None:
        """Note that the last transaction may have failed: then it brought no lane back."""
        self.recheck(self._brought_back)

    def forget_all_but(self, held: Collection[int]) -> None:
        """Forget the claims that ended without an outcome, as lost ones do."""
        if len(self.lanes_of) <= 2 * len(held) + FORGOTTEN_LATE:
            return
        # A copy at once: another thread takes out what has ended.
        for id_ in [id_ for id_ in list(self.lanes_of) if id_ not in held]:
            self._ended.extend((one, None) for one in self.lanes_of.pop(id_, ()))

    def _due(self) -> list[str]:
        now = time.monotonic()
        if now < self._skipped_until:
            return []
        return [queue for queue, due in self._retry.items() if due <= now] + self._queues


def _of_keys(keys: Mapping[str, Collection[str]]) -> set[LaneId]:
    """Return the lanes of the keys of queues."""
    return {(LaneKind.KEY, key) for of_queue in keys.values() for key in of_queue}
