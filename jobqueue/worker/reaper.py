"""The reaper: ends the leases of workers that are gone, and gives their jobs to others."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from jobqueue.events import Event, EventStream
from jobqueue.records import AttemptError, Lease, Lost
from jobqueue.states import FINAL
from jobqueue.store.upkeep import BATCH, Upkeep
from jobqueue.worker.identity import Identity, boottime, is_gone
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.service import Service

log = logging.getLogger("jobqueue.worker")

ROUND = 1.0  # seconds


class Seen(NamedTuple):
    """A beat, and for how many seconds it has been seen to stand still."""

    beat: int
    still: float


class Reaper(Service):
    """Judges others only by what it has itself watched, without a failed round in between.

    While the database is away for everyone nobody can beat, so silence then proves nothing: a round
    that failed, or came late, starts the watch anew. Wall clocks play no part.
    """

    def __init__(
        self,
        upkeep: Upkeep,
        inflight: InFlight,
        me: Identity,
        *,
        reaped: Callable[[], None],
        announce: Callable[[Event], None],
        events: EventStream,
    ) -> None:
        super().__init__("reaper")
        self._upkeep = upkeep
        self._inflight = inflight
        self._me = me
        self._reaped = reaped
        self._announce = announce
        self._events = events
        self._seen: dict[int, Seen] = {}
        self._looked_at: float | None = None
        self._round = min(ROUND, inflight.lease.length / 4)

    def tick(self) -> float:
        """Watch every lease once; end those that are over; take the jobs of those that are gone."""
        try:
            return self._look()
        except Exception:
            self._seen.clear()
            raise

    def _look(self) -> float:
        leases = self._upkeep.leases()
        present = boottime()
        passed = 0.0 if self._looked_at is None else present - self._looked_at
        if passed > 3 * self._round + 0.5:
            self._seen.clear()
        self._looked_at = present
        self._inflight.alone = len(leases) <= 1
        own = self._inflight.holder
        self._seen = {
            lease.id: self._watch(lease, passed)
            for lease in leases
            if own is None or lease.id != own.id
        }
        for lease in leases:
            if lease.id in self._seen:
                self._judge(lease)
        lost = self._upkeep.reap()
        for job in lost:
            log.warning(
                "job %d (%s) was lost with worker %s; it is %s",
                job.id,
                job.task,
                job.worker,
                job.state,
            )
            self._tell(job)
        if lost:
            self._reaped()
        return 0 if len(lost) >= BATCH else self._round

    def _watch(self, lease: Lease, passed: float) -> Seen:
        before = self._seen.get(lease.id)
        if before is None or before.beat != lease.beat:
            return Seen(lease.beat, 0.0)
        # A round that waited for the database proves little: the other's beat may have waited too,
        # and still be on its way.
        counted = min(passed, 1.25 * self._round, lease.lease / 2)
        return Seen(lease.beat, before.still + counted)

    def _judge(self, lease: Lease) -> None:
        seen = self._seen[lease.id]
        if is_gone(lease, self._me):
            why = "its process is gone"
        elif seen.still >= lease.lease:
            why = f"it has been silent for {seen.still:.1f} s"
        else:
            return
        if self._upkeep.expire(lease.id, seen.beat):
            log.warning("worker %s (%s, pid %d): %s", lease.name, lease.host, lease.pid, why)

    def _tell(self, job: Lost) -> None:
        error = AttemptError("WorkerLost", f"worker {job.worker} was lost", None)
        names = ("lost", job.state.value) if job.state in FINAL else ("lost",)
        for name in names:
            if self._events.wanted(name):
                self._announce(Event(name, job.id, job.task, job.queue, job.attempt, error))
