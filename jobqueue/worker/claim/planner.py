"""The claim planner: how many jobs to claim, and the claiming."""

import time

from sqlalchemy import Connection

from jobqueue.records import Claim
from jobqueue.store.claims import Claims, WorkerRef
from jobqueue.store.database import Store
from jobqueue.worker.claim.claim_reconciler import Reconciler
from jobqueue.worker.claim.cursors import ClaimCursors, WorkHint
from jobqueue.worker.claim.lanes import LanePlanner
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import log
from jobqueue.worker.shared_poll import SharedPoll

STALE_PREFETCH_AGE = 1.0  # seconds that claims may wait while every thread is busy
LIMITS_INTERVAL = 0.5  # seconds between two looks for limits of the queues of prefetched claims
ASYNC_PROBE = 8
"""Jobs to claim although every thread is busy, where some may turn out to be async."""
PREFETCH_ROUND_TRIPS = 2.0  # round trips for which prefetched jobs should last
REFUSED_REST = 2.0  # seconds without claims after jobs could not be run here: others may take them


class ClaimPlanner:
    """Decides how many jobs to claim, and claims them. Used by the thread that claims."""

    def __init__(
        self,
        store: Store,
        cursors: ClaimCursors,
        lanes: LanePlanner,
        inflight: InFlight,
        shared_poll: SharedPoll,
        *,
        poll: float,
        max_jobs: int | None,
    ) -> None:
        self._store = store
        self._claims = Claims(store)
        self._reconciler = Reconciler(store, self._claims, inflight)
        self._cursors = cursors
        self.lanes = lanes
        self.inflight = inflight
        self._shared_poll = shared_poll
        self.poll = poll
        self._max_jobs = max_jobs
        self._round_trip = 0.005  # seconds, corrected by every claim
        self._probe_at = 0.0
        self._limits_at = 0.0
        self._rests_until = 0.0
        self.claimed = 0
        """Jobs claimed so far, without those that were released before they started."""
        self.batch: list[Claim] = []
        """The claims of this round, to be dispatched after the commit."""
        self._last_count = 0
        self._worker: WorkerRef | None = None
        self.began = 0.0
        """When this round began: waiting for the write lock is part of the round trip."""
        self.commit_unknown = False
        """A claim may be committed whose jobs were not dispatched."""
        self.closed = False
        """Claim nothing more."""
        self.low_watermark = 0
        """Claim more when the inbox holds no more claims than this."""

    @property
    def exhausted(self) -> bool:
        """True once `max_jobs` jobs were claimed."""
        return self._max_jobs is not None and self.claimed >= self._max_jobs

    @property
    def _batch_max(self) -> int:
        return self.inflight.contention.batch_max(self._store.backend)

    def prefetch(self) -> int:
        """Return how many claims to prefetch: what the threads start in two round trips.

        By Little's law from the measured duration of a job: none for long jobs, a batch for short.
        """
        mean = self.inflight.capacity.mean_duration
        if mean is None:
            return 0
        rate = self.inflight.capacity.threads / max(mean, 1e-6)
        return min(self._batch_max, int(rate * self._round_trip * PREFETCH_ROUND_TRIPS))

    def wanted(self) -> int:
        """Return how many jobs to claim now; 0 if there is little room or outcomes pile up."""
        inflight = self.inflight
        if self.closed or inflight.lease.worker is None or not inflight.lease.good():
            return 0
        if inflight.outbox.qsize() > 2 * self._batch_max or time.monotonic() < self._rests_until:
            return 0
        room = self._room()
        if self._max_jobs is not None:
            room = min(room, self._max_jobs - self.claimed)
        return max(0, min(room, self._batch_max))

    def _room(self) -> int:
        """Return for how many claims there is room, in threads and on the event loop."""
        capacity, inbox = self.inflight.capacity, self.inflight.inbox
        prefetch = self.prefetch()
        self.low_watermark = prefetch // 2
        thread_room = capacity.threads + prefetch - len(capacity.open)
        is_overfull = thread_room < 0
        if inbox.qsize() > self.low_watermark and capacity.free() == 0:
            thread_room = 0
        if not capacity.asynchronous.limit:
            return thread_room
        probe = 0 if is_overfull or time.monotonic() < self._probe_at else ASYNC_PROBE
        return capacity.asynchronous.room(max(thread_room, 0), probe)

    def refresh(self) -> bool:
        """Rescan if it is time, in its own transaction; return True if jobs are known.

        Where jobs were announced, the claim's transaction rescans.
        """
        cursors = self._cursors
        if cursors.is_announced:
            return True
        if cursors.rescan_in() <= 0:
            announced = cursors.hint >= WorkHint.LIKELY
            with self._store.read() as connection:
                cursors.rescan(connection)
                self.lanes.look(connection, announced=announced)
                self._shared_poll.poll_within(connection)
        self.lanes.refresh()
        return not cursors.empty or self.lanes.has_work()

    def hint_work(self, *, announced: bool = False) -> None:
        """Rescan soon, as there may be new jobs: now if this worker is idle.

        `announced`: jobs were enqueued. May be called from any thread.
        """
        if self.inflight.held:
            self._cursors.raise_hint(WorkHint.MAYBE)
        else:
            self._cursors.raise_hint(WorkHint.ANNOUNCED if announced else WorkHint.LIKELY)

    def claim_announced(self, limit: int) -> bool:
        """Claim announced jobs from the queue of the last claims, and dispatch them.

        False if no jobs were announced, or none are in that queue: then rescan.
        """
        inflight = self.inflight
        guess = self._cursors.announced_queue(
            min(limit, inflight.capacity.free_for_any()), inflight.held
        )
        if guess is None:
            return False
        if (worker := self._begin()) is not None:
            self.batch = self._claims.claim_first(worker, *guess)
        self.dispatch()
        if self.batch:
            self._cursors.claimed_announced()
        return bool(self.batch)

    def claim(self, connection: Connection, limit: int) -> None:
        """Claim up to `limit` jobs within a transaction; call `dispatch()` after its commit."""
        worker, inflight = self._begin(), self.inflight
        if worker is None:
            return
        self.lanes.forget_all_but(inflight.held.keys())
        free = min(limit, inflight.capacity.free_for_any())
        # What is in lanes starts at once: half of the free threads, if plain jobs wait as well.
        share = free if self._cursors.empty else -(-free // 2)
        claims = self.lanes.claim(connection, worker, limit=share, room=self._room_in)
        announced = self._cursors.is_announced
        self.batch = claims + self._cursors.claim(
            connection,
            worker,
            limit=limit - len(claims),
            free=free - len(claims),
            held=inflight.held,
        )
        if announced and not self.batch:  # The announced jobs may be in lanes: sweep next.
            self.lanes.look(connection, announced=True)

    def _room_in(self, queue: str, claims: list[Claim]) -> int:
        return self._cursors.room(queue, self.inflight.held, claims)

    def unpark_lanes(self) -> None:
        """Let other workers have the lanes in which jobs have ended, where this one is busy."""
        if self.lanes.has_ended():
            try:
                with self._store.write() as connection:
                    self.lanes.unpark_ended(connection)
            except Exception:
                self.lanes.failed()
                raise

    def _begin(self) -> WorkerRef | None:
        """Prepare a claim; return in whose name it is made, None if nothing is to be claimed."""
        self.commit_unknown = True  # Before looking at `closed`: who closes it looks in turn.
        self._worker, self.batch = self.inflight.lease.worker, []
        return None if self.closed else self._worker

    def dispatch(self) -> None:
        """Dispatch this round's claims after the commit, unless the lease was lost meanwhile."""
        took = time.monotonic() - self.began
        self._round_trip += (min(took, 1.0) - self._round_trip) * 0.2
        self._last_count = len(self.batch)
        try:
            self.inflight.dispatch(self.batch, self._worker)
        except Exception:
            self._rests_until = time.monotonic() + REFUSED_REST
            raise
        self.commit_unknown = False  # Not before: what could not be dispatched is released.
        self.claimed += self._last_count  # Only now, or the last job would seem to have ended.

    def reconcile(self) -> None:
        """Release what the database says this worker holds and it does not, if that may be.

        `commit_unknown` is a reason: a claim that failed may have been committed.
        """
        if self.commit_unknown:
            self.lanes.failed()
        if self.commit_unknown or self._reconciler.due():
            self._reconciler.compare()
            self.commit_unknown = False

    def release_stale_prefetch(self) -> None:
        """Release prefetched claims that wait while every thread is busy with a long job."""
        inflight = self.inflight
        if self.closed:
            return  # The inbox holds what ends the threads by now.
        self._release_limited()
        waited = time.monotonic() - inflight.capacity.last_start
        if inflight.inbox.qsize() and waited > max(STALE_PREFETCH_AGE, 20 * self._round_trip):
            if not inflight.lease.good():
                return
            inflight.capacity.stalled(waited)
            count = inflight.release_prefetched()
            self.claimed -= count
            # Or they were claimed again at once.
            self._probe_at = time.monotonic() + STALE_PREFETCH_AGE
            log.debug("released %d prefetched claims: no thread became free", count)

    def _release_limited(self) -> None:
        """Release prefetched claims that were paused, or whose queue was limited, meanwhile."""
        inflight, present = self.inflight, time.monotonic()
        if not inflight.inbox.qsize() or present < self._limits_at:
            return
        self._limits_at = present + LIMITS_INTERVAL
        worker, _ = inflight.snapshot()
        if worker is None:
            return
        with self._store.read() as connection:
            held_back = self.lanes.held_back(connection, worker)
        if held_back:
            self.claimed -= inflight.release_prefetched(lambda claim: claim.id in held_back)

    def delay(self) -> float:
        """Return the seconds until the next claim, if nothing wakes the claimer."""
        rest = min(self.poll, STALE_PREFETCH_AGE / 2) if self.inflight.inbox.qsize() else self.poll
        if not self.wanted():
            return 0 if self.lanes.has_ended() else rest
        if self._last_count and not self._cursors.empty:
            return 0
        return max(0.0, min(rest, self._cursors.rescan_in(), self.lanes.due_in()))
