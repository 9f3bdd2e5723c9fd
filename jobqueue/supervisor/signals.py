"""Signals: heard through the interpreter's wake-up descriptor, on a thread or by a selector.

A handler in the main thread may interrupt it in the midst of taking the very lock that the handler
needs; the descriptor has no such trouble, and is also heard while the main thread waits for the
database.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any, Self

from jobqueue import fork_guard

STOPS = (signal.SIGTERM, signal.SIGINT)

LAST_SECOND = 0.8
"""Seconds from a second signal to the end of the process, whatever still runs."""


class ReadableSignals:
    """Makes signals readable: each one is a byte, its number, on `ear`.

    A forked child has the handlers from before, and no ear.
    """

    to_the_end = False
    """True in a program that ends with its command: see `hear_to_the_end()`."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.ear, self.mouth = socket.socketpair()
        self.mouth.setblocking(False)
        fork_guard.watch(self._forked, *self._numbers)
        self._descriptor = signal.set_wakeup_fd(self.mouth.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, _heard)
        return self

    def __exit__(self, *_: object) -> None:
        if self.to_the_end:
            if self.ear.fileno() < 0:
                signal.set_wakeup_fd(-1)  # Nobody listens any more, and nothing is to be done.
            return
        self._give_back()
        signal.set_wakeup_fd(self._descriptor)
        fork_guard.forget(self._forked)
        self.mouth.close()

    def _give_back(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) is _heard:  # Else it is somebody else's by now.
                # None: it was set by no Python code, and nobody can set it again.
                signal.signal(number, signal.SIG_DFL if before is None else before)

    def _forked(self) -> None:
        signal.set_wakeup_fd(-1)
        self._give_back()
        self.ear.close()
        self.mouth.close()


class StopRaises:
    """Makes the first stop a KeyboardInterrupt: while an app is imported, nothing has begun."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        fork_guard.watch(self._give_back)
        for number in STOPS:
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        fork_guard.forget(self._give_back)
        self._give_back()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if ReadableSignals.to_the_end:
            for number in STOPS:
                signal.signal(number, _heard)  # Another one changes nothing.
        raise KeyboardInterrupt

    def _give_back(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._interrupt:
                signal.signal(number, signal.SIG_DFL if before is None else before)


def hear_to_the_end() -> None:
    """For a program that ends when its command has: signals are heard until its process is gone.

    The interpreter takes some time to end, and a signal in it would end the process in its way.
    Call it early: what is registered first with `atexit` runs last.
    """
    ReadableSignals.to_the_end = True
    atexit.register(_ignore)


def _ignore() -> None:
    # The interpreter puts back the default at its very end, but leaves what is ignored.
    for number in STOPS:
        if signal.getsignal(number) is _heard:
            signal.signal(number, signal.SIG_IGN)


def leave(code: int) -> None:
    """End the process although threads still run."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _heard(_number: int, _frame: FrameType | None) -> None:
    """Nothing: the ear has been told."""
