"""What happens to jobs, told to those who asked: `jobs.on("failed", …)`."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard, get_args

from jobqueue.errors import InvalidOption
from jobqueue.literals import EventName
from jobqueue.loggers import get_logger
from jobqueue.records import AttemptError

log = get_logger("jobqueue.events")

NAMES: tuple[EventName, ...] = get_args(EventName)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one job, told after it was committed. Durations are seconds."""

    name: EventName
    job: int
    task: str
    queue: str
    attempt: int
    error: AttemptError | None = None
    duration: float | None = None


Subscriber = Callable[[Event], object]


class EventStream:
    """Who wants to hear of what."""

    def __init__(self) -> None:
        self._subscribers: dict[str, list[Subscriber]] = defaultdict(list)

    def subscribe(self, name: EventName, subscriber: Subscriber) -> None:
        """Call `subscriber` after each event of that name. Raises InvalidOption for no name."""
        if name not in NAMES:
            raise InvalidOption(
                f"on: {name!r} is no event; there are {', '.join(NAMES)}", field="on", value=name
            )
        self._subscribers[name].append(subscriber)

    def wanted(self, name: str) -> TypeGuard[EventName]:
        """True when someone listens to that name."""
        return bool(self._subscribers.get(name))

    def emit(self, event: Event) -> None:
        """Tell the subscribers; one that raises is logged and stops nobody."""
        for subscriber in self._subscribers.get(event.name, ()):
            try:
                subscriber(event)
            except Exception:
                log.exception("a subscriber to %r raised for job %d", event.name, event.job)
