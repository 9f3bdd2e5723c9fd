"""Telling sleeping workers that there is work. A hint: polling finds it anyway, a little later."""

import atexit
import threading
import weakref
from enum import Enum
from typing import Protocol

from jobqueue.loggers import get_logger
from jobqueue.store import fork_safety

log = get_logger("jobqueue.store")

PAUSE = 0.005  # seconds between two rings


class Heard(Enum):
    """What a listener can tell."""

    NOTHING = 0
    CHANGE = 1
    """Something was written, by whomever."""
    RING = 2
    """Somebody has made jobs available."""


class Listener(Protocol):
    """A worker's ear. Used by one thread."""

    @property
    def address(self) -> str | None:
        """Where an enqueue on this host may ring, if that needs an address."""
        ...

    @property
    def deaf(self) -> bool:
        """True once it is known that nothing can be heard, so that polling has to do."""
        ...

    def wait(self, timeout: float) -> Heard:
        """Wait up to `timeout` seconds for something to be heard."""
        ...

    def wake(self) -> None:
        """End a `wait()` early; may be called from any thread."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class Ringer(Protocol):
    """How one database's workers are told."""

    def ring(self) -> None:
        """Tell them once."""
        ...

    def close(self) -> None:
        """Let go of what ringing needs."""
        ...

    def forget(self) -> None:
        """In a forked child: leave what ringing needs to the parent."""
        ...


class Bell:
    """Rings after a commit, at most once per `PAUSE`, never for the caller's time.

    NOTIFY inside the enqueueing transaction was measured to halve concurrent enqueues: it takes a
    lock over the whole server through the commit. So it goes out afterwards, from a thread.
    """

    def __init__(self, ringer: Ringer) -> None:
        self._ringer = ringer
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._ringing = fork_safety.guard()
        fork_safety.watch(self)

    def ring(self) -> None:
        """Ask for a ring; returns at once. Many requests become one."""
        self._wanted.set()
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        with self._start:
            if self._thread is not None or self._closed.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="jobqueue-bell", daemon=True)
            self._thread.start()
            atexit.register(_close, weakref.ref(self))

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                with self._ringing:
                    self._ringer.ring()
            except Exception as error:  # noqa: BLE001 - a hint that is lost costs one poll interval.
                log.debug("could not wake the workers: %s", error)
            if self._closed.wait(PAUSE) and not self._wanted.is_set():
                return

    def close(self) -> None:
        """Send what is still to be sent, and stop."""
        self._closed.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(2.0)
        self._ringer.close()

    def forget(self) -> None:
        """In a forked child: the thread stayed with the parent."""
        self._thread = None
        self._start = threading.Lock()
        self._ringing = fork_safety.guard()
        self._wanted = threading.Event()
        self._ringer.forget()


def _close(reference: weakref.ref[Bell]) -> None:
    bell = reference()
    if bell is not None:
        bell.close()
