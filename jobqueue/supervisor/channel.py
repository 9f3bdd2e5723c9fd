"""The leash: ties a worker process to the process that started it, in both directions.

It is one end of a socket pair that only the two of them hold. Over it the supervisor says "stop",
and the worker how it fares; when the supervisor is gone, however it went, the kernel closes its
end, and the worker stops as after a first SIGTERM.
"""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from jobqueue.errors import ConfigurationError

VARIABLE = "JOBQUEUE_LEASH"
"""The environment variable that hands the leash over."""

STOP = b"!"
"""One asks for a stop in order, a second one for a stop at once."""


def hand_over(end: socket.socket, python_path: str | None) -> str:
    """The variable's value for a child that inherits this end of the pair.

    `python_path` is the PYTHONPATH that the child's own children are to see.
    """
    return json.dumps({"fd": end.fileno(), "path": python_path})


class Leash:
    """The worker's end. May be used from any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._level = 0
        self._lock = threading.Lock()
        self._listener: Callable[[int], None] = _end_loading

    @staticmethod
    def from_environment() -> "Leash | None":
        """Take up the leash that this process was started with, if there is one."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            given = json.loads(text)
            leash = Leash(socket.socket(fileno=given["fd"]))
            path = given["path"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"${VARIABLE} is set by `jobqueue worker --processes` only; unset it ({error})",
                field=VARIABLE,
            ) from None
        if path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = path
        leash.hold()
        return leash

    def hold(self) -> None:
        """Begin to listen; from now on the end of the supervisor is the end of this process."""
        self._end.set_inheritable(False)  # Noise for what handlers start, and a leash that lasts.
        threading.Thread(target=self._watch, name="jobqueue-leash", daemon=True).start()

    def listen(self, listener: Callable[[int], None]) -> None:
        """Call `listener(level)` at once if a stop was asked for, and whenever one is.

        Level 1: in order. Level 2: at once.
        """
        with self._lock:
            self._listener = listener
            if self._level:
                listener(self._level)

    def say(self, **news: Any) -> None:
        """Tell the supervisor something; if it is gone, nobody."""
        with contextlib.suppress(OSError):
            self._end.sendall(json.dumps(news).encode() + b"\n")

    def _watch(self) -> None:
        try:
            while told := self._end.recv(16):
                self._raise_to(self._level + told.count(STOP))
        except OSError:
            pass
        self._raise_to(1)

    def _raise_to(self, level: int) -> None:
        with self._lock:
            if level > self._level:
                self._level = level
                self._listener(level)


def _end_loading(_level: int) -> None:
    """Before there is a worker, nothing has begun: the command ends as after a SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)
