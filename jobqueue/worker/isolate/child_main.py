"""The program of a child process, which runs one job at a time for its worker.

Messages are JSON objects with one key that says what they are. The parent sends `handshake`,
`run`, `begin` and `stop`. The child answers `run` with `ready`, `not_importable` or `ended`, and
enters the handler on `begin`; then it sends `begun`, `progress`, `finishing` and `ended`. It sends
`log` at any time.
"""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NamedTuple

from msgspec.structs import asdict

from jobqueue import errors, fork_guard, paths
from jobqueue.errors import AttemptTimeout, ClaimLost, JobCancelled
from jobqueue.records import Claim, Outcome, Succeeded, Unsuccessful
from jobqueue.store.database import Store
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Task
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.handler.context_variables import ProgramContext
from jobqueue.worker.handler.describe import describe
from jobqueue.worker.handler.outcomes import completed, refused
from jobqueue.worker.handler.run import HandlerRunner
from jobqueue.worker.isolate.importing import ImportGuard, TaskRef, import_task
from jobqueue.worker.isolate.log_forwarding import ForwardingHandler
from jobqueue.worker.json_stderr import JsonStream, captured
from jobqueue.worker.log_context import name_worker
from jobqueue.worker.process_identity import peak_memory

PROGRESS_INTERVAL = 0.1  # seconds between two messages of progress
STOP_MESSAGE_CHECKS = 10  # checks, 0.02 s apart, for a request to stop that SIGTERM announces
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_INSTANTS = ("run_at", "started_at", "deadline_at", "scheduled_for", "expires_at")


def main() -> None:
    """Run jobs until the socket is closed."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    _die_with(parent)
    # The worker handles Ctrl-C. Not SIG_IGN, which every program started here would inherit.
    signal.signal(signal.SIGINT, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    ChildMain(Connection(descriptor)).live()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the worker is gone, even in a loop of C code."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # It exited before prctl took effect.
        os._exit(1)


class ChildAttempt(Attempt):
    """`current_job()` in a child: its own clock for the deadline, the pipe for all else."""

    in_child = True

    def __init__(
        self,
        claim: Claim,
        transactions: UserTransactions,
        task: Task[..., Any],
        *,
        until: float,
        said: threading.Event,
        send: Callable[..., None],
    ) -> None:
        super().__init__(claim, transactions, task)
        self.restart(until)
        self._reported = said
        self._send = send

    def report(self, fraction: float | None, message: str | None) -> None:
        """See `Attempt.report`."""
        super().report(fraction, message)
        self._reported.set()

    def finish(self, transaction: Any, result: object) -> None:
        """See `Attempt.finish`."""
        if not self.finishing:
            self._send(finishing=True)  # First, so that the worker leaves the row alone.
        super().finish(transaction, result)


class _Prepared(NamedTuple):
    """A job that can start at once."""

    task: Task[..., Any]
    claim: Claim
    args: Sequence[Any]
    kwargs: dict[str, Any]


class ChildMain:
    """Three threads: the main one runs handlers, one receives messages, one sends progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pipe = os.fstat(connection.fileno())
        self._sending = threading.Lock()
        self._orders: SimpleQueue[tuple[dict[str, Any], float] | None] = SimpleQueue()
        """Messages, and when each was received by `time.monotonic()`."""
        self._context: ChildAttempt | None = None
        self._stop_requests: dict[tuple[int, int], str] = {}
        self._reported = threading.Event()
        self._deferring = 0
        self._sigterm_pending = False
        """SIGTERM came while it was deferred."""
        handshake = json.loads(connection.recv_bytes())["handshake"]
        sys.argv[:] = handshake["argv"]
        self._folder: str | None = handshake["folder"]
        self._max_snoozes: int = handshake["max_snoozes"]
        # For `finish_within`; no idle connection is kept beside the application's.
        store = Store(handshake["url"], connections=1, idle=0)
        self._transactions = UserTransactions(store)
        self._forward = ForwardingHandler(self._send, self._deferring_sigterm)
        for name, level in handshake["levels"].items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().addHandler(self._forward)
        name_worker(handshake["worker"])
        for name in handshake["json"]:
            setattr(sys, name, JsonStream(getattr(sys, name), name))
        self._captured = contextlib.ExitStack()
        if handshake["json"]:
            self._captured.enter_context(captured())
        fork_guard.watch(self._after_fork_in_child, signal.SIGTERM, signal.SIGINT)

    def live(self) -> None:
        """Run one job after another until the socket is closed."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        for thread in (self._listen, self._report):
            threading.Thread(target=thread, name=f"jobqueue{thread.__name__}", daemon=True).start()
        prepared: _Prepared | None = None
        while (order := self._orders.get()) is not None:
            message, received = order
            if "run" in message:  # Replaces a job that was not started.
                prepared = self._prepare(message["run"])
            elif prepared is not None:
                self._run(prepared, message["begin"]["budget"], received)
                prepared = None

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = json.loads(self._connection.recv_bytes())
                if "stop" in message:
                    self._request_stop(**message["stop"])
                else:
                    self._orders.put((message, time.monotonic()))
        # The worker has closed the socket, or is gone.
        if self._context is not None:
            with contextlib.suppress(ProcessLookupError):  # The handler has joined another group.
                os.killpg(os.getpid(), signal.SIGKILL)  # And the processes that it started.
        self._orders.put(None)

    def _request_stop(self, id: int, fence: int, error: str) -> None:  # noqa: A002 - the message's word.
        self._stop_requests = {(id, fence): error}  # Kept for a job that has not started.
        context = self._context
        if context is not None and context.key == (id, fence):
            context.request_stop(getattr(errors, error))

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM: raise in the handler if its time is up or a stop was requested.

        Otherwise it is not meant for us: a supervisor may send it to every process of a service,
        and then the worker decides how long its jobs may go on.
        """
        if self._deferring:
            self._sigterm_pending = True
        else:
            self._check()

    def _check(self) -> None:
        """Raise in the handler if the worker has requested a stop.

        It says so before it sends SIGTERM. A handler that never lets go of the interpreter's lock,
        such as a regular expression, has kept the listener from reading it until now.
        """
        for _ in range(STOP_MESSAGE_CHECKS):
            if self._context is not None:
                self._context.check()
                threading.Event().wait(0.02)

    def _deferring_sigterm(self, work: Callable[[], None]) -> None:
        """Call `work` with SIGTERM deferred: half a message would make the stream unreadable."""
        if threading.current_thread() is not threading.main_thread():
            work()  # Only the main thread handles signals.
            return
        self._deferring += 1
        try:
            work()
        finally:
            self._deferring -= 1
        if self._sigterm_pending and not self._deferring:
            self._sigterm_pending = False
            self._check()

    def _after_fork_in_child(self) -> None:
        """Detach a process that a handler forked: from the worker's log, socket and signals."""
        logging.getLogger().removeHandler(self._forward)
        self._connection.close()
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # The deferral belongs to the parent.
        if signal.getsignal(signal.SIGINT) is _ignore:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._sending = threading.Lock()  # A thread of the parent may hold the old one.
        self._orders = SimpleQueue()
        self._orders.put(None)  # The main loop ends if the fork returns to it.

    def _prepare(self, call: dict[str, Any]) -> _Prepared | None:
        """Import the task and decode its arguments; None: that failed, and was reported."""
        claim = Claim(**{name: _instant(name, value) for name, value in call["claim"].items()})
        ImportGuard.active = True
        try:
            with paths.meant_from(self._folder):
                task = import_task(TaskRef(*call["task"]))
        except BaseException as error:  # noqa: BLE001 - a module may do anything.
            self._send(not_importable=describe(error)._asdict())
            return None
        finally:
            ImportGuard.active = False
        try:
            args, kwargs = task.codec.decode(claim.args)
        except Exception as error:  # noqa: BLE001 - a user's type may raise anything when made.
            self._send(ended=_plain(refused(claim, error)), peak=peak_memory())
            return None
        self._send(ready=True)
        return _Prepared(task, claim, args, kwargs)

    def _run(self, job: _Prepared, budget: float | None, received: float) -> None:
        context = ChildAttempt(
            job.claim,
            self._transactions,
            job.task,
            until=float("inf") if budget is None else received + budget,
            said=self._reported,
            send=self._send,
        )
        _reset_peak()
        self._send(begun=True, peak=peak_memory())
        # One per job: the module that was just imported may have set context variables.
        outcome = ProgramContext().copy().run(self._outcome, job, context)
        self._send_progress(context)
        self._send(ended=_plain(outcome), peak=peak_memory())
        if not (self._connection.closed or self._holds_the_pipe()):
            os._exit(1)  # The pending read keeps it open, so the worker would wait for ever.

    def _outcome(self, job: _Prepared, context: ChildAttempt) -> Outcome:
        handlers = HandlerRunner(tuple(job.task.middleware), self._max_snoozes)
        handlers.complete = _complete
        try:
            self._context = context
            if error_name := self._stop_requests.get(context.key):
                context.request_stop(getattr(errors, error_name))
            outcome = handlers.run(context, job.args, job.kwargs)
            self._context = None
        except (JobCancelled, ClaimLost, AttemptTimeout) as error:  # SIGTERM, after the handler.
            self._context = None
            outcome = completed(context, handlers.failed(context, error))
        return outcome

    def _report(self) -> None:
        rest = threading.Event()
        while True:
            self._reported.wait()
            self._reported.clear()
            context = self._context
            if context is not None:
                self._send_progress(context)
            rest.wait(PROGRESS_INTERVAL)

    def _send_progress(self, context: ChildAttempt) -> None:
        said = context.unwritten_progress()
        if said is not None:
            self._send(progress=said)
            context.progress_written(said)

    def _send(self, **message: Any) -> None:
        text = json.dumps(message).encode()
        self._deferring_sigterm(lambda: self._send_text(text))

    def _send_text(self, text: bytes) -> None:
        with self._sending, contextlib.suppress(OSError):  # The worker is gone.
            if self._holds_the_pipe():
                self._connection.send_bytes(text)

    def _holds_the_pipe(self) -> bool:
        """Return False if a handler closed the descriptor, whose number may be reused by a file."""
        try:
            return os.path.samestat(os.fstat(self._connection.fileno()), self._pipe)
        except OSError:
            return False


def _complete(context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(_await(context, coroutine))


async def _await(context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    finally:
        await context.aleave_transaction()


def _ignore(_number: int, _frame: FrameType | None) -> None: ...


def _reset_peak() -> None:
    """Reset the peak of memory, so that it is measured per job."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _instant(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in _INSTANTS and value is not None else value


def _plain(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome without its claim, as JSON can hold it."""
    kind = Succeeded if isinstance(outcome, Succeeded) else Unsuccessful
    return {"kind": kind.__name__} | {
        name: value for name, value in asdict(outcome).items() if name != "claim"
    }
