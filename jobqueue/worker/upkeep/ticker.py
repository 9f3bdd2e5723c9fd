"""The ticker: enqueues the jobs of schedules, in every worker."""

import time
from collections.abc import Callable, Sequence

from jobqueue.enqueue_hooks import EnqueueHook
from jobqueue.errors import EnqueueRefused, QueueFull
from jobqueue.new_jobs import NewJob
from jobqueue.records import counted
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.schedules.scheduled_calls import new_job
from jobqueue.store.schedule_ticks import CATCH_UP_BATCH, Ticked, TickFailed, Ticks
from jobqueue.tasks import Registry
from jobqueue.worker.log_context import log
from jobqueue.worker.outage import REPEAT_LOG
from jobqueue.worker.process_identity import boottime
from jobqueue.worker.service_thread import Service
from jobqueue.worker.shared_poll import SharedPoll, with_slack

LOOK_INTERVAL = with_slack(1.0)
"""Seconds after which a schedule that was added is seen."""
TICKS_PER_ROUND = 100
LOCKED_REST = 0.05  # seconds until the next look, where another worker is at the tick


class Ticker(Service):
    """Does the ticks of the schedules whose tasks this worker knows, and sleeps until the next one.

    The shared poll says when the next tick is due, so that waiting costs no transaction.
    """

    def __init__(
        self,
        ticks: Ticks,
        shared_poll: SharedPoll,
        registry: Registry,
        hooks: Sequence[EnqueueHook],
        ticked: Callable[[], None],
    ) -> None:
        super().__init__("ticker")
        self._ticks = ticks
        self._shared_poll = shared_poll
        shared_poll.subscribe(self.name, self.wake)
        self._registry = registry
        self._hooks = hooks
        self._ticked = ticked
        self._polled_at = self._due_at = float("-inf")
        self._logged: dict[str, float] = {}

    def tick(self) -> float:
        """Do the ticks that are due; look first, so that waiting costs no write."""
        if not self._polled_at < self._due_at <= boottime():
            self._polled_at, polled = self._shared_poll.poll(self.name, self._polled_at)
            if polled.tick is None:
                return LOOK_INTERVAL
            self._due_at = self._polled_at + polled.tick
        rest = self._due_at - boottime()
        return self._do_ticks() if rest <= 0 else min(LOOK_INTERVAL, rest)

    def _do_ticks(self) -> float:
        """Do the ticks of this worker's schedules; return the seconds until the next round."""
        tasks = list(self._registry)
        declared = [name for name in tasks if self._registry[name].settings.schedule is not None]
        failed: set[str] = set()
        for _ in range(TICKS_PER_ROUND):
            rest = self._ticks.due_in(tasks, declared, besides=failed)
            if rest is None or rest > 0:  # The due ones are done, or those of other workers.
                break
            before = len(failed)
            if not self._did(tasks, declared, failed) and len(failed) == before:
                return LOCKED_REST
        else:
            return 0
        if rest is None or failed:
            self._due_at = float("-inf")  # The next look says whether one is due.
            return LOOK_INTERVAL
        self._due_at = boottime() + rest
        return min(LOOK_INTERVAL, rest)

    def _did(self, tasks: list[str], declared: list[str], failed: set[str]) -> bool:
        """Do the ticks of one schedule; add it to `failed` if that raises."""
        failure: TickFailed | None = None
        for most in (CATCH_UP_BATCH, 1):  # Where many do not fit into a bounded queue, one may.
            try:
                done = self._ticks.tick(tasks, declared, self._job, besides=failed, most=most)
            except TickFailed as error:
                failure = error
                if not isinstance(error.__cause__, QueueFull):
                    break
            else:
                if done is not None:
                    self._announce(done)
                return done is not None
        assert failure is not None
        failed.add(failure.name)
        self._warn(failure)
        return False

    def _announce(self, done: Ticked) -> None:
        log.debug("schedule %s: %s for %s", done.name, counted(len(done.jobs), "job"), done.handled)
        if done.jobs:
            self._ticked()

    def _warn(self, failure: TickFailed) -> None:
        """Log why a tick waits, once in a while: it is tried again with each poll."""
        present = time.monotonic()
        if present - self._logged.get(failure.name, float("-inf")) >= REPEAT_LOG:
            self._logged[failure.name] = present
            cause = failure.__cause__
            line = f"{type(cause).__name__}: {cause}".partition("\n")[0]
            log.warning("schedule %s: its tick waits: %s", failure.name, line)

    def _job(self, record: ScheduleRecord) -> NewJob | None:
        task = self._registry[record.definition.task]
        try:
            return new_job(task, record, self._hooks)
        except EnqueueRefused as refused:
            log.warning("schedule %s: a hook refused its job: %s", record.name, refused)
            return None
