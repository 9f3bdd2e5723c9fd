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
import threading
from types import FrameType
from typing import Any, Self

from jobqueue.loggers import get_logger
from jobqueue.worker import forked
from jobqueue.worker.leash import Leash
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.worker")

STOPS = (signal.SIGTERM, signal.SIGINT)

END_WITHIN = 10.0
"""Seconds from the end of a worker that was told to stop to the end of its process."""

LAST_SECOND = 0.8
"""Seconds from a second signal to the end of the process, whatever still runs."""

TOLD = 128
"""A byte of this much and a level is word from the supervisor; no signal has such a number."""


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
        forked.watch(self._forked, *self._numbers)
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
        forked.forget(self._forked)
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


class StopSignals(ReadableSignals):
    """Stops a worker: at the first signal in order, at the second at once.

    `level` is how often it was asked, by signals or by its supervisor; each of them alone counts,
    since a service manager may send its signal to both.
    """

    def __init__(self, worker: Worker, leash: Leash | None = None) -> None:
        super().__init__(*STOPS)
        self._worker = worker
        self._leash = leash
        self._signals = 0
        self.level = 0
        self.first: str | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        threading.Thread(target=self._listen, name="jobqueue-signals", daemon=True).start()
        if self._leash is not None:
            self._leash.listen(self._told)
        return self

    def __exit__(self, *_: object) -> None:
        if self.to_the_end:
            if self.first is not None:
                threading.Thread(target=_end_soon, name="jobqueue-end", daemon=True).start()
        elif self._leash is not None:
            self._leash.listen(lambda _level: None)
        super().__exit__()

    def _told(self, level: int) -> None:
        """Let the listening thread do what has to be done."""
        with contextlib.suppress(OSError):
            self.mouth.send(bytes([TOLD + min(level, 2)]))

    def _listen(self) -> None:
        with self.ear:
            while heard := self.ear.recv(1):
                number = heard[0]
                if number > TOLD:
                    self._reach(number - TOLD, "the supervisor")
                elif number in STOPS and not (self._leash is not None and self._leash.excuses()):
                    self._signals += 1
                    self._reach(self._signals, signal.Signals(number).name)

    def _reach(self, level: int, why: str) -> None:
        if level <= self.level:
            return
        self.first = self.first or why
        self.level = level
        self._worker.request_stop()
        if level > 1:
            self._worker.abort()
            threading.Event().wait(LAST_SECOND)
            leave(1)


class StopRaises:
    """Makes the first stop a KeyboardInterrupt: while an app is imported, nothing has begun."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        forked.watch(self._give_back)
        for number in STOPS:
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        forked.forget(self._give_back)
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


def _end_soon() -> None:
    """Bound the end of the interpreter, which waits for what handlers have left behind."""
    threading.Event().wait(END_WITHIN)
    log.error("a thread or a process that a handler has left behind keeps this one from ending")
    leave(1)


def leave(code: int) -> None:
    """End the process although threads still run."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _heard(_number: int, _frame: FrameType | None) -> None:
    """Nothing: the ear has been told."""
