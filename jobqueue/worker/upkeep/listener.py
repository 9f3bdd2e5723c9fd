"""The listener: receives wake-ups from the database, and wakes the services that wait for them."""

import math
import time
from collections.abc import Callable

from jobqueue.store.notify.notifier import Subscription, Wakeup
from jobqueue.worker.claim.planner import ClaimPlanner
from jobqueue.worker.service_thread import Service

WAIT_SLICE = 0.5  # seconds per wait
POLL_SOON = 0.05  # seconds until the next poll while jobs come, where no wake-up can arrive
POLL_GROWTH = 1.1  # of the pause after each poll that finds none: some 30 polls to get to a second
LISTENER_DEBOUNCE = 0.02  # seconds until the scheduler wakes, so that it does not delay the claimer
COMMIT_DEBOUNCE = 0.2
"""The same after a commit that nobody announced: on SQLite a busy worker hears its own all day."""


class Listener(Service):
    """Listens for wake-ups from the database.

    `heard` is called at once, and `later` when the claimer has had its time: two threads that wake
    for the same job share one interpreter, and delay it (measured: by 0.3 to 0.9 ms).

    Where no wake-up can arrive it looks by itself, soon again while jobs come.
    """

    def __init__(
        self,
        subscription: Subscription,
        heard: Callable[[Wakeup], None],
        later: Callable[[], None],
        planner: ClaimPlanner,
    ) -> None:
        super().__init__("listener")
        self._planner = planner
        self._claimed = 0
        self._pause = planner.poll
        self._subscription = subscription
        self._heard = heard
        self._later = later
        self._later_at: float | None = None

    def tick(self) -> float:
        """Wait for one wake-up, for a while."""
        if self._subscription.must_poll:
            return self._poll()
        due = self._later_at
        try:
            heard = self._subscription.wait(
                WAIT_SLICE if due is None else max(0.0, due - time.monotonic())
            )
        except Exception:
            if self.stopping:  # Such as one that has waited for a connection until now.
                return 0
            raise
        if self.stopping:
            return 0
        if heard is not Wakeup.NOTHING:
            self._heard(heard)
            announced = heard is Wakeup.NOTIFIED
            rest = LISTENER_DEBOUNCE if announced else COMMIT_DEBOUNCE
            self._later_at = min(due or math.inf, time.monotonic() + rest)
        if due is not None and time.monotonic() >= due:
            self._later_at = None
            self._later()
        return 0

    def _poll(self) -> float:
        claimed, poll = self._planner.claimed, self._planner.poll
        self._pause = POLL_SOON if claimed != self._claimed else self._pause * POLL_GROWTH
        self._claimed = claimed
        if self._pause >= poll:  # The claimer polls that often anyway.
            self._pause = poll
        else:
            self._heard(Wakeup.COMMIT)
        return self._pause

    def stop(self) -> None:
        """See `Service.stop`."""
        super().stop()
        self._subscription.wake()

    def drain(self) -> None:
        """Close the subscription."""
        self._subscription.close()
