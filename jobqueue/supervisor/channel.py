"""The control channel between a supervisor and a worker process: one end of a socket pair each.

The supervisor sends stop requests, the worker reports when it starts and ends. When the supervisor
exits, however it does, the kernel closes its end, and the worker stops as after a first SIGTERM.
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

VARIABLE = "JOBQUEUE_CONTROL"
"""The environment variable that hands the worker's end over."""

STOP = b"!"
"""The first one requests a stop in order, the second one a stop at once."""


def hand_over(end: socket.socket, python_path: str | None) -> str:
    """Return the variable's value for a child that inherits this end of the pair.

    `python_path` is the PYTHONPATH for the child's own children.
    """
    return json.dumps({"fd": end.fileno(), "path": python_path})


class ControlChannel:
    """The worker's end. May be used from any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._level = 0
        self._lock = threading.Lock()
        self._on_stop: Callable[[int], None] = _end_loading

    @staticmethod
    def from_environment() -> "ControlChannel | None":
        """Return the channel that this process was started with, or None. Starts to receive."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            given = json.loads(text)
            channel = ControlChannel(socket.socket(fileno=given["fd"]))
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
        channel._end.set_inheritable(False)  # Programs that handlers start must not hold it open.
        threading.Thread(target=channel._receive, name="jobqueue-control", daemon=True).start()
        return channel

    def listen(self, on_stop: Callable[[int], None]) -> None:
        """Call `on_stop(level)` for a stop that was requested, and for each that will be.

        Level 1: in order. Level 2: at once.
        """
        with self._lock:
            self._on_stop = on_stop
            if self._level:
                on_stop(self._level)

    def send(self, **message: Any) -> None:
        """Send a message to the supervisor; does nothing when it is gone."""
        with contextlib.suppress(OSError):
            self._end.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while received := self._end.recv(16):
                self._raise_to(self._level + received.count(STOP))
        self._raise_to(1)

    def _raise_to(self, level: int) -> None:
        with self._lock:
            if level > self._level:
                self._level = level
                self._on_stop(level)


def _end_loading(_level: int) -> None:
    """Before there is a worker, no job has started: the command ends as after a SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)
