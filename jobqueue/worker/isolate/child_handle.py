"""The worker's side of a child process, which runs one job at a time and can be killed.

A thread of the pool sends a job and waits for its outcome, for its deadline, for a request to stop
and for the exit of the child, whichever comes first.
"""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from msgspec.structs import asdict, replace

from jobqueue.os_signals import signal_name
from jobqueue.records import AttemptError, Outcome, Succeeded, Unsuccessful, format_bytes
from jobqueue.states import OutcomeKind, State
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.inflight import Unbegun
from jobqueue.worker.isolate.importing import TaskRef
from jobqueue.worker.isolate.message_socket import MessageSocket
from jobqueue.worker.isolate.remote_attempt import RemoteAttempt
from jobqueue.worker.log_context import log
from jobqueue.worker.orphan_guard import orphan_guard
from jobqueue.worker.process_identity import peak_memory

POLL_INTERVAL = 0.5  # seconds between two checks of the child's memory, and whether it lives
SIGTERM_DELAY = 0.25  # seconds from a request to stop to SIGTERM: for handlers that check it
SIGKILL_DELAY = 0.5  # seconds from SIGTERM to SIGKILL
START_TIMEOUT = 60.0  # seconds for a child to import the program
ADMISSION_POLL_INTERVAL = 0.1  # seconds between two checks whether a job may start at last
_ESCALATION = ((signal.SIGTERM, SIGTERM_DELAY), (signal.SIGKILL, SIGTERM_DELAY + SIGKILL_DELAY))
_CODE = (
    "import gc, json, signal, sys; gc.disable(); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}); "
    "sys.path[:] = json.loads(sys.argv.pop()); "
    "from jobqueue.worker.isolate.child_main import main; gc.freeze(); gc.enable(); main()"
)
"""What a child's interpreter runs. What it imports stays: the garbage collector never looks at it,
which is a quarter of the time from the start to the first job, and of the exit."""


class ChildExit(NamedTuple):
    """The exit of a child that sent no outcome."""

    exit_code: int  # minus the number of the signal, if it was one
    peak_memory: int | None
    late: bool  # it was killed because the time of its job was up
    begun: bool  # the handler had been entered, or was about to be

    @property
    def signal(self) -> str | None:
        """The signal's name; None for an exit."""
        return signal_name(-self.exit_code) if self.exit_code < 0 else None

    def __str__(self) -> str:
        how = self.signal or f"exit code {self.exit_code}"
        peak = "" if self.peak_memory is None else f", peak {format_bytes(self.peak_memory)}"
        return f"{how}{peak}" + ("" if self.begun else ", before the handler began")


Answer = Outcome | ChildExit | AttemptError
"""An error: the child could not import the program, or not find the task in it."""


class ChildHandle:
    """One child and the socket to it. Used by the thread that made it; `kill()` by any thread."""

    def __init__(self, handshake: dict[str, Any]) -> None:
        with contextlib.ExitStack() as made:  # If one step fails, all are undone.
            self._wake_reader, self._wake_writer = map(made.enter_context, socket.socketpair())
            ours, theirs = map(made.enter_context, socket.socketpair())
            self._process = _start(theirs.fileno())
            made.pop_all()
        theirs.close()
        self.pid = self._process.pid
        with contextlib.suppress(OSError):  # Tried again with the next process group.
            orphan_guard.watch(f"child {self.pid}", self.pid)
        self._messages = MessageSocket(ours, self._wake_reader)
        self._wake_writer.setblocking(False)
        self.idle_since = math.inf
        self.signalled = 0
        """The last signal that was sent to the child; 0: none."""
        self._escalated = 0
        self._begun = False
        """True once the child got `begin` for its current job."""
        self.busy = threading.Lock()
        self.reaped = False
        self._reaping = threading.Lock()
        # The kernel starts the peak of a process at that of its parent.
        self._known_peak = peak_memory() or 0
        self._peak = 0
        """The peak of its memory during the last job, in bytes; 0 if unknown."""
        self._checked_at = -math.inf
        self._messages.send(handshake=handshake)

    @property
    def alive(self) -> bool:
        """True until the child has exited, whether or not it was reaped."""
        if self.reaped:
            return False
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, options) is None
        return False

    def call(self, context: RemoteAttempt, ref: TaskRef) -> Answer | Unbegun:
        """Run a job in the child once it may begin, and wait for its end."""
        self._known_peak, self._peak = max(self._known_peak, self._peak), 0
        self._begun = False
        context.wake = self._wake
        try:
            return self._make_ready(context, ref) or self._await_outcome(context)
        except Exception as error:
            late = self.signalled != 0 and (
                not self._begun or _late_at(context) < context.stop_requested_at
            )
            if not isinstance(error, EOFError | OSError):
                # The stream of messages is out of step.
                log.exception("child process %d sent an invalid message; killing it", self.pid)
                self.kill()
            return ChildExit(self._wait_or_kill(), self._peak or None, late, self._begun)
        finally:
            context.wake = None

    def _make_ready(self, context: RemoteAttempt, ref: TaskRef) -> Answer | Unbegun | None:
        """Let the child import the task, then start the job if it still may; None: it started."""
        claim = {name: _plain(value) for name, value in asdict(context.claim).items()}
        self._messages.send(run={"claim": claim, "task": ref})
        start_by, ready = time.monotonic() + START_TIMEOUT, False
        while (refusal := context.refusal()) is None:
            if ready and context.begin():
                budget = context.budget()
                self._messages.send(begin={"budget": None if budget == math.inf else budget})
                self._begun = True
                return None
            for message in self._receive(
                min(ADMISSION_POLL_INTERVAL, self._escalate(math.inf if ready else start_by))
            ):
                answer = self._answer(context, message)
                if answer is not None:
                    return answer
                ready |= "ready" in message
                context.handle_message(message)
        if not ready:
            self.kill()  # A child that is ready waits for the next job.
        return refusal

    def _await_outcome(self, context: RemoteAttempt) -> Answer:
        """Wait for the outcome of a job that has started."""
        sent = False
        while True:
            reason = context.stop_reason
            if reason is not None and not sent:
                sent, (id_, fence) = True, context.key
                self._messages.send(stop={"id": id_, "fence": fence, "error": reason.__name__})
            rest = self._escalate(min(context.stop_requested_at, _late_at(context)))
            for message in self._receive(rest):
                if "begun" in message:
                    self._peak = message["peak"] or 0
                answer = self._answer(context, message)
                if answer is not None:
                    return answer
                context.handle_message(message)

    def _escalate(self, due: float) -> float:
        """Signal a child that should have ended by `due`; return seconds until the next step."""
        present = time.monotonic()
        while self._escalated < len(_ESCALATION):
            number, after = _ESCALATION[self._escalated]
            rest = due + after - present
            if rest > 0:
                return min(POLL_INTERVAL, rest)
            self._signal(number)
            self._escalated += 1
        return POLL_INTERVAL

    def _receive(self, rest: float) -> Iterator[dict[str, Any]]:
        """Yield the messages of the next `rest` seconds. Raises EOFError if the child is dead."""
        yield from self._messages.messages()  # Those that came behind the last outcome.
        received = self._messages.wait(rest)
        yield from self._messages.messages()
        # By time too: the child, or a process that it started, may send messages without a pause.
        if not received or time.monotonic() - self._checked_at >= POLL_INTERVAL:
            self._checked_at = time.monotonic()
            self._peak = max(self._peak, peak_memory(self.pid) or 0)
            if not self.alive:
                self._messages.drain()
                yield from self._messages.messages()
                raise EOFError  # A process that it started may hold the socket open.

    def _answer(self, context: RemoteAttempt, message: dict[str, Any]) -> Answer | None:
        if "not_importable" in message:
            return AttemptError(**message["not_importable"])
        if "ended" not in message:
            return None
        fields = message["ended"]
        self._peak = message["peak"] or 0
        if fields.pop("kind") == Succeeded.__name__:
            return Succeeded(context.claim, **fields)
        error = fields.pop("error")
        state = State(fields.pop("state"))
        kind = OutcomeKind(fields.pop("outcome"))
        ended = Unsuccessful(
            context.claim, kind, state, error=error and AttemptError(*error), **fields
        )
        name = signal_name(self.signalled) if self.signalled else None
        return replace(ended, exit_signal=name, peak_memory=message["peak"])

    def _signal(self, number: int) -> None:
        with self._reaping:
            if not self.reaped:  # Otherwise the number may belong to another group.
                self.signalled = number
                self._signal_group(number)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the child and the processes that it started."""
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """End an idle child: it exits when its socket is closed, or is killed."""
        if self.reaped:
            return
        self._messages.close()
        self._wait_or_kill()

    def _wait_or_kill(self) -> int:
        """Wait up to SIGKILL_DELAY for the child to exit, then kill it; return its exit code."""
        until, pause = time.monotonic() + SIGKILL_DELAY, threading.Event()
        while self.alive and time.monotonic() < until:
            pause.wait(0.002)
        if self.alive:
            self.kill()
        return self.reap()

    def reap(self) -> int:
        """Wait for the exit, kill the rest of the process group; return the exit code."""
        reserved = False
        if not self.reaped and hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                reserved = True
        with self._reaping:
            if not self.reaped:
                if reserved:  # Until wait4 the number cannot belong to another group.
                    self._signal_group(signal.SIGKILL)
                with contextlib.suppress(OSError):
                    orphan_guard.unwatch(f"child {self.pid}")
                self._process.returncode = self._wait_status()
                self.reaped = True
                self._messages.close()
                self._wake_reader.close()
                self._wake_writer.close()
        return self._process.returncode

    def _wait_status(self) -> int:
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:  # A SIGCHLD handler of the application has reaped it.
            return -signal.SIGKILL
        # Exact up to the exit, but the maximum over all its jobs and the process that forked it:
        # it says something new only if it exceeds those.
        most = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if most > self._known_peak:
            self._peak = max(self._peak, most)
        return os.waitstatus_to_exitcode(status)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # The buffer is full: the thread is awake.
            self._wake_writer.send(b"\0")


def _start(descriptor: int) -> "subprocess.Popen[bytes]":
    # The child inherits the mask: a signal to a whole service waits until the child ignores it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        return subprocess.Popen(  # noqa: S603 - our own program.
            [
                *(sys.executable, "-c", _CODE, str(descriptor), str(os.getpid())),
                json.dumps(sys.path),
            ],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=_descriptor(sys.stdout),
            stderr=_descriptor(sys.stderr),
            process_group=0,  # Killed with all that the handler starts; Ctrl-C does not reach it.
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _late_at(context: Attempt) -> float:
    return time.monotonic() - context.overdue()


def _descriptor(stream: Any) -> int | None:
    """Return the descriptor of a stream, also if it was redirected; None: inherit the process's."""
    try:
        descriptor = int(stream.fileno())
        os.fstat(descriptor)
        return descriptor
    except (AttributeError, OSError, ValueError):
        return None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
