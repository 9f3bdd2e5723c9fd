"""Runs jobs in child processes that can be killed: one child per thread, kept between jobs."""

import logging
import sys
import threading
import time
from typing import Any

from msgspec.structs import replace
from sqlalchemy import URL

from jobqueue.errors import AttemptTimeout, ConfigurationError
from jobqueue.records import AttemptError, Claim, Outcome, Succeeded, Unsuccessful
from jobqueue.states import OutcomeKind, State
from jobqueue.store.urls import as_text
from jobqueue.tasks import Registry, Task
from jobqueue.worker.handler.describe import type_name
from jobqueue.worker.handler.outcomes import cancelled, completed, released
from jobqueue.worker.handler.retries import retry_or_fail
from jobqueue.worker.inflight import Unbegun
from jobqueue.worker.isolate.child_handle import Answer, ChildExit, ChildHandle
from jobqueue.worker.isolate.importing import task_ref, unreachable_reason
from jobqueue.worker.isolate.remote_attempt import RemoteAttempt
from jobqueue.worker.json_stderr import is_json
from jobqueue.worker.log_context import about, log, worker_name

IDLE_MAX = 60.0  # seconds after which an idle child is ended
NO_PROCESS_DELAY = 0.5  # seconds until a thread tries again to start a process


class NoProcess(Exception):
    """No process could be started, which is not charged to the job."""


class ProcessPool:
    """The children of one worker, one for each thread that needs one."""

    def __init__(self, url: URL, registry: Registry, max_snoozes: int, max_crashes: int) -> None:
        self._url = as_text(url)
        self._registry = registry
        self._max_snoozes = max_snoozes
        self._max_crashes = max_crashes
        self._own = threading.local()
        self._children: set[ChildHandle] = set()
        self._lock = threading.Lock()
        self._unreachable_tasks: dict[str, str] = {}

    def check(self) -> None:
        """Raise ConfigurationError if a child cannot import a task that requires one."""
        for name in sorted(self._registry):
            if self.requires_process(name):
                require(self._registry[name], self._registry.app)

    def requires_process(self, name: str) -> bool:
        """Return True for a task whose jobs always run in a child."""
        task = self._registry.find(name)
        return task is not None and task.settings.isolation == "process"

    def can_import(self, claim: Claim) -> bool:
        """Return True if a child can import the task of a job that was in a crash."""
        task = self._registry.find(claim.task)
        if task is None or claim.task in self._unreachable_tasks:
            return False
        reason = unreachable_reason(task_ref(task, self._registry.app))
        if reason is not None:
            self.run_in_threads(claim, reason)
        return reason is None

    def run_in_threads(self, claim: Claim, reason: str) -> None:
        """Run the jobs of this task in threads from now on."""
        self._unreachable_tasks[claim.task] = reason
        log.warning(
            "job %d (%s) was in a crash, and cannot run in a child process, as %s; "
            "it runs in a thread again",
            claim.id,
            claim.task,
            reason,
            extra=about(claim),
        )

    def run(self, context: RemoteAttempt) -> Outcome | None:
        """Run a job in this thread's child, once it may begin; None as in `Unbegun`.

        Raises NoProcess if there can be none now.
        """
        child = self._child()
        answer: Answer | Unbegun | None = None
        try:
            answer = child.call(context, task_ref(context.task, self._registry.app))
        finally:
            if answer is None:
                child.kill()  # Its handler may still run, and its outcome would be lost.
            child.idle_since = time.monotonic()
            child.busy.release()
            if child.signalled or isinstance(answer, ChildExit):
                self.end_child()  # A signal may take effect only later.
        return self._outcome(context, answer)

    def _outcome(self, context: RemoteAttempt, answer: Answer | Unbegun) -> Outcome | None:
        """Return the outcome that the child sent, or that its exit stands for."""
        claim = context.claim
        if isinstance(answer, Unbegun):
            return answer.outcome
        if isinstance(answer, Succeeded | Unsuccessful):
            return answer
        if isinstance(answer, ChildExit):
            outcome = completed(context, self._ended_of(context, answer))
            return replace(outcome, exit_signal=answer.signal, peak_memory=answer.peak_memory)
        if self.requires_process(claim.task):
            ended = retry_or_fail(context, OutcomeKind.ERRORED, answer)
            why = ended.reason or "its child process could not import it"
            return replace(ended, reason=why, duration=0.0)
        # It does not require a child: it goes back, to run in a thread.
        self.run_in_threads(claim, f"{answer.type}: {answer.message}")
        return released(claim, "it could not run in a child process")

    def _ended_of(self, context: RemoteAttempt, death: ChildExit) -> Unsuccessful:
        if context.stop_reason is not None and not death.late:
            return cancelled(context.claim)
        if death.late:
            why = (
                f"ended by {death.signal or death} {context.overdue():.1f} s after its time was up"
            )
            if not death.begun:
                why = "its child process did not import it in time, and was killed"
            error = AttemptError(type_name(AttemptTimeout), why, None)
            return retry_or_fail(context, OutcomeKind.TIMED_OUT, error)
        how = f"crashed: {death}"
        error = AttemptError("Crashed", how, None)
        ended = retry_or_fail(context, OutcomeKind.CRASHED, error)
        if context.claim.child_crashes + 1 >= self._max_crashes:
            ended = replace(ended, state=State.FAILED, delay=None)
        return replace(ended, reason=how, crash=True)

    def release(self, claim: Claim, error: NoProcess) -> Unsuccessful:
        """Return the outcome of a job that goes back, uncharged: no child could be started."""
        why = f"no child process could be started: {error}"
        log.warning("job %d (%s) has to wait: %s", claim.id, claim.task, why, extra=about(claim))
        # Due now, behind those that may need no child; available, so that a drain waits for it.
        return replace(released(claim, why), delay=0.0)

    def _child(self) -> ChildHandle:
        """Return this thread's child, locked."""
        child: ChildHandle | None = getattr(self._own, "child", None)
        if child is not None:
            child.busy.acquire()
            if child.alive:
                return child
            child.busy.release()
            self.end_child()
        try:
            child = self._own.child = ChildHandle(self._handshake())
        except OSError as error:
            raise NoProcess(str(error)) from error
        child.busy.acquire()
        with self._lock:
            self._children.add(child)
        return child

    def _handshake(self) -> dict[str, Any]:
        return {
            "argv": sys.argv,
            "url": self._url,
            "folder": self._registry.folder,
            "max_snoozes": self._max_snoozes,
            "levels": {name: logging.getLogger(name).level for name in ("", "jobqueue")},
            "worker": worker_name(),
            "json": [name for name in ("stdout", "stderr") if is_json(getattr(sys, name))],
        }

    def end_child(self) -> None:
        """End this thread's child."""
        child: ChildHandle | None = getattr(self._own, "child", None)
        if child is not None:
            self._own.child = None
            with child.busy:
                if child.signalled:
                    child.kill()
                child.end()
            with self._lock:
                self._children.discard(child)

    def end_idle_children(self, after: float = IDLE_MAX) -> None:
        """End children that have been idle for more than `after` seconds."""
        with self._lock:
            idle = [child for child in self._children if not child.reaped]
        for child in idle:
            if time.monotonic() - child.idle_since > after and child.busy.acquire(blocking=False):
                child.end()
                child.busy.release()

    def close(self, within: float) -> None:
        """Close the pool; kill the children that have not exited within `within` seconds."""
        until = time.monotonic() + within
        pause = threading.Event()
        while self._living() and time.monotonic() < until:
            pause.wait(0.01)
        for child in self._living():
            child.kill()

    def _living(self) -> list[ChildHandle]:
        with self._lock:
            return [child for child in self._children if not child.reaped]


def require(task: Task[..., Any], app: str | None) -> None:
    """Raise ConfigurationError unless a child can find the task."""
    reason = unreachable_reason(task_ref(task, app))
    if reason is not None:
        raise ConfigurationError(
            f'task {task.name!r} has isolation="process", but a child process could not import it: '
            f"{reason}; define it at the top level of a module that the program imports",
            field="isolation",
            value="process",
        )
