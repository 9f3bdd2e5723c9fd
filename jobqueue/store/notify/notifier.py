"""Wake sleeping workers when there is work. A lost wake-up costs one poll interval."""

import atexit
import math
import threading
import time
import weakref
from enum import Enum
from functools import partial
from typing import Protocol

from jobqueue.loggers import get_logger
from jobqueue.store import fork_safety

log = get_logger("jobqueue.store")

NOTIFY_INTERVAL = 0.005  # seconds between two notifications
QUIET_AFTER = 0.02  # seconds without an enqueue
SLOW_COMMIT = 0.005  # seconds
SLOW_COMMIT_PAUSE = 1.0  # seconds without a notification in an enqueue's transaction


class Wakeup(Enum):
    """What ended a wait for wake-ups."""

    NOTHING = 0
    COMMIT = 1
    """Some connection has committed a write."""
    NOTIFIED = 2
    """A notification: jobs have been made available."""


class Subscription(Protocol):
    """Receives wake-ups for one worker. Used by one thread."""

    @property
    def address(self) -> str | None:
        """The address to which an enqueue on this host sends its wake-up, if one is needed."""

    @property
    def must_poll(self) -> bool:
        """Return whether wake-ups are known not to arrive, so that the worker must poll."""

    def wait(self, timeout: float) -> Wakeup:
        """Wait up to `timeout` seconds for a wake-up; return which one came."""

    def wake(self) -> None:
        """End a `wait()` early; may be called from any thread."""

    def close(self) -> None:
        """Stop listening."""


class NotificationSender(Protocol):
    """Sends wake-ups to the workers of one database."""

    def notify(self) -> float | None:
        """Send one wake-up to each sleeping worker.

        Return the seconds for which another one would reach nobody, if that is known.
        """

    def close(self) -> None:
        """Close what sending needs, but for the store's connections."""
        return

    def after_fork_in_child(self) -> None:
        """Leave the parent's socket to the parent; called in a forked child."""
        return


class Notifier:
    """Notifies workers after commits from its own thread, at most once per NOTIFY_INTERVAL.

    NOTIFY inside the enqueueing transaction was measured to halve concurrent enqueues: it holds a
    server-wide lock through the commit. It is therefore sent afterwards, from a thread. Only an
    enqueue after a pause carries it, if the database can (`Backend.notifying_insertion`).
    """

    def __init__(self, sender: NotificationSender) -> None:
        self._sender = sender
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._quiet_from = -math.inf
        """The instant of `time.monotonic()` from which an enqueue may carry a notification."""
        self._thread: threading.Thread | None = None
        self._at_exit = partial(_close, weakref.ref(self))
        self._start = threading.Lock()
        fork_safety.register(self)

    def is_quiet(self) -> bool:
        """Return whether no job was enqueued for a while, so that the next may notify by itself.

        That saves a thread switch and a round trip on the way to an idle worker (decision 0039).
        """
        present = time.monotonic()
        quiet = present >= self._quiet_from
        self._quiet_from = max(self._quiet_from, present + QUIET_AFTER)
        return quiet

    def was_carried(self, seconds: float) -> None:
        """Note the duration of an enqueue that carried its notification.

        If it was slow, others wait for the server's lock: send from the thread for a while.
        """
        if seconds >= SLOW_COMMIT:
            self._quiet_from = time.monotonic() + SLOW_COMMIT_PAUSE

    def notify(self) -> None:
        """Request a notification and return at once. Requests within one interval become one."""
        if not self._wanted.is_set():  # It is cleared before what it stands for is sent.
            self._wanted.set()
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        with self._start:
            if self._thread is not None:
                return
            thread = threading.Thread(
                target=self._run, args=(self._closed,), name="jobqueue-notifier", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # Python 3.12 starts none once the program ends.
                log.debug("could not wake the workers: %s", error)
                return
            self._thread = thread
            atexit.register(self._at_exit)

    def _run(self, closed: threading.Event) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            unheard = None
            try:
                with fork_safety.gate:
                    unheard = self._sender.notify()
            except Exception as error:  # noqa: BLE001 - a hint that is lost costs one poll interval.
                log.debug("could not wake the workers: %s", error)
            # A thread that wakes up 200 times a second costs enqueues 10 % (decision 0040).
            if closed.wait(unheard or NOTIFY_INTERVAL) and not self._wanted.is_set():
                return

    def close(self) -> None:
        """Send the notification that is still requested, and stop the thread.

        May be used again: the next request starts another thread.
        """
        with self._start:
            thread, self._thread = self._thread, None
            closed, self._closed = self._closed, threading.Event()
        if thread is not None:
            closed.set()
            self._wanted.set()
            thread.join(2.0)
            atexit.unregister(self._at_exit)
        self._sender.close()

    def after_fork_in_child(self) -> None:
        """Forget the thread, which a forked child does not have."""
        self._thread = None
        self._start = threading.Lock()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._sender.after_fork_in_child()


def _close(reference: weakref.ref[Notifier]) -> None:
    notifier = reference()
    if notifier is not None:
        notifier.close()
