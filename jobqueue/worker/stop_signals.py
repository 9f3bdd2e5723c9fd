"""Signals that stop a worker: at the first one in order, at the second at once."""

import contextlib
import signal
import threading
from typing import Self

from jobqueue.loggers import get_logger
from jobqueue.supervisor.channel import Leash
from jobqueue.supervisor.signals import LAST_SECOND, STOPS, ReadableSignals, leave
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.worker")

END_WITHIN = 10.0
"""Seconds from the end of a worker that was told to stop to the end of its process."""

TOLD = 128
"""A byte of this much and a level is word from the supervisor; no signal has such a number."""


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


def _end_soon() -> None:
    """Bound the end of the interpreter, which waits for what handlers have left behind."""
    threading.Event().wait(END_WITHIN)
    log.error("a thread or a process that a handler has left behind keeps this one from ending")
    leave(1)
