"""An event that a signal handler may set: `threading.Event` is not safe there.

A handler runs in the main thread, between two of its instructions, which may be those in which it
holds the very lock that an event's `set()` needs. And it only runs once the main thread does: a
signal that the kernel gives to another thread wakes nobody who waits without end in the main one.
"""

import time
from contextlib import suppress
from queue import Empty, SimpleQueue

WAIT_SLICE = 0.25  # seconds per wait, so that the main thread can run signal handlers


class SignalSafeEvent:
    """Like `threading.Event`, without `clear()`. May be used from any thread and signal handler."""

    def __init__(self) -> None:
        self._is_set = False
        self._wakes: SimpleQueue[None] = SimpleQueue()  # Made to be put to from anywhere.

    def set(self) -> None:
        """Make every `wait()` return."""
        self._is_set = True
        self._wakes.put(None)

    def is_set(self) -> bool:
        """True once it was set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False if it was not within `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            rest = WAIT_SLICE if until is None else min(WAIT_SLICE, until - time.monotonic())
            if rest <= 0:
                return self._is_set
            with suppress(Empty):
                self._wakes.get(timeout=rest)
                self._wakes.put(None)  # For others that wait.
        return True
