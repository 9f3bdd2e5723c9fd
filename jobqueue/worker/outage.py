"""Outages of the database, logged once per worker instead of by each service that meets them."""

import logging
import math
import threading
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from jobqueue.errors import DatabaseReplaced
from jobqueue.records import counted, lasting
from jobqueue.worker.log_context import log
from jobqueue.worker.process_identity import boottime

REPEAT_LOG = 30.0
"""Seconds between two log lines about the same failure."""


class Outage:
    """Whether the database is unavailable to this worker. May be used from any thread.

    It begins with the first service whose round fails. It is over once each service that failed
    has done a round since, and a heartbeat that was sent since the last failure has landed: a round
    may ask nothing of the database, and where reads pass, writes may fail, as on a full disk.

    It is logged from the second failure on, of any service: the first may be that of a connection
    which a server or a proxy has closed, and the next round has another one.

    One that begins soon after the last is logged later, if it goes on: no pair of lines a second.
    Of those that do not go on, one line tells the number, as soon as there may be one.
    """

    def __init__(
        self,
        is_unavailable: Callable[[BaseException], bool],
        confirmed_at: Callable[[], float],
        is_locked: Callable[[BaseException], bool] = lambda _: False,
    ) -> None:
        """`confirmed_at`: when the last heartbeat that landed was sent (boot time).

        `is_locked`: whether an error says that another program has the database for itself.
        """
        self._is_unavailable = is_unavailable
        self._is_locked = is_locked
        self._confirmed_at = confirmed_at
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._began = self._failed_at = self._logged_at = -math.inf
        self._first = ("", "")
        """The service that failed first, and its error."""
        self._failures = 0
        self._is_logged = False
        self._unlogged: list[tuple[float, str, str]] = []
        """When each one began that is over, and has no line yet; and what failed first in it."""
        self._unlogged_failures = 0
        self.is_on = False
        """While it is, the heartbeat beats in each of its rounds."""
        self.listens = False
        """Whether rounds that did not fail are to be noted: it is on, or a line is due later."""

    def explains(self, service: str, error: Exception) -> bool:
        """Note a round that failed; return False if it failed for another reason."""
        replaced = isinstance(error, DatabaseReplaced)  # The worker stops for it, and says so.
        with self._lock:
            if not replaced and not self._is_unavailable(error):
                self._failing.discard(service)
                return False
            present = boottime()
            if not self.is_on:
                self.is_on, self._began, self._failures = True, present, 0
                self.listens = True
                by = ", by a write transaction of another program" * self._is_locked(error)
                self._first = service, first_line(error) + by
            self._failing.add(service)
            self._failed_at = present
            self._failures += not replaced
            is_news = self._failures > 1 and not replaced and self._may_log(present)
            self._is_logged = self._is_logged or is_news
            first = self._first
        if is_news:
            log.warning(
                "the database is unavailable (%s: %s): this worker claims nothing and tries again; "
                "jobs that it runs go on, and their outcomes are kept",
                *first,
                extra={"event": "unavailable"},
            )
        return True

    def _may_log(self, present: float) -> bool:
        return not self._is_logged and present - self._logged_at >= REPEAT_LOG

    def worked(self, service: str) -> None:
        """Note a round that did not fail; end the outage if that was the last sign of it."""
        with self._lock:
            self._failing.discard(service)
            if self.is_on and (self._failing or self._confirmed_at() <= self._failed_at):
                return
            present, was_logged = boottime(), self._is_logged
            seconds = round(present - self._began, 3)
            self._end(present)
            unlogged, failures = self._unlogged, self._unlogged_failures
            if unlogged and self._may_log(present):
                self._logged_at, self._unlogged, self._unlogged_failures = present, [], 0
            else:
                unlogged = []
            self.listens = bool(self._unlogged)
        if was_logged:
            log.info(
                "the database is available again, after %s",
                lasting(round(seconds, 1)),
                extra={"event": "available", "seconds": seconds},
            )
        if unlogged and failures == 1:
            log.info("%s: failed once, and works again: %s", *unlogged[-1][1:])
        elif unlogged:
            log.log(
                logging.WARNING if failures > len(unlogged) else logging.INFO,
                "the database failed %s in the last %s, and works again (the last: %s: %s)",
                counted(len(unlogged), "more time"),
                lasting(round(present - unlogged[0][0], 1)),
                *unlogged[-1][1:],
            )

    def _end(self, present: float) -> None:
        """Let the outage be over, if there is one."""
        if self._is_logged:
            self._is_logged, self._logged_at = False, present
        elif self.is_on and self._failures:
            self._unlogged.append((self._began, *self._first))
            self._unlogged_failures += self._failures
        self.is_on = False


def first_line(error: Exception) -> str:
    """Return an error in one line: its type, and what the driver says."""
    of_driver = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(error).__name__}: {str(of_driver).partition(chr(10))[0][:300]}"
