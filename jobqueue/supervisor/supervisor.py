"""Supervises worker processes: starts them, restarts those that die, stops them together.

The supervisor imports no app and opens no database. It runs in one thread, which waits for signals,
for messages of the processes and for their next start, whichever comes first.
"""

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from jobqueue.loggers import get_logger
from jobqueue.os_signals import STOPS, SignalPipe, StopRequests, signal_name
from jobqueue.records import counted
from jobqueue.supervisor.worker_process import (
    ABORT_TIMEOUT,
    ProcessState,
    SupervisorConfig,
    WorkerProcess,
)

log = get_logger("jobqueue.supervisor")

FLUSH_TIMEOUT = 15.0
"""Seconds beyond the shutdown timeout in which a worker records its outcomes and exits."""

BAD_USAGE = 2
RELOAD_POLL_INTERVAL = 0.5  # seconds between two checks for a changed file


class Supervisor:
    """Runs worker processes until a stop signal, or until all have exited.

    The others start once the first is at work: what keeps every worker from starting (a bad app, no
    schema) is reported once, and ends the supervisor with that exit code. From then on a process
    that dies is restarted, after a pause that grows with its exits in a row; one that ends with 0
    is not. `changed` returns a file that has changed: then all are restarted at once.
    """

    def __init__(
        self, config: SupervisorConfig, changed: Callable[[], str | None] | None = None
    ) -> None:
        self._config = config
        self._changed = changed
        self._workers = [WorkerProcess(number) for number in range(1, config.count + 1)]
        self._selector = selectors.DefaultSelector()
        self._first_started = False
        """One was at work: what keeps others from starting is no longer a reason that all share."""
        self._stop_level, self._requests = 0, StopRequests()
        self._exit_code = 0
        self.signal: str | None = None
        """The name of the first stop signal."""
        self.restarts = 0
        self.summaries: list[dict[str, Any]] = []
        """What each process reported when it ended in order."""

    def run(self) -> int:
        """Supervise until the end; returns the exit code."""
        log.info("supervising %s", counted(self._config.count, "worker process"))
        with SignalPipe(*STOPS, signal.SIGCHLD) as pipe, self._selector:
            signals = pipe.reader
            signals.setblocking(False)
            self._selector.register(signals, selectors.EVENT_READ)
            try:
                while self._running or self._expects_start():
                    self._start_due()
                    self._wait(signals)
                    self._check_processes()
                    self._reload_if_changed()
            finally:
                for worker in self._running:
                    self._kill(worker)
        pipe.close_reader()
        return max([self._exit_code, *(worker.exit_code for worker in self._workers)])

    @property
    def _running(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker.process is not None]

    def _expects_start(self) -> bool:
        if self._stop_level:
            return False
        broken = self._changed is not None and any(worker.exit_code for worker in self._workers)
        return broken or any(worker.state is ProcessState.DUE for worker in self._workers)

    def _due(self) -> list[WorkerProcess]:
        """Those to be started, now or later; none but the first before that one is at work."""
        if self._stop_level:
            return []
        workers = self._workers if self._first_started else self._workers[:1]
        return [worker for worker in workers if worker.state is ProcessState.DUE]

    def _start_due(self) -> None:
        for worker in self._due():
            if worker.start_at <= time.monotonic() and self._start(worker):
                assert worker.channel is not None
                self._selector.register(worker.channel, selectors.EVENT_READ, worker)

    def _start(self, worker: WorkerProcess) -> bool:
        """Start a process; False where the system has none left now, and others go on."""
        try:
            worker.start(self._config)
        except OSError as error:
            if not self._first_started:
                raise
            log.warning(
                "worker process %d cannot be started (%s); retrying in %.1f s",
                worker.number,
                error,
                worker.retry(),
            )
            return False
        return True

    def _wait(self, signals: socket.socket) -> None:
        """Wait for a signal, a message of a process, or the next time to act."""
        times = [worker.start_at for worker in self._due()]
        times += [worker.kill_at for worker in self._running if worker.kill_at is not None]
        if self._changed is not None:
            times.append(time.monotonic() + RELOAD_POLL_INTERVAL)
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is signals:
                for number in signals.recv(256):
                    self._handle_signal(number)
            elif key.data.receive():
                self._first_started |= key.data.started_work_at is not None
            else:
                self._selector.unregister(key.fileobj)  # It exits now; SIGCHLD follows.

    def _handle_signal(self, number: int) -> None:
        if number not in STOPS or self._stop_level > 1 or not self._requests.is_new(number):
            return
        name = signal_name(number)
        self.signal = self.signal or name
        how = "at once" if self._stop_level else "in order; a second signal stops them at once"
        log.info("%s: stopping %s %s", name, counted(len(self._running), "worker process"), how)
        self._stop(self._stop_level + 1)

    def _stop(self, level: int) -> None:
        """Pass a stop on to all.

        Over the channel, not as a signal: a service manager may send its own signal to the workers
        as well, and a worker must not take its first one for a second.
        """
        timeout = ABORT_TIMEOUT if level > 1 else self._config.shutdown_timeout + FLUSH_TIMEOUT
        for worker in self._workers:
            if worker.process is None:
                worker.end(0)
            else:
                worker.stop(level - self._stop_level, timeout)
        self._stop_level = level

    def _check_processes(self) -> None:
        for worker in self._running:
            assert worker.process is not None
            code = worker.process.poll()
            if code is not None:
                self._exited(worker, code)
            elif worker.kill_at is not None and time.monotonic() >= worker.kill_at:
                log.error("worker process %d did not stop in time: killed", worker.process.pid)
                self._kill(worker)

    def _reload_if_changed(self) -> None:
        if self._changed is not None and not self._stop_level and (path := self._changed()):
            log.info("%s has changed: restarting", path)
            for worker in self._workers:
                worker.reload()

    @staticmethod
    def _kill(worker: WorkerProcess) -> None:
        assert worker.process is not None
        worker.kill_at = None
        worker.process.kill()

    def _exited(self, worker: WorkerProcess, code: int) -> None:
        """Decide what follows a process that has exited."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.channel)  # type: ignore[arg-type]
        pid = worker.collect()
        loading = worker.started_work_at is None
        self._first_started |= not loading
        if worker.summary is not None:
            self.summaries.append(worker.summary)
        if self._stop_level:
            worker.end(0 if worker.stopped_in_order(code) else 1)
        elif worker.state is ProcessState.RELOADING:
            worker.restart()
        elif worker.ended_by_itself(code) and not worker.outgrown:
            log.info("worker process %d has ended by itself", pid)
            self._first_started = True
            worker.end(0)
        elif loading and (code == BAD_USAGE or not self._first_started):
            self._cannot_start(worker, pid, code)
        else:
            self.restarts += 1
            how, delay = worker.describe_exit(code), worker.retry()
            log.warning("worker process %d %s; another one starts in %.1f s", pid, how, delay)

    def _cannot_start(self, worker: WorkerProcess, pid: int, code: int) -> None:
        """Give up: another try would end the same, unless a file changes."""
        worker.end(code if code > 0 else 1)
        how = worker.describe_exit(code)
        if self._changed is not None:
            log.warning("worker process %d %s; waiting for a change", pid, how)
            return
        log.error("worker process %d %s; the supervisor ends too", pid, how)
        self._exit_code = worker.exit_code
        self._stop(1)
