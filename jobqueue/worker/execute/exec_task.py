"""Command lines as jobs: the built-in task `exec`, for workers that were started to run it.

No shell reads the line. The command has a session, and so a process group, of its own: at its
timeout, when it is cancelled, when the claim is lost and when the worker stops, all of the group is
terminated, and killed if it does not heed that.
"""

import contextlib
import errno
import os
import selectors
import signal
import subprocess
import time
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from jobqueue.errors import AttemptTimeout, ConfigurationError
from jobqueue.options import Options
from jobqueue.os_signals import signal_name
from jobqueue.serialization.codec import Codec
from jobqueue.tasks import Registry, Task
from jobqueue.worker.handler.context import JobContext, clean, current_job, running_attempt
from jobqueue.worker.handler.describe import RecordedError
from jobqueue.worker.orphan_guard import orphan_guard

NAME = "exec"
POLL_INTERVAL = 0.1  # seconds, at most, between two checks whether the command is still wanted
SIGKILL_DELAY = 5.0
"""Seconds from SIGTERM to SIGKILL."""
EXIT_MARGIN = 2.0
"""Seconds after that, until the command counts as ignoring its timeout."""

TAIL_MAX = 64 * 1024
"""Bytes of the end of the output that are kept."""

SHOWN_MAX = 2000  # characters of it in the error's message
PIPES_MAX = 16  # reads of 64 KiB after the command has exited
SECRETS = frozenset({"JOBQUEUE_TOKEN", "JOBQUEUE_URL"})
"""Variables of the worker's environment that a command does not get."""

PERMANENT_ERRORS = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOEXEC,
        errno.ELOOP,
        errno.E2BIG,
        errno.ENAMETOOLONG,
    }
)
"""Errors of the start of a command that another attempt would meet again."""


class CommandFailed(RecordedError):
    """The command could not be run, or its exit code was not 0."""


class CommandTimedOut(RecordedError, AttemptTimeout):
    """The command was terminated because its time was up."""


def run(
    command: str, *arguments: str, env: dict[str, str] | None = None, cwd: str | None = None
) -> dict[str, Any]:
    """Run a command line; returns its exit code and the end of its output."""
    context, attempt = current_job(), running_attempt()
    assert attempt is not None
    attempt.grace = SIGKILL_DELAY + EXIT_MARGIN  # The command is signalled at the deadline.
    with _started(context, [command, *arguments], _environment(context, env or {}), cwd) as running:
        code = running.wait(context)
        output = running.output()
    if running.terminated:
        _raise_stop_reason(context, output)
    if code == 0:
        return {"exit_code": 0, "output": output, "signal": None}
    reason = f"exit code {code}" if code > 0 else f"killed by {signal_name(-code)}"
    raise CommandFailed(_with_end(reason, output), details=output)


EXEC: Task[..., dict[str, Any]]
"""The task, for those who enqueue."""


class WithExec(Registry):
    """An app's tasks, what it registers later included, and `exec`."""

    def __init__(self, tasks: Registry) -> None:
        super().__init__()
        if NAME in tasks:
            raise ConfigurationError(
                f"the app has a task named {NAME!r}, which allow_exec defines; rename it",
                field="allow_exec",
            )
        self._tasks_of_app = tasks
        self._tasks = ChainMap({NAME: EXEC}, tasks._tasks)  # noqa: SLF001 - of our own class.
        self.app, self.folder = tasks.app, tasks.folder

    def find(self, name: str) -> Task[..., Any] | None:
        """The task of that name, or None; hot."""
        return EXEC if name == NAME else self._tasks_of_app.find(name)


class Running:
    """A command that was started, and the end of its output."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self.terminated = False
        self._process = process
        self._pipe = process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._descriptor = _descriptor_of(process.pid)
        self._tail = bytearray()
        self._cut = False
        self._open = True

    def wait(self, context: JobContext) -> int:
        """Wait for its first process to exit; return the exit code, or minus the signal."""
        kill_at = float("inf")
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            if self._descriptor is not None:
                selector.register(self._descriptor, selectors.EVENT_READ)
            while True:
                rest = max(0.0, min(POLL_INTERVAL, kill_at - time.monotonic()))
                ready = {key.fd for key, _ in selector.select(rest)}
                if self._pipe in ready and not self._read():
                    selector.unregister(self._pipe)
                if self._has_ended(ready):
                    return self._kill_and_wait()
                if not self.terminated and (context.cancelled or context.remaining() == 0):
                    self.terminated = True
                    kill_at = time.monotonic() + SIGKILL_DELAY
                    self._signal(signal.SIGTERM, signal.SIGCONT)
                elif time.monotonic() >= kill_at:
                    kill_at = float("inf")
                    self._signal(signal.SIGKILL)

    def output(self) -> str:
        """Return the end of its output, as text that can be stored."""
        tail = bytes(self._tail)
        if self._cut:  # Perhaps within a character.
            tail = tail.lstrip(bytes(range(0x80, 0xC0))) or tail
        return clean(tail.decode("utf-8", "replace"))

    def close(self) -> None:
        """Kill what is left of the command, and close its descriptors."""
        if self._process.returncode is None:
            self._kill_and_wait()
        if self._descriptor is not None:
            os.close(self._descriptor)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _has_ended(self, ready: set[int]) -> bool:
        if self._descriptor is None:
            return self._process.poll() is not None
        return self._descriptor in ready

    def _kill_and_wait(self) -> int:
        # While the number is still reserved: the rest of the group is killed with it.
        self._signal(signal.SIGKILL)
        code = self._process.wait()
        for _ in range(PIPES_MAX):  # A process outside the group may go on writing.
            if not self._open or self._read() is None:
                break
        return code

    def _read(self) -> bool | None:
        """Read available output; False when the output is closed, None when there is none yet."""
        try:
            said = os.read(self._pipe, TAIL_MAX)
        except BlockingIOError:
            return None
        self._open = said != b""
        self._tail += said
        if len(self._tail) > TAIL_MAX:
            self._cut = True
            del self._tail[:-TAIL_MAX]
        return self._open

    def _signal(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def _descriptor_of(pid: int) -> int | None:
    """Return a pidfd, readable when the process exits; None: its exit has to be polled for."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None


@contextlib.contextmanager
def _started(
    context: JobContext, line: list[str], environment: Mapping[str, str], cwd: str | None
) -> Iterator[Running]:
    key = orphan_guard.expect(context.id, context.fence)
    try:
        running = Running(_spawn(line, environment, cwd))
        try:
            orphan_guard.watch(key, running._process.pid)  # noqa: SLF001
            yield running
        finally:
            running.close()
    finally:
        orphan_guard.unwatch(key)


def _spawn(
    line: list[str], environment: Mapping[str, str], cwd: str | None
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(  # noqa: S603 - running what the row says is what it is for.
            line,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        if cwd is not None and error.filename == cwd:
            reason = f"the folder {cwd!r} cannot be used: {error.strerror}"
        elif error.errno == errno.ENOENT:
            reason = f"the command {line[0]!r} was not found"
        else:
            reason = f"the command {line[0]!r} cannot be run: {error.strerror}"
        raise CommandFailed(reason, final=error.errno in PERMANENT_ERRORS) from None
    except ValueError as error:  # Such as a name of a variable with a "=".
        reason = f"the command {line[0]!r} cannot be run: {error}"
        raise CommandFailed(reason, final=True) from None


def _environment(context: JobContext, changes: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment without secrets, with the job's changes and its identity."""
    inherited = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {
        **inherited,
        **changes,
        "JOBQUEUE_JOB_ID": str(context.id),
        "JOBQUEUE_ATTEMPT": str(context.attempt),
        "JOBQUEUE_FENCE": str(context.fence),
        "JOBQUEUE_WORKER_PID": str(os.getpid()),
    }


def _raise_stop_reason(context: JobContext, output: str) -> NoReturn:
    """Raise the error for which the command was terminated."""
    try:
        context.check()
    except AttemptTimeout as error:
        reason = _with_end(f"{error}; the command was terminated", output)
        raise CommandTimedOut(reason, details=output) from None
    raise AssertionError("a command is terminated for a reason")


def _with_end(reason: str, output: str) -> str:
    end = output.strip()[-SHOWN_MAX:]
    return f"{reason}\n{end}" if end else reason


def _never(calls: object, within: object) -> NoReturn:
    raise NotImplementedError("exec has no queue of its own: enqueue_many takes its calls")


EXEC = Task(run, NAME, Options(), Codec(run, NAME), _never)
