"""The event dispatcher: calls the subscribers of events on a thread of its own."""

from queue import Empty, SimpleQueue

from jobqueue.events import Event, EventStream
from jobqueue.records import AttemptError, Claim, ExpiredJob, ReapedJob
from jobqueue.worker.log_context import log
from jobqueue.worker.service_thread import Service

EVENTS_MAX = 10_000


class EventDispatcher(Service):
    """Calls subscribers on a thread of its own: a slow one delays other events, but no job."""

    def __init__(self, events: EventStream) -> None:
        super().__init__("event dispatcher")
        self._events = events
        self.wanted = events.wanted
        self._pending: SimpleQueue[Event] = SimpleQueue()
        self._dropped = 0

    def publish(
        self,
        name: str,
        job: Claim | ReapedJob | ExpiredJob,
        error: AttemptError | None = None,
        duration: float | None = None,
    ) -> None:
        """Queue an event that has subscribers. Beyond EVENTS_MAX it is dropped and counted."""
        if not self._events.wanted(name):
            return
        if self._pending.qsize() >= EVENTS_MAX:
            self._dropped += 1
            if self._dropped % 1000 == 1:
                log.warning("subscribers are too slow: %d events dropped", self._dropped)
            return
        self._pending.put(Event(name, job.id, job.task, job.queue, job.attempt, error, duration))
        self.wake()

    def tick(self) -> float | None:
        """Emit all queued events."""
        try:
            while True:
                self._events.emit(self._pending.get_nowait())
        except Empty:
            return None

    def drain(self) -> None:
        """Emit the rest."""
        self.tick()
