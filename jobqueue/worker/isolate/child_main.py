"""The child: a process of its own for one job at a time, told what to do through a pipe.

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

from jobqueue import errors, fork_guard, paths
from jobqueue.errors import AttemptTimeout, ClaimLost, JobCancelled
from jobqueue.records import Claim, Ended, Outcome, Succeeded
from jobqueue.store.database import Store
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Task
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.handler.context_variables import ProgramContext
from jobqueue.worker.handler.describe import describe
from jobqueue.worker.handler.outcomes import outcome_of, refused
from jobqueue.worker.handler.run import HandlerRunner
from jobqueue.worker.isolate.importing import ImportGuard, TaskRef, import_task
from jobqueue.worker.isolate.log_forwarding import ForwardingHandler
from jobqueue.worker.json_stderr import JsonStream, captured
from jobqueue.worker.log_context import name_worker
from jobqueue.worker.process_identity import peak_memory

PROGRESS_INTERVAL = 0.1  # seconds between two words of progress
STOP_MESSAGE_CHECKS = (
    10  # looks, 0.02 s apart, at whether the worker has told that the job is to end
)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_INSTANTS = ("run_at", "started_at", "deadline_at")


def main() -> None:
    """Live until the pipe ends."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    _die_with(parent)
    # Ctrl-C is the worker's to hear. Not SIG_IGN, which every program started here would inherit.
    signal.signal(signal.SIGINT, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    ChildMain(Connection(descriptor)).live()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the worker is gone, even in the midst of a C loop."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # It died before we asked.
        os._exit(1)


class ChildAttempt(Attempt):
    """`current_job()` in a child: its own clock for the deadline, the pipe for all else."""

    __slots__ = ("_said", "_send")

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
            self._send(finishing=True)  # First, so that nobody else touches the row any more.
        super().finish(transaction, result)


class _Prepared(NamedTuple):
    """A job that can begin at once."""

    task: Task[..., Any]
    claim: Claim
    args: Sequence[Any]
    kwargs: dict[str, Any]


class ChildMain:
    """The child's three threads: the main one runs handlers, one listens, one tells of progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pipe = os.fstat(connection.fileno())
        self._sending = threading.Lock()
        self._orders: SimpleQueue[tuple[dict[str, Any], float] | None] = SimpleQueue()
        """What it was sent, and when."""
        self._context: ChildAttempt | None = None
        self._stop_requests: dict[tuple[int, int], str] = {}
        self._reported = threading.Event()
        self._deferring = 0
        self._sigterm_pending = False
        """SIGTERM came where nothing may be raised."""
        handshake = json.loads(connection.recv_bytes())["handshake"]
        sys.argv[:] = handshake["argv"]
        self._folder: str | None = handshake["folder"]
        self._max_snoozes: int = handshake["max_snoozes"]
        # For a look at whose transaction `finish_within` is given; not kept beside the app's own.
        store = Store(handshake["url"], connections=1, idle=0)
        self._transactions = UserTransactions(store)
        self._forward = ForwardingHandler(self._send, self._deferring_sigterm)
        self._forward_logs(handshake["levels"])
        name_worker(handshake["worker"])
        for name in handshake["json"]:
            setattr(sys, name, JsonStream(getattr(sys, name), name))
        self._captured = contextlib.ExitStack()
        if handshake["json"]:
            self._captured.enter_context(captured())
        fork_guard.watch(self._after_fork_in_child, signal.SIGTERM, signal.SIGINT)

    def live(self) -> None:
        """Run what is sent, one call after another, until the pipe ends."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        for thread in (self._listen, self._report):
            threading.Thread(target=thread, name=f"jobqueue{thread.__name__}", daemon=True).start()
        prepared: _Prepared | None = None
        while (order := self._orders.get()) is not None:
            message, received = order
            if "run" in message:  # In place of one that was not told to begin.
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
        # The worker wants no more of this process, or is gone.
        if self._context is not None and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # With all that the handler has started.
        self._orders.put(None)

    def _request_stop(self, id: int, fence: int, error: str) -> None:  # noqa: A002 - the message's word.
        self._stop_requests = {(id, fence): error}  # For one that has not begun yet.
        context = self._context
        if context is not None and context.key == (id, fence):
            context.request_stop(getattr(errors, error))

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM: raise in the handler if its time is up or it is not wanted.

        Otherwise it is not meant for us: a supervisor may send it to every process of a service,
        and then the worker decides how long its jobs may go on.
        """
        if self._deferring:
            self._sigterm_pending = True
        else:
            self._check()

    def _check(self) -> None:
        """Raise in the handler if the worker has said that it should stop.

        It says so before it sends SIGTERM. A handler that never lets go of the interpreter's lock,
        such as a regular expression, has kept the listener from reading it until now.
        """
        for _ in range(STOP_MESSAGE_CHECKS):
            if self._context is not None:
                self._context.check()
                threading.Event().wait(0.02)

    def _deferring_sigterm(self, work: Callable[[], None]) -> None:
        """Do what nothing may be raised in the midst of: half a message is the end of all talk."""
        if threading.current_thread() is not threading.main_thread():
            work()  # Signals are handled in the main thread.
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
        """In a process that a handler has forked: it has no say in what the worker hears."""
        logging.getLogger().removeHandler(self._forward)
        self._connection.close()
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # It is its parent's to end.
        if signal.getsignal(signal.SIGINT) is _ignore:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._sending = threading.Lock()  # A thread that is not here may have held it.
        self._orders = SimpleQueue()
        self._orders.put(None)  # If it comes back from the handler, it ends.

    def _prepare(self, call: dict[str, Any]) -> _Prepared | None:
        """Do all that can be done before the job begins; None: it cannot begin, which is said."""
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
        # Made anew for each: the module that it has just imported may have set something.
        outcome = ProgramContext().copy().run(self._outcome, job, context)
        self._send_progress(context)
        self._send(ended=_plain(outcome), peak=peak_memory())
        if not (self._connection.closed or self._holds_the_pipe()):
            os._exit(1)  # The listener's read keeps it open: the worker would wait for ever.

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
            outcome = outcome_of(context, handlers.failed(context, error))
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
        with self._sending, contextlib.suppress(OSError):  # Nobody there: the listener knows too.
            if self._holds_the_pipe():
                self._connection.send_bytes(text)

    def _holds_the_pipe(self) -> bool:
        """False when a handler has closed its descriptor, whose number may be a file's by now."""
        try:
            return os.path.samestat(os.fstat(self._connection.fileno()), self._pipe)
        except OSError:
            return False

    def _forward_logs(self, levels: dict[str, int]) -> None:
        """Let the worker write what is logged here, in its format, and among its own lines."""
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().addHandler(self._forward)


def _complete(context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(_await(context, coroutine))


async def _await(context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    finally:
        await context.aleave_transaction()


def _ignore(_number: int, _frame: FrameType | None) -> None: ...


def _reset_peak() -> None:
    """Begin to measure anew: the peak is one job's, not that of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _instant(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in _INSTANTS and value is not None else value


def _plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome without its claim, as JSON has it."""
    kind = Succeeded if isinstance(outcome, Succeeded) else Ended
    return {"kind": kind.__name__} | {
        name: value for name, value in outcome._asdict().items() if name != "claim"
    }
