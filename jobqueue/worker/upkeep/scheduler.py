"""The scheduler: promotes scheduled jobs to available when they are due."""

from collections.abc import Callable

from jobqueue.store.maintenance import BATCH, Maintenance
from jobqueue.worker.process_identity import boottime
from jobqueue.worker.service import Service
from jobqueue.worker.shared_poll import SharedPoll, with_slack


class Scheduler(Service):
    """Promotes due jobs, and sleeps until the next one is due."""

    def __init__(
        self,
        maintenance: Maintenance,
        shared_poll: SharedPoll,
        poll: float,
        promoted: Callable[[], None],
    ) -> None:
        super().__init__("scheduler")
        self._maintenance = maintenance
        self._shared_poll = shared_poll
        shared_poll.subscribe(self.name, self.wake, on_wakeup=True)
        self._looked_at = float("-inf")
        self._poll = with_slack(poll)
        self._promoted = promoted

    def tick(self) -> float:
        """Promote due jobs; read first, so that waiting costs no write."""
        self._looked_at, due = self._shared_poll.poll_due(self.name, self._looked_at)
        due = None if due is None else due - (boottime() - self._looked_at)
        if due is None or due > 0:
            return self._poll if due is None else min(self._poll, due)
        queues = self._maintenance.promote()
        if queues:
            self._promoted()
        if not queues:  # Due by the worker's clock, but not by the database's, or already promoted.
            return self._poll
        return 0 if len(queues) >= BATCH else 0.01
