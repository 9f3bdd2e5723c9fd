"""A service: a thread that calls tick() again and again, with a back-off after failures."""

import logging
import random
import threading
import time
from abc import ABC, abstractmethod

from jobqueue.loggers import get_logger
from jobqueue.records import counted
from jobqueue.worker.log_context import thread

log = get_logger("jobqueue.worker")

BACKOFF_FIRST = 0.1  # seconds
BACKOFF_MAX = 2.0
REPEAT_LOG = 30.0
"""Seconds between two log lines about the same failure."""


class Service(ABC):
    """A named thread around one method: `tick()`.

    `tick()` does one bounded round of work and returns the seconds to sleep before the next: 0
    means "there is more", None means "until woken". A round that raises is logged and tried again
    after a capped, growing time: no error of the database ends a service. `start()`, `stop()`,
    `join()` and `wake()` may be called in any order, any number of times; `stop()` asks the thread
    to end and returns at once.
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
            log.info("%s: works again after failing %s", self.name, counted(self._failures, "time"))
            self._failures = 0
        return rest

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        most: float = min(self._backoff_max, BACKOFF_FIRST * 2.0 ** min(self._failures, 16))
        rest: float = most * random.uniform(0.5, 1.0)  # noqa: S311 - jitter needs no secret.
        text = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        if self.stopping:  # It may have waited for a full server until the stop.
            log.info("%s: stopped in a round that failed: %s", self.name, text)
            return rest
        present = time.monotonic()  # Not by its rests: a wake-up ends them, in a stop every 5 ms.
        if self._failures == 1 or present - self._logged_at >= REPEAT_LOG:
            log.warning(
                "%s: failed %s, retrying: %s",
                self.name,
                counted(self._failures, "time"),
                text,
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
            self._logged_at = present
        return rest
