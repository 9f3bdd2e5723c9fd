"""Signals: received through the interpreter's wake-up descriptor (a self-pipe), or by a handler.

A handler in the main thread may interrupt it while it takes the very lock that the handler needs,
and runs only once the main thread does. The self-pipe has neither limit: a thread or a selector
reads it, also while the main thread waits for the database.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from jobqueue import fork_guard

STOPS = (signal.SIGTERM, signal.SIGINT)

LAST_SECOND = 0.8
"""Seconds from a second signal to the exit of the process, whatever still runs."""


class SignalHandlers:
    """Calls `handle(number)` in the main thread at some signals; a forked child does not."""

    to_the_end = False
    """True in a program that exits after its command: see `handle_to_the_end()`."""

    def __init__(self, handle: Callable[[int], None], *numbers: signal.Signals) -> None:
        self._handle = handle
        self._numbers = numbers
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        fork_guard.watch(self._forked, *self._numbers)
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        fork_guard.forget(self._forked)
        self._restore()

    def _received(self, number: int, _frame: FrameType | None) -> None:
        self._handle(number)

    def _restore(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._received:  # Else somebody has set another one.
                # None: no Python code had set it, and no Python code can set it again.
                signal.signal(number, signal.SIG_DFL if before is None else before)

    def _forked(self) -> None:
        self._restore()


class SignalPipe(SignalHandlers):
    """Makes signals readable: each one is a byte, its number, on `reader`."""

    def __init__(self, *numbers: signal.Signals) -> None:
        super().__init__(lambda _number: None, *numbers)  # The interpreter has written the byte.

    def __enter__(self) -> Self:
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        fork_guard.watch(self._forked, *self._numbers)
        self._descriptor = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        if not self.to_the_end:
            super().__exit__()
            signal.set_wakeup_fd(self._descriptor)
            self.writer.close()

    def close_reader(self) -> None:
        """Close the end that is read; not while signals go on: each would be reported as lost."""
        if not self.to_the_end:
            self.reader.close()

    def _forked(self) -> None:
        signal.set_wakeup_fd(-1)
        super()._forked()
        self.reader.close()
        self.writer.close()


def signal_name(number: int) -> str:
    """Return `SIGKILL`, or `signal 34` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def handle_to_the_end() -> None:
    """For a program that exits after its command: handle signals until the process is gone.

    The interpreter takes some time to exit, and a signal during it would kill the process.
    Call it early: what is registered first with `atexit` runs last.
    """
    SignalHandlers.to_the_end = True
    atexit.register(_ignore)


def _ignore() -> None:
    # The interpreter restores the default at its very end, but leaves what is ignored.
    for number in STOPS:
        if isinstance(getattr(signal.getsignal(number), "__self__", None), SignalHandlers):
            signal.signal(number, signal.SIG_IGN)


def leave(code: int, *, after: float = 0.0) -> None:
    """Exit the process in `after` seconds although threads still run."""
    threading.Event().wait(after)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
