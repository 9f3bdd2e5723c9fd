"""The one protocol of everything that runs beside the line."""

import logging
import random
import threading
import time
from abc import ABC, abstractmethod

from jobqueue.loggers import get_logger
from jobqueue.worker.log_context import thread

log = get_logger("jobqueue.worker")

BACKOFF_FIRST = 0.1  # seconds
BACKOFF_MAX = 2.0
REPEAT_LOG = 30.0
"""Seconds between two lines that say the same."""


class Service(ABC):
    """A named thread around one method: `tick()`.

    `tick()` does one bounded round of work and returns the seconds to rest before the next: 0 means
    "there is more", None means "until woken". A round that raises is logged and tried again after a
    capped, growing time: no error of the database ends a service. `start()`, `stop()`, `join()` and
    `wake()` may be called in any order, any number of times; `stop()` asks and returns at once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._logged_at = 0.0
        self._backoff_max = BACKOFF_MAX

    @abstractmethod
    def tick(self) -> float | None:
        """One round; what a service writes."""
        ...

    def drain(self) -> None:  # noqa: B027 - most have nothing left to do.
        """One last round after `stop()`."""

    def start(self) -> None:
        """Begin, once."""
        if self._thread is None and not self._stopping.is_set():
            own = thread(self._run, f"jobqueue-{self.name}")
            own.start()  # Raises where the system has none to give: then there is none to join.
            self._thread = own

    def stop(self) -> None:
        """Ask for the end."""
        self._stopping.set()
        self.wake()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; True if it has come."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def wake(self) -> None:
        """End the rest between two rounds. Costs next to nothing when there is no rest to end."""
        if not self._wakeup.is_set():
            self._wakeup.set()

    @property
    def stopping(self) -> bool:
        """True once the end was asked for."""
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
        """One tick, its failure turned into a rest."""
        try:
            rest = self.tick()
        except Exception as error:  # noqa: BLE001 - see the class: it is logged, and tried again.
            return self._failed(error)
        if self._failures:
            log.info("%s: works again after %d failed rounds", self.name, self._failures)
            self._failures = 0
        return rest

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        most: float = min(self._backoff_max, BACKOFF_FIRST * 2.0 ** min(self._failures, 16))
        rest: float = most * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret.
        text = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        if self.stopping:  # It may have waited for a full server, and was told to wait no more.
            log.info("%s: stopped in a round that failed: %s", self.name, text)
            return rest
        present = time.monotonic()  # Not by its rests: a wake-up ends them, in a stop every 5 ms.
        if self._failures == 1 or present - self._logged_at >= REPEAT_LOG:
            log.warning(
                "%s: round %d failed, trying on: %s",
                self.name,
                self._failures,
                text,
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
            self._logged_at = present
        return rest
