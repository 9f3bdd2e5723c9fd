"""The scheduler: promotes scheduled jobs when they are due, and cancels those that expire."""

from collections.abc import Callable

from jobqueue.store.maintenance import BATCH, Maintenance
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker.log_context import about, log
from jobqueue.worker.process_identity import boottime
from jobqueue.worker.service_thread import Service
from jobqueue.worker.shared_poll import SharedPoll, with_slack

SOON = 0.01  # seconds until the next round after one that found work


class Scheduler(Service):
    """Does what falls due with time, and sleeps until something does."""

    def __init__(
        self,
        maintenance: Maintenance,
        shared_poll: SharedPoll,
        poll: float,
        promoted: Callable[[], None],
        events: EventDispatcher,
    ) -> None:
        super().__init__("scheduler")
        self._maintenance = maintenance
        self._shared_poll = shared_poll
        shared_poll.subscribe(self.name, self.wake, on_wakeup=True)
        self._polled_at = float("-inf")
        self._poll = with_slack(poll)
        self._promoted = promoted
        self._events = events

    def tick(self) -> float:
        """Do what is due; read first, so that waiting costs no write."""
        self._polled_at, due = self._shared_poll.poll_due(self.name, self._polled_at)
        passed = boottime() - self._polled_at
        rest = self._poll
        work = (
            (due.job, self._promote),
            (due.expiry, self._expire),
            (due.freed_key, self._pass_on_keys),
        )
        for seconds, do in work:
            if seconds is not None:
                left = seconds - passed
                rest = min(rest, left if left > 0 else _rest_after(do(), self._poll))
        return rest

    def _promote(self) -> int:
        queues = self._maintenance.promote()
        if queues:
            self._promoted()
        return len(queues)

    def _pass_on_keys(self) -> int:
        passed = self._maintenance.pass_on_keys()
        if passed:
            self._promoted()
        return passed

    def _expire(self) -> int:
        expired = self._maintenance.expire()
        for job in expired:
            log.info("job %d (%s) expired before it began", job.id, job.task, extra=about(job))
            self._events.publish("cancelled", job)
        return len(expired)


def _rest_after(count: int, poll: float) -> float:
    """Return the seconds until the next round, after one that changed `count` jobs.

    0: they were due by the worker's clock, but not by the database's, or others did it.
    """
    if not count:
        return poll
    return 0 if count >= BATCH else SOON
