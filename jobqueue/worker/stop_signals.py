"""Signals that stop a program: at the first one in order, at the second at once."""

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Self

from jobqueue.loggers import get_logger
from jobqueue.supervisor.signals import STOPS, SignalHandlers, SignalPipe, leave, signal_name

log = get_logger("jobqueue.worker")

EXIT_TIMEOUT = 10.0
"""Seconds from the end of a stopped worker to the exit of its process."""


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
        self._received = 0
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
        self._received += 1
        self.request(min(self._received, 2), signal_name(number))


def _exit_in_time() -> None:
    """Bound the end of the interpreter, which waits for what handlers have left behind."""
    threading.Event().wait(EXIT_TIMEOUT)
    log.error("a thread or a process that a handler has left behind keeps this one from ending")
    leave(1)
