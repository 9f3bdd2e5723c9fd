"""The small services beside the line: due jobs, retention, wake-ups, events, drain."""

import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from jobqueue.events import Event, EventStream
from jobqueue.loggers import get_logger
from jobqueue.records import counted
from jobqueue.states import State
from jobqueue.store.leases import BATCH, Upkeep
from jobqueue.store.notify.notifier import Heard, Listener
from jobqueue.worker.claim.planner import Intake
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.process_identity import boottime
from jobqueue.worker.service import Service
from jobqueue.worker.shared_poll import Lookout, patience

log = get_logger("jobqueue.worker")
report_log = get_logger("jobqueue.report")

LISTEN = 0.5  # seconds per wait, so that a stop is heard
SOON = 0.05  # seconds until the next look of who hears nothing, while jobs come
GROWTH = 1.1  # of that, with each look that finds none: it takes some 30 to get to a second
LATER = 0.02  # seconds until those are told of a wake-up who are in no hurry
PRUNE_EVERY = 60.0
FOLDED_MANY = 1000  # rows of counts folded away in one go: there may well be more
EVENTS_MAX = 10_000
DRAIN_LOOK = 0.2


class Scheduler(Service):
    """Makes jobs available when they are due."""

    def __init__(
        self, upkeep: Upkeep, lookout: Lookout, poll: float, promoted: Callable[[], None]
    ) -> None:
        super().__init__("scheduler")
        self._upkeep = upkeep
        self._lookout = lookout
        lookout.tell(self.name, self.wake, rings=True)
        self._looked_at = float("-inf")
        self._poll = patience(poll)
        self._promoted = promoted

    def tick(self) -> float:
        """Promote what is due; reading first, so that waiting costs no write."""
        self._looked_at, due = self._lookout.take_due(self.name, self._looked_at)
        due = None if due is None else due - (boottime() - self._looked_at)
        if due is None or due > 0:
            return self._poll if due is None else min(self._poll, due)
        queues = self._upkeep.promote()
        if queues:
            self._promoted()
        if not queues:  # Due by its reading, not by the database's: nothing to hurry for.
            return self._poll
        return 0 if len(queues) >= BATCH else 0.01


class Pruner(Service):
    """Deletes old final jobs and folds old counts, a batch at a time."""

    def __init__(self, upkeep: Upkeep, keep: dict[State, float | None]) -> None:
        super().__init__("pruner")
        self._upkeep = upkeep
        self._keep = keep

    def tick(self) -> float:
        """One batch per state; at once again while batches are full."""
        full = False
        for state, keep in self._keep.items():
            if keep is not None:
                full |= self._upkeep.prune(state, keep) >= BATCH
        full |= self._upkeep.fold() >= FOLDED_MANY
        return 0.05 if full else PRUNE_EVERY


class Ear(Service):
    """Listens for wake-ups from the database.

    `heard` is told at once, and `later` when the claimer has had its time: two threads that wake
    for the same job share one interpreter, and delay it (measured: by 0.3 to 0.9 ms).

    Where no wake-up can arrive it looks by itself, soon again while jobs come.
    """

    def __init__(
        self,
        listener: Listener,
        heard: Callable[[Heard], None],
        later: Callable[[], None],
        intake: Intake,
    ) -> None:
        super().__init__("listener")
        self._intake = intake
        self._claimed = 0
        self._pause = intake.poll
        self._listener = listener
        self._heard = heard
        self._later = later
        self._later_at: float | None = None

    def tick(self) -> float:
        """Wait for one wake-up, for a while."""
        if self._listener.deaf:
            return self._look()
        due = self._later_at
        try:
            heard = self._listener.wait(LISTEN if due is None else max(0.0, due - time.monotonic()))
        except Exception:
            if self.stopping:  # Such as one that has waited for a connection until now.
                return 0
            raise
        if self.stopping:
            return 0
        if heard is not Heard.NOTHING:
            self._heard(heard)
            if due is None:
                self._later_at = time.monotonic() + LATER
        if due is not None and time.monotonic() >= due:
            self._later_at = None
            self._later()
        return 0

    def _look(self) -> float:
        claimed, poll = self._intake.claimed, self._intake.poll
        self._pause = SOON if claimed != self._claimed else self._pause * GROWTH
        self._claimed = claimed
        if self._pause >= poll:  # The claimer looks so often anyway.
            self._pause = poll
        else:
            self._heard(Heard.CHANGE)
        return self._pause

    def stop(self) -> None:
        """See `Service.stop`."""
        super().stop()
        self._listener.wake()

    def drain(self) -> None:
        """Close the ear."""
        self._listener.close()


class Announcer(Service):
    """Tells subscribers, on a thread of its own: a slow one delays other events, and no job."""

    def __init__(self, events: EventStream) -> None:
        super().__init__("announcer")
        self._events = events
        self._pending: SimpleQueue[Event] = SimpleQueue()
        self._dropped = 0

    def announce(self, event: Event) -> None:
        """Tell it soon. Beyond a bound events are dropped, and counted: memory has an end."""
        if self._pending.qsize() >= EVENTS_MAX:
            self._dropped += 1
            if self._dropped % 1000 == 1:
                log.warning("subscribers are too slow: %d events dropped", self._dropped)
            return
        self._pending.put(event)
        self.wake()

    def tick(self) -> float | None:
        """Tell all that is pending."""
        try:
            while True:
                self._events.emit(self._pending.get_nowait())
        except Empty:
            return None

    def drain(self) -> None:
        """Tell the rest."""
        self.tick()


class LastJob(Service):
    """Notices that as many jobs were run as this worker was to run."""

    def __init__(self, inflight: InFlight, intake: Intake, done: Callable[[], None]) -> None:
        super().__init__("last job")
        self._inflight = inflight
        self._intake = intake
        self._done = done

    def tick(self) -> float | None:
        """Look."""
        if self._intake.exhausted and not self._inflight.held:
            self._done()
            return None
        return DRAIN_LOOK


class Drain(Service):
    """Notices that nothing is left to run."""

    def __init__(
        self,
        upkeep: Upkeep,
        inflight: InFlight,
        *,
        queues: Sequence[str] | None,
        tasks: Sequence[str],
        done: Callable[[], None],
    ) -> None:
        super().__init__("drain")
        self._upkeep = upkeep
        self._inflight = inflight
        self._queues = None if queues is None else tuple(queues)
        self._tasks = tuple(tasks)
        self._done = done

    def tick(self) -> float | None:
        """Look, when this worker has nothing itself."""
        if self._inflight.held or self._upkeep.unfinished(self._queues, self._tasks):
            return DRAIN_LOOK
        for kind, count in self._upkeep.left_behind(self._queues, self._tasks).items():
            report_log.warning("not waited for: %s %s", counted(count, "job"), kind)
        self._done()
        return None
