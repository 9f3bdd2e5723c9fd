"""One worker process as its supervisor sees it: started, stopped, and started again."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from jobqueue.os_signals import LAST_SECOND, STOPS, signal_name
from jobqueue.supervisor import channel

BACKOFF_FIRST = 0.2  # seconds before the first restart; doubled for each further one
BACKOFF_MAX = 30.0
HEALTHY_AFTER = 60.0
"""Seconds at work after which a process counts as healthy: its next exit is a first one again."""

ABORT_TIMEOUT = LAST_SECOND + 2.0
"""Seconds from a second stop request to SIGKILL."""

MESSAGE_BYTES_MAX = 1 << 16


def spawn(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: Any = None,
    stderr: Any = None,
) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Start `jobqueue worker`; returns the process and the supervisor's end of its channel."""
    path = environment.get("PYTHONPATH")
    with contextlib.ExitStack() as made:  # Closes both ends if the process cannot be started.
        own, childs = map(made.enter_context, socket.socketpair())
        own.setblocking(False)
        process = subprocess.Popen(  # noqa: S603 - our own program.
            # -P: a folder here that has this package's name is not meant.
            [sys.executable, "-P", "-m", "jobqueue", "worker", *arguments],
            # The worker runs the same code as this process; its handlers' programs do not.
            env={
                **environment,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                channel.VARIABLE: channel.hand_over(childs, path),
            },
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[childs.fileno()],
            # A group of its own, so that only the supervisor receives a Ctrl-C; the same session,
            # so that the kernel continues a stopped worker when the supervisor is gone.
            process_group=0,
        )
        made.pop_all()
    childs.close()
    return process, own


@dataclass(frozen=True)
class SupervisorConfig:
    """What to start: the arguments of worker 1 … count; and how long a stop may take."""

    arguments: Callable[[int], Sequence[str]]
    count: int
    shutdown_timeout: float
    environment: Mapping[str, str]
    quiet: bool = False
    """Send what handlers print to stderr: stdout is for the summary."""


class ProcessState(Enum):
    """Where a worker process is in its life."""

    DUE = auto()
    """To be started at `start_at`."""
    RUNNING = auto()
    RELOADING = auto()
    """Stopping because a file has changed; another process follows."""
    ENDED = auto()
    """Exited for good, with `exit_code`."""


class WorkerProcess:
    """One of the processes, and after its exit the one in its place."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = ProcessState.DUE
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.start_at = 0.0
        self.kill_at: float | None = None
        """When a process that was asked to stop is killed."""
        self.started_work_at: float | None = None
        self.exits = 0
        """Exits in a row that were not asked for."""
        self.exit_code = 0
        self.summary: dict[str, Any] | None = None
        """What the worker reported when it ended in order."""
        self.outgrown = False
        """True if the worker ended because of its memory."""
        self._unread = b""

    # Transitions

    def start(self, config: SupervisorConfig) -> None:
        """Start a process. Raises OSError where the system has none left."""
        self.kill_at = self.started_work_at = None
        self.summary, self.outgrown, self._unread = None, False, b""
        self.process, self.channel = spawn(
            config.arguments(self.number),
            config.environment,
            stdout=sys.stderr.fileno() if config.quiet else None,
        )
        self.state = ProcessState.RUNNING

    def stop(self, requests: int, timeout: float) -> None:
        """Request a stop, once: in order, twice: at once; after `timeout` seconds kill it."""
        assert self.channel is not None
        self.kill_at = time.monotonic() + timeout
        with contextlib.suppress(OSError):
            self.channel.send(channel.STOP * requests)

    def reload(self) -> None:
        """Restart the process now; its running jobs are released."""
        if self.process is not None:
            self.state = ProcessState.RELOADING
            self.stop(2, ABORT_TIMEOUT)
        elif self.state is ProcessState.DUE or self.exit_code:
            self.restart()

    def restart(self) -> None:
        """Be due now, as if no process had exited before."""
        self.state, self.start_at, self.exit_code, self.exits = ProcessState.DUE, 0.0, 0, 0

    def retry(self) -> float:
        """Be due after a pause that grows with the exits in a row; returns its seconds."""
        worked = 0.0
        if self.started_work_at is not None:
            worked = time.monotonic() - self.started_work_at
        healthy = worked >= HEALTHY_AFTER
        self.exits = 1 if healthy else self.exits + 1
        delay = 0.0 if self.outgrown and healthy else backoff(self.exits)
        self.state, self.start_at = ProcessState.DUE, time.monotonic() + delay
        return delay

    def end(self, exit_code: int) -> None:
        """Have no process any more."""
        self.state, self.exit_code = ProcessState.ENDED, exit_code

    def collect(self) -> int:
        """Take in what a process that has exited said last; returns its process id."""
        assert self.process is not None
        assert self.channel is not None
        while self.receive():
            pass
        self.channel.close()
        pid, self.process, self.channel = self.process.pid, None, None
        return pid

    # What is known of it

    def receive(self) -> bool:
        """Take in messages; False when there is none now, or none any more."""
        assert self.channel is not None
        try:
            received = self.channel.recv(MESSAGE_BYTES_MAX)
        except OSError:
            return False
        *lines, self._unread = (self._unread + received)[-MESSAGE_BYTES_MAX:].split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self._handle_message(json.loads(line))
        return received != b""

    def _handle_message(self, message: dict[str, Any]) -> None:
        if "began" in message:
            self.started_work_at = time.monotonic()
        if "ended" in message:
            self.summary = message["ended"]
            self.outgrown = bool(message.get("grown"))

    def ended_by_itself(self, code: int) -> bool:
        """True for an exit in order: a handler may have called os._exit(0)."""
        return code == 0 and (self.started_work_at is None or self.summary is not None)

    def stopped_in_order(self, code: int) -> bool:
        """True for an exit in order after a stop, which may come before the worker is at work."""
        loading = self.started_work_at is None
        return self.ended_by_itself(code) or (loading and -code in STOPS)

    def describe_exit(self, code: int) -> str:
        """How it ended, for the log."""
        if code < 0:
            return f"died by {signal_name(-code)}"
        if self.outgrown:
            return "ended because of its memory"
        early = "" if self.started_work_at else " before it was at work"
        return f"ended with exit code {code}{early}"


def backoff(exits: int) -> float:
    """Seconds to a restart after that many exits in a row, with jitter: not all at one time."""
    most: float = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(exits - 1, 16))
    return most * random.uniform(0.75, 1.0)  # noqa: S311 - jitter is not a secret.
