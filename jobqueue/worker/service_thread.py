"""A service: a thread that calls tick() again and again, with a back-off after failures."""

import logging
import math
import random
import threading
import time
from abc import ABC, abstractmethod

from jobqueue.records import counted
from jobqueue.worker.log_context import log, thread
from jobqueue.worker.outage import REPEAT_LOG, Outage, first_line

BACKOFF_FIRST = 0.1  # seconds
BACKOFF_MAX = 2.0


class Service(ABC):
    """A named thread around one method: `tick()`.

    `tick()` does one bounded round of work and returns the seconds to sleep before the next: 0
    means "there is more", None means "until woken". A round that raises is logged and tried again
    after a capped, growing time: no error of the database ends a service. What `outage` explains is
    logged by that, once for all services of a worker. `start()`, `stop()`,
    `join()` and `wake()` may be called in any order, any number of times; `stop()` asks the thread
    to end and returns at once.
    """

    outage: Outage | None = None
    """The worker's; None logs an outage as any other failure."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._logged_at: dict[int, float] = {}
        """When the failure that lasts was logged, by level."""
        self._backoff_max = BACKOFF_MAX

    @abstractmethod
    def tick(self) -> float | None:
        """Do one round; return the seconds until the next."""

    def drain(self) -> None:  # noqa: B027 - most have nothing left to do.
        """One last round after `stop()`."""

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None and not self._stopping.is_set():
            own = thread(self._run, f"jobqueue-{self.name}")
            own.start()  # Raises where the system has none to give: then there is none to join.
            self._thread = own

    def stop(self) -> None:
        """Ask the thread to end; return at once."""
        self._stopping.set()
        self.wake()

    def join(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` s for the thread to end; return True if it has."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def wake(self) -> None:
        """Start the next round now. Nearly free when one is due anyway."""
        if not self._wakeup.is_set():
            self._wakeup.set()

    @property
    def stopping(self) -> bool:
        """True once `stop()` was called."""
        return self._stopping.is_set()

    @property
    def failing(self) -> bool:
        """True while rounds fail."""
        return self._failures > 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            rest = self.round()
            if rest is None or rest > 0:
                self._wakeup.wait(rest)
            self._wakeup.clear()  # Before the next round, so that no wake-up is ever lost.
        self.drain()

    def round(self) -> float | None:
        """Do one tick; a failure is logged, and returns the seconds until the retry."""
        try:
            rest = self.tick()
        except Exception as error:  # noqa: BLE001 - see the class: it is logged, and tried again.
            return self._failed(error)
        if self._failures:
            level = logging.INFO if logging.WARNING in self._logged_at else logging.DEBUG
            again = counted(self._failures, "time")
            log.log(level, "%s: works again after failing %s", self.name, again)
            self._failures, self._logged_at = 0, {}
        if self.outage is not None and self.outage.listens:
            self.outage.worked(self.name)
        return rest

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        most: float = min(self._backoff_max, BACKOFF_FIRST * 2.0 ** min(self._failures, 16))
        rest: float = most * random.uniform(0.5, 1.0)  # noqa: S311 - jitter needs no secret.
        self._log(error)
        return rest

    def _log(self, error: Exception) -> None:
        outage = self.outage
        is_known = (
            outage is not None
            and (outage.is_on or not self.stopping)
            and outage.explains(self.name, error)
        )
        if self.stopping and not is_known:  # It may have waited for a full server until the stop.
            log.info("%s: stopped in a round that failed: %s", self.name, first_line(error))
            return
        level = logging.DEBUG if is_known else logging.WARNING
        present = time.monotonic()  # Not by its rests: a wake-up ends them, in a stop every 5 ms.
        if present - self._logged_at.get(level, -math.inf) >= REPEAT_LOG:
            self._logged_at[level] = present
            log.log(
                level,
                "%s: failed %s, retrying: %s",
                self.name,
                counted(self._failures, "time"),
                first_line(error),
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
