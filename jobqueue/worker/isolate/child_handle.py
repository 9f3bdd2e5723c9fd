"""A child process as its worker sees it: it is sent one call at a time, and can be killed.

The slot's thread sends a call as text and waits for the answer, for the end of the job's time, for
a wish to cancel, and for the death of the child, whichever comes first.
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
import traceback
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from jobqueue.errors import JobQueueError
from jobqueue.loggers import get_logger
from jobqueue.records import AttemptError, Claim, Ended, Outcome, Succeeded, format_bytes
from jobqueue.states import State
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.supervisor.signals import signal_name
from jobqueue.tasks import Task
from jobqueue.worker.handler.context import Attempt, enter
from jobqueue.worker.inflight import Unbegun
from jobqueue.worker.isolate.importing import TaskRef
from jobqueue.worker.isolate.log_forwarding import replay
from jobqueue.worker.isolate.message_socket import MessageSocket
from jobqueue.worker.orphan_guard import orphan_guard
from jobqueue.worker.process_identity import peak_memory

log = get_logger("jobqueue.worker")

POLL_INTERVAL = 0.5  # seconds between two checks of the child's memory, and whether it lives
SIGTERM_DELAY = 0.25  # seconds from a request to stop to SIGTERM: for handlers that check it
SIGKILL_DELAY = 0.5  # seconds from SIGTERM to SIGKILL
START_TIMEOUT = 60.0  # seconds for a child to import the program
ADMISSION_POLL_INTERVAL = 0.1  # seconds between two checks whether a job may start at last
_ESCALATION = ((signal.SIGTERM, SIGTERM_DELAY), (signal.SIGKILL, SIGTERM_DELAY + SIGKILL_DELAY))
_CODE = (
    "import json, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}); "
    "sys.path[:] = json.loads(sys.argv.pop()); "
    "from jobqueue.worker.isolate.child_main import main; main()"
)


class ChildExit(NamedTuple):
    """How a child ended that gave no answer."""

    exit_code: int  # minus the number of the signal, if it was one
    peak_memory: int | None
    late: bool  # its time was up, and it was killed
    begun: bool  # it had been told to enter the handler

    @property
    def signal(self) -> str | None:
        """The signal's name; None for an exit."""
        return signal_name(-self.exit_code) if self.exit_code < 0 else None

    def __str__(self) -> str:
        how = self.signal or f"exit code {self.exit_code}"
        peak = "" if self.peak_memory is None else f", peak {format_bytes(self.peak_memory)}"
        return f"{how}{peak}" + ("" if self.begun else ", before the handler began")


class TaskNotImportable(NamedTuple):
    """The child could not import the program, or not find the task in it."""

    error: AttemptError


Answer = Outcome | ChildExit | TaskNotImportable


class Gate(Protocol):
    """What a job has to pass before it begins in a child that is ready for it."""

    def refusal(self) -> Unbegun | None:
        """Why it does not begin at all; None: it may begin, now or later."""

    def begin(self) -> bool:
        """Begin it; False: it may not, or not yet."""


class RemoteAttempt(Attempt):
    """A job whose handler runs in a child: what it is told goes there, what it says comes back."""

    killable = True

    def __init__(self, claim: Claim, transactions: UserTransactions, task: Task[..., Any]) -> None:
        super().__init__(claim, transactions, task)
        self._finishing_there = False
        self._wake: Callable[[], None] | None = None
        self.stop_requested_at = math.inf

    def request_stop(self, error: type[JobQueueError]) -> None:
        """See `Attempt.request_stop`."""
        if self.stop_reason is None:
            super().request_stop(error)
            self.stop_requested_at = time.monotonic()
            if self._wake is not None:
                self._wake()

    def on_stop_request(self, wake: Callable[[], None]) -> None:
        """For its slot: how to be woken when it is told something."""
        self._wake = wake

    @property
    def finishing(self) -> bool:
        """See `Attempt.finishing`."""
        return self._finishing_there

    def handle_message(self, message: dict[str, Any]) -> None:
        """Take in what the child says while the handler runs."""
        if "progress" in message:
            id_, fence, fraction, text = message["progress"]
            if (id_, fence) == self.key:  # The last job's may come after its end.
                self.report(fraction, text)
        elif "finishing" in message:
            self._finishing_there = True
        elif "begun" in message:
            self.restart()
        elif "log" in message:
            copy_context().run(self._log, message["log"])

    def _log(self, fields: dict[str, Any]) -> None:
        enter(self)  # The line is one of this job.
        try:
            replay(fields)
        except Exception:  # noqa: BLE001 - a filter may do anything.
            traceback.print_exc()  # Not through logging, which would run it again.


class ChildHandle:
    """One child and the pipe to it. Used by the thread that made it; `kill()` by any."""

    def __init__(self, handshake: dict[str, Any]) -> None:
        with contextlib.ExitStack() as made:  # All of it, or nothing is left behind.
            self._wake_reader, self._wake_writer = map(made.enter_context, socket.socketpair())
            ours, theirs = map(made.enter_context, socket.socketpair())
            self._process = _start(theirs.fileno())
            made.pop_all()
        theirs.close()
        self.pid = self._process.pid
        with contextlib.suppress(OSError):  # It cannot be started now, and knows of it later.
            orphan_guard.watch(f"child {self.pid}", self.pid)
        self._messages = MessageSocket(ours, self._wake_reader)
        self._wake_writer.setblocking(False)
        self.idle_since = math.inf
        self.signalled = 0
        """The last signal that it was sent."""
        self._escalated = 0
        self._begun = False
        """The job that it was sent last was told to begin."""
        self.busy = threading.Lock()
        self.reaped = False
        self._reaping = threading.Lock()
        # What the kernel counts as this process's peak begins with that of its parent.
        self._known_peak = peak_memory() or 0
        self._peak = 0
        self._checked_at = -math.inf
        self._messages.send(handshake=handshake)

    @property
    def alive(self) -> bool:
        """True until it has died, whether or not anybody has noticed."""
        if self.reaped:
            return False
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, options) is None
        return False

    def call(self, context: RemoteAttempt, ref: TaskRef, gate: Gate) -> Answer | Unbegun:
        """Have it run a job that its gate lets begin, and wait for the end, however that comes."""
        self._known_peak, self._peak = max(self._known_peak, self._peak), 0
        self._begun = False
        context.on_stop_request(self._wake)
        try:
            return self._make_ready(context, ref, gate) or self._await_outcome(context)
        except Exception as error:
            late = self.signalled != 0 and (
                not self._begun or _late_at(context) < context.stop_requested_at
            )
            if not isinstance(error, EOFError | OSError):
                # Nothing that it says can be relied upon any more.
                log.exception("child process %d does not speak our language", self.pid)
                self.kill()
            return ChildExit(self._wait_or_kill(), self.peak(), late, self._begun)
        finally:
            context.on_stop_request(_nothing)

    def _make_ready(
        self, context: RemoteAttempt, ref: TaskRef, gate: Gate
    ) -> Answer | Unbegun | None:
        """Have it import the task, and then begin the job if it still may; None: it has begun."""
        claim = {name: _plain(value) for name, value in context.claim._asdict().items()}
        self._messages.send(run={"claim": claim, "task": ref})
        start_by, ready = time.monotonic() + START_TIMEOUT, False
        while (refusal := gate.refusal()) is None:
            if ready and gate.begin():
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
            self.kill()  # A ready one waits for the next job.
        return refusal

    def _await_outcome(self, context: RemoteAttempt) -> Answer:
        """Wait for the end of a job that has begun."""
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
        """Signal what should have ended by then; returns the seconds until there is more to do."""
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
        """What it says within so many seconds. Raises EOFError when it is dead."""
        yield from self._messages.messages()  # What came behind the last answer.
        received = self._messages.wait(rest)
        yield from self._messages.messages()
        # By time as well: it, or what it started, may have something to say all the time.
        if not received or time.monotonic() - self._checked_at >= POLL_INTERVAL:
            self._checked_at = time.monotonic()
            self._peak = max(self._peak, peak_memory(self.pid) or 0)
            if not self.alive:
                self._messages.drain()
                yield from self._messages.messages()
                raise EOFError  # What it started may hold the pipe open.

    def _answer(
        self, context: RemoteAttempt, message: dict[str, Any]
    ) -> Outcome | TaskNotImportable | None:
        if "not_importable" in message:
            return TaskNotImportable(AttemptError(**message["not_importable"]))
        if "ended" not in message:
            return None
        fields = message["ended"]
        self._peak = message["peak"] or 0
        if fields.pop("kind") == Succeeded.__name__:
            return Succeeded(context.claim, **fields)
        error = fields.pop("error")
        state = State(fields.pop("state"))
        ended = Ended(context.claim, state=state, error=error and AttemptError(*error), **fields)
        name = signal_name(self.signalled) if self.signalled else None
        return ended._replace(exit_signal=name, peak_memory=message["peak"])

    def peak(self) -> int | None:
        """The most memory that it used for the last job, in bytes."""
        return self._peak or None

    def _signal(self, number: int) -> None:
        with self._reaping:
            if not self.reaped:  # Its number may be another group's by now.
                self.signalled = number
                self._signal_group(number)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it at once, with what it has started."""
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """End an idle one: its pipe ends, so it does; one that does not is killed."""
        if self.reaped:
            return
        self._messages.close()
        self._wait_or_kill()

    def _wait_or_kill(self) -> int:
        """Its pipe has ended, so it is about to; if it does not, it is killed."""
        until, pause = time.monotonic() + SIGKILL_DELAY, threading.Event()
        while self.alive and time.monotonic() < until:
            pause.wait(0.002)
        self.kill()
        return self.reap()

    def reap(self) -> int:
        """Wait for its end, take in its exit code, and close the pipe; what it started ends too."""
        reserved = False
        if not self.reaped and hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                reserved = True
        with self._reaping:
            if not self.reaped:
                if reserved:  # Until wait4: the number is still that of this process's group.
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
        except ChildProcessError:  # A handler of SIGCHLD was quicker.
            return -signal.SIGKILL
        # Exact, and also of the moment of its death; but it is of all its jobs, and at first of the
        # process that it was forked from, so it only says something new when it is more than those.
        most = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if most > self._known_peak:
            self._peak = max(self._peak, most)
        return os.waitstatus_to_exitcode(status)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # Full: it is awake.
            self._wake_writer.send(b"\0")


def _start(descriptor: int) -> "subprocess.Popen[bytes]":
    # A signal to all of a service waits until the child can ignore it: it inherits the mask.
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
            process_group=0,  # Killed with all that the handler starts, and deaf to Ctrl-C.
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _late_at(context: Attempt) -> float:
    return time.monotonic() - context.overdue()


def _descriptor(stream: Any) -> int | None:
    """Where a stream goes, also when it was redirected; None: where this process's own goes."""
    try:
        descriptor = int(stream.fileno())
        os.fstat(descriptor)
        return descriptor
    except (AttributeError, OSError, ValueError):
        return None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _nothing() -> None: ...
