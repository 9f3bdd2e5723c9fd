"""Events of jobs, and their subscribers: `jobs.on("failed", …)`."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard, get_args

from jobqueue.errors import invalid
from jobqueue.literal_types import EventName
from jobqueue.loggers import get_logger
from jobqueue.printable_text import did_you_mean
from jobqueue.records import AttemptError

log = get_logger("jobqueue.events")

NAMES: tuple[EventName, ...] = get_args(EventName)


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one job, which has been committed. `duration`: seconds of the attempt."""

    name: EventName
    job: int
    task: str
    queue: str
    attempt: int
    error: AttemptError | None = None
    duration: float | None = None


Subscriber = Callable[[Event], object]


class EventStream:
    """The subscribers of each event."""

    def __init__(self) -> None:
        self._subscribers: dict[str, list[Subscriber]] = defaultdict(list)

    def subscribe(self, name: EventName, subscriber: Subscriber) -> None:
        """Call `subscriber` for each event of that name. Raises InvalidOption for another name."""
        if name not in NAMES:
            known = f"there are {', '.join(NAMES)}{did_you_mean(str(name)[:40], NAMES)}"
            raise invalid("on", f"{name!r} is not an event; {known}", name)
        self._subscribers[name].append(subscriber)

    def wanted(self, name: str) -> TypeGuard[EventName]:
        """True if the event has a subscriber."""
        return bool(self._subscribers.get(name))

    def emit(self, event: Event) -> None:
        """Call the subscribers. What one raises is logged, and the others are called."""
        for subscriber in self._subscribers.get(event.name, ()):
            try:
                subscriber(event)
            except Exception:
                log.exception("a subscriber to %r raised for job %d", event.name, event.job)
