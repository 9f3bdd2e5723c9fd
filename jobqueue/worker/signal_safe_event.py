"""An event that a signal handler may set: `threading.Event` is not safe there.

A handler runs in the main thread, between two of its instructions. If the main thread holds the
lock of a threading.Event there, `set()` in the handler deadlocks. A handler also runs only when the
main thread does: a signal that the kernel gives to another thread does not end a wait without
timeout in the main thread.
"""

import time
from contextlib import suppress
from queue import Empty, SimpleQueue

WAIT_SLICE = 0.25  # seconds per wait, so that the main thread can run signal handlers


class SignalSafeEvent:
    """Like `threading.Event`, without `clear()`. May be used from any thread and signal handler."""

    def __init__(self) -> None:
        self._is_set = False
        self._wakes: SimpleQueue[None] = SimpleQueue()  # put() is reentrant.

    def set(self) -> None:
        """Make every `wait()` return."""
        self._is_set = True
        self._wakes.put(None)

    def is_set(self) -> bool:
        """True once the event was set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set; False if `timeout` seconds pass first."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            rest = WAIT_SLICE if until is None else min(WAIT_SLICE, until - time.monotonic())
            if rest <= 0:
                return self._is_set
            with suppress(Empty):
                self._wakes.get(timeout=rest)
                self._wakes.put(None)  # For other waiting threads.
        return True
