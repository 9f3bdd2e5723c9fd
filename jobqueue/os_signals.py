"""Signals of the operating system, received through a self-pipe or by a handler.

A handler in the main thread may interrupt it while it takes the very lock that the handler needs,
and runs only once the main thread does. The self-pipe, the interpreter's wake-up descriptor, has
neither limit: a thread or a selector reads it, also while the main thread waits for the database.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Self

from jobqueue import fork_guard
from jobqueue.loggers import get_logger

log = get_logger("jobqueue.worker")

STOPS = (signal.SIGTERM, signal.SIGINT)

LAST_SECOND = 0.8
"""Seconds from a second signal to the exit of the process, whatever still runs."""
SAME_REQUEST = 0.1
"""Seconds in which the same signal again is the same request to stop."""
EXIT_TIMEOUT = 10.0
"""Seconds from the end of a stopped worker to the exit of its process."""


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


class StopRequests:
    """Tells requests to stop apart: `timeout` signals its child, and then the child's group."""

    def __init__(self) -> None:
        self._number, self._at = 0, 0.0

    def is_new(self, number: int) -> bool:
        """Return False for the same signal again within `SAME_REQUEST`."""
        now = time.monotonic()
        if number == self._number and now - self._at < SAME_REQUEST:
            return False
        self._number, self._at = number, now
        return True


class StopSignals:
    """Calls `on_first` at the first SIGTERM or SIGINT, and `on_second` at the second.

    Both run on a thread of their own, since the main thread may wait in C code. With `may_raise`
    they run in the main thread instead, and what they raise interrupts it.
    """

    def __init__(
        self,
        on_first: Callable[[], object],
        on_second: Callable[[], object] = lambda: None,
        *,
        may_raise: bool = False,
        numbers: Sequence[signal.Signals] = STOPS,
    ) -> None:
        self._on_first = on_first
        self._on_second = on_second
        self._signals: SignalHandlers
        self._signals = SignalHandlers(self._count, *numbers) if may_raise else SignalPipe(*numbers)
        self._requests, self._received = StopRequests(), 0
        self._lock = threading.RLock()  # A handler may interrupt another one.
        self.level = 0
        """How often a stop was requested: 0, 1 or 2."""
        self.first: str | None = None
        """Who requested the first one: the signal's name, or the sender given to `request`."""

    def __enter__(self) -> Self:
        self._signals.__enter__()
        if isinstance(self._signals, SignalPipe):
            threading.Thread(target=self._listen, name="jobqueue-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        stopped = self._signals.to_the_end and self.level > 0
        if not isinstance(self._signals, SignalPipe):
            if not stopped:
                self._signals.__exit__()
            return
        if stopped:
            threading.Thread(target=_exit_in_time, name="jobqueue-exit", daemon=True).start()
        self._signals.__exit__()

    def request(self, level: int, sender: str) -> None:
        """Stop as after `level` signals.

        Levels of several senders do not add up: a service manager may signal both a supervisor and
        its workers.
        """
        with self._lock:
            self.first = self.first or sender
            while self.level < level:
                self.level += 1
                (self._on_first if self.level == 1 else self._on_second)()

    def defer(self) -> None:
        """From now on only count: the callbacks are left to a StopSignals within this one."""
        self._on_first = self._on_second = lambda: None

    def _listen(self) -> None:
        assert isinstance(self._signals, SignalPipe)
        with self._signals.reader as reader:
            while byte := reader.recv(1):
                if byte[0] in STOPS:
                    self._count(byte[0])

    def _count(self, number: int) -> None:
        self._received += self._requests.is_new(number)
        self.request(min(self._received, 2), signal_name(number))


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


def _exit_in_time() -> None:
    """Bound the end of the interpreter, which waits for what handlers have left behind."""
    threading.Event().wait(EXIT_TIMEOUT)
    log.error("a thread or a process that a handler has left behind keeps this one from ending")
    leave(1)
