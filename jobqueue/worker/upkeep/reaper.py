"""The reaper: ends the leases of workers that are gone, and gives their jobs to others."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from jobqueue.records import AttemptError, Lease, ReapedJob
from jobqueue.states import FINAL, State
from jobqueue.store.leases import BATCH, Leases
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import about, log
from jobqueue.worker.process_identity import Identity, boottime, is_gone
from jobqueue.worker.service_thread import Service
from jobqueue.worker.shared_poll import SharedPoll, with_slack

REAP_INTERVAL = 1.0  # seconds between two rounds
OVERDUE_SHARE = 0.5
"""Share of a lease without a heartbeat, where three are due, after which the reaper writes too."""
LOST = "WorkerLost"
"""The error's type where a worker was lost with the job."""


class Seen(NamedTuple):
    """A beat counter, and for how many seconds it was seen to stand still."""

    beat: int
    still: float


class Reaper(Service):
    """Judges others only by what it has itself watched, without a failed round in between.

    While nobody can write, nobody can beat, so silence then proves nothing. From when a beat is
    overdue, each round writes a row as heartbeats do, and one that fails, or comes late, restarts
    the watch. Before that nobody had to write. Wall clocks play no part.
    """

    def __init__(
        self,
        leases: Leases,
        shared_poll: SharedPoll,
        inflight: InFlight,
        me: Identity,
        *,
        reaped: Callable[[Sequence[ReapedJob]], None],
        events: EventDispatcher,
    ) -> None:
        super().__init__("reaper")
        self._leases = leases
        self._shared_poll = shared_poll
        shared_poll.subscribe(self.name, self.wake)
        self._inflight = inflight
        self._me = me
        self._reaped = reaped
        self._events = events
        self._seen: dict[int, Seen] = {}
        self._polled_at = float("-inf")
        self._doubts = False
        """A round has failed, and none has written since."""
        self._round = min(REAP_INTERVAL, inflight.lease.length / 4)

    def tick(self) -> float:
        """Check the leases of the peers, revoke those that are over, reap lost jobs."""
        try:
            return self._check_leases()
        except Exception:
            self._seen.clear()
            self._doubts = True
            raise

    def _check_leases(self) -> float:
        began, polled = self._shared_poll.poll(self.name, self._polled_at)
        ended = self._watch(polled.leases, began)
        lost = self._leases.reap() if ended or polled.orphans else []
        for job in lost:
            log.log(
                logging.ERROR if job.state is State.FAILED else logging.WARNING,
                "job %d (%s) was lost with worker %s; it is %s",
                *(job.id, job.task, job.worker, job.state),
                extra=about(job, "lost", error_type=LOST),
            )
            error = AttemptError(LOST, f"worker {job.worker} was lost", None)
            self._events.publish("lost", job, error)
            if job.state in FINAL:
                self._events.publish(job.state.value, job, error)
        if ended or lost:
            self._reaped(lost)
        # Behind a lease that has ended the next peers come into sight.
        return 0 if ended or len(lost) >= BATCH else with_slack(self._round)

    def _watch(self, others: list[Lease], began: float) -> int:
        """Count the silence of others, revoke the leases that are over; return how many."""
        own, before = self._inflight.lease.worker, self._polled_at
        self._seen = {lease.id: self._count(lease, began - before) for lease in others}
        overdue = any(self._seen[lease.id].still >= OVERDUE_SHARE * lease.lease for lease in others)
        if overdue or self._doubts:
            self._doubts = own is None or not self._leases.could_beat(own.id)
        self._polled_at = boottime()
        if self._doubts or self._polled_at - before > 3 * self._round + 0.5:
            self._seen = {lease.id: Seen(lease.heartbeats, 0.0) for lease in others}
        return sum(map(self._judge, others))

    def _count(self, lease: Lease, passed: float) -> Seen:
        before = self._seen.get(lease.id)
        if before is None or before.beat != lease.heartbeats:
            return Seen(lease.heartbeats, 0.0)
        # Only time between rounds counts. A round that waited for the database proves little: the
        # other's beat may have waited too, and still be on its way.
        counted = min(passed, 1.25 * self._round, lease.lease / 2)
        return Seen(lease.heartbeats, before.still + counted)

    def _judge(self, lease: Lease) -> bool:
        seen = self._seen[lease.id]
        if is_gone(lease, self._me):
            why = "its process is gone"
        elif seen.still >= lease.lease:
            why = f"it has been silent for {seen.still:.1f} s"
        else:
            return False
        try:
            ended = self._leases.revoke(lease.id, seen.beat)
        except DBAPIError as error:  # Such as a row that a frozen session holds: others go on.
            text = str(error.orig).partition("\n")[0]
            log.warning("the lease of worker %s could not be ended: %s", lease.name, text)
            self._seen[lease.id] = Seen(lease.heartbeats, 0.0)
            return False
        if ended:
            log.warning("worker %s (%s, pid %d): %s", lease.name, lease.host, lease.pid, why)
        return ended
