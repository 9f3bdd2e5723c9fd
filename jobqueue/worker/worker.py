"""The worker: starts its services in order, and stops them in reverse."""

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Self

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from jobqueue.events import EventStream
from jobqueue.loggers import get_logger
from jobqueue.records import counted
from jobqueue.store.database import Store
from jobqueue.tasks import Registry
from jobqueue.worker.assembly import Assembly, WorkerParts
from jobqueue.worker.handler.run import Middleware
from jobqueue.worker.isolate.importing import ImportGuard
from jobqueue.worker.log_context import about, name_worker, say
from jobqueue.worker.observe.health import WorkerHealth
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.signal_safe_event import SignalSafeEvent

log = get_logger("jobqueue.worker")

CHILD_EXIT_TIMEOUT = 1.0
"""Seconds for child processes to end after a stop request, before they are killed."""
FLUSH_TIMEOUT = 5.0
"""Seconds for which the last outcomes are offered to a database that does not answer."""


class Worker:
    """Runs jobs in this process until stopped. A context manager, or `start()` and `stop()`."""

    def __init__(
        self,
        url: str | URL,
        registry: Registry,
        settings: WorkerSettings,
        *,
        events: EventStream | None = None,
        middleware: Sequence[Middleware] = (),
        handlers: Store | None = None,  # The one that they use; None: one is made for them.
        declared: Callable[[Store], None] | None = None,  # Writes what the app declares.
    ) -> None:
        self.settings = settings
        self._declared = declared
        self._assembly = assembly = Assembly(
            url,
            registry,
            settings,
            events=events or EventStream(),
            middleware=middleware,
            handlers=handlers,
        )
        self._inflight = assembly.inflight
        self._stop_conditions = assembly.stop_conditions
        self._connections = assembly.connections
        self._parts: WorkerParts | None = None
        self._aborted = SignalSafeEvent()
        self._stopping = threading.Lock()
        self._in_order: bool | None = None
        self.name = ""

    def start(self, registered: Callable[[], None] | None = None) -> None:
        """Take a lease and begin. Raises what the database raises if it cannot be reached.

        `registered` is called in between, before any job can begin. A server that has no connection
        free is waited for; if the worker is stopped meanwhile, nothing begins.
        """
        copy_context().run(self._start, registered)  # Its name is of its own threads alone.

    def _start(self, registered: Callable[[], None] | None) -> None:
        try:
            ImportGuard.refuse("a worker starts")
            self._assembly.process_pool.check()
            store = self._assembly.store
            store.require_schema()
            if self._declared is not None:
                self._declared(store)
            self._parts = parts = self._assembly.build()
            self.name = parts.name
            parts.heartbeat.register()
        except BaseException as error:
            self._connections.close()
            if isinstance(error, DBAPIError) and self._stop_conditions.is_over():
                log.info("stopped before it had a connection")
                self._in_order = True  # Nothing has begun, so that there is nothing to stop.
                return
            raise
        self._stop_conditions.is_at_work = True
        if registered is not None:
            registered()
        try:
            for service in parts.services:
                service.start()
        except BaseException:  # The system has no thread to give: those that run claim jobs by now.
            self.stop(0)
            raise
        slots = self.settings.concurrency
        parts.thread_pool.resize(slots)
        say("began", "worker %s began, slots: %d", self.name, slots, slots=slots)

    @property
    def failure(self) -> str | None:
        """Why the worker stopped by itself before its time, if it did."""
        return self._stop_conditions.failure

    @property
    def outgrown(self) -> bool:
        """It stopped because of `max_memory`, in order; another one is to take its place."""
        return self._stop_conditions.is_outgrown

    @property
    def vitals(self) -> WorkerHealth:
        """How it fares; once it has begun."""
        services = self._parts.services if self._parts else ()
        return WorkerHealth(self.name, self._inflight, services, self._stop_conditions)

    @property
    def processed(self) -> int:
        """Attempts that ended here and were recorded."""
        return self._inflight.processed

    @property
    def concurrency(self) -> int:
        """Its slots at this moment."""
        return self._inflight.capacity.threads

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return len(self._inflight.running.attempts)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker has reason to end by itself (`drain`, `max_jobs`) or is stopped."""
        return self._stop_conditions.ended.wait(timeout)

    def request_stop(self) -> None:
        """Make `wait()` return; may be called from a signal handler."""
        self._stop_conditions.ended.set()

    def abort(self) -> None:
        """Do not wait for running handlers any longer; may be called from a signal handler."""
        self._aborted.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop: claim nothing more, give back what has not begun, let handlers end.

        Waits `timeout` seconds (default: the setting) for them; then their jobs go back uncharged.
        True if every handler ended in time and every outcome was recorded.
        """
        with self._stopping:
            if self._in_order is None:
                limit = self.settings.shutdown_timeout if timeout is None else timeout
                if self._parts is None:  # It was never started.
                    self._stop_conditions.ended.set()
                    self._connections.close()
                    self._in_order = True
                else:
                    self._in_order = copy_context().run(self._stop, self._parts, limit)
            return self._in_order

    def _stop(self, parts: WorkerParts, limit: float) -> bool:
        name_worker(self.name or None)
        self._stop_conditions.ended.set()
        parts.planner.closed = True
        given_back = self._inflight.close()
        parts.thread_pool.close()
        parts.async_runner.release_waiting()
        parts.completer.wake()
        if (running := len(self._inflight.running.attempts)) or given_back:
            back = counted(given_back, "job")
            log.info("stopping: %s given back, %d still running", back, running)
        in_order = self._await_handlers(parts, limit)
        if not in_order:
            for claim in self._inflight.detach_all():
                line = "job %d (%s) is interrupted and goes back"
                log.warning(line, claim.id, claim.task, extra=about(claim, "interrupted"))
        in_order &= self._await_outcomes(parts)
        isolation = self._assembly.process_pool
        isolation.close(CHILD_EXIT_TIMEOUT / 4 if self._aborted.is_set() else CHILD_EXIT_TIMEOUT)
        parts.async_runner.close()
        for service in reversed(parts.services):
            service.stop()
        self._stop_conditions.is_at_work = (
            False  # Now, so that who waits for a connection knows why.
        )
        until = time.monotonic() + FLUSH_TIMEOUT
        for service in reversed(parts.services):
            ended = service.join(max(0.0, until - time.monotonic()))
            in_order &= ended or service is parts.event_dispatcher  # A slow one holds up no job.
        parts.notifier.close()
        self._connections.leave(None if self._inflight.held else self._inflight.lease.worker)
        count = self._inflight.processed
        say("ended", "worker %s ended: %s", self.name, counted(count, "job"), processed=count)
        return in_order

    def _await_handlers(self, parts: WorkerParts, limit: float) -> bool:
        until = time.monotonic() + limit
        while self._inflight.capacity.asynchronous.open:
            if time.monotonic() >= until or self._aborted.wait(0.02):
                return False
        return parts.thread_pool.join(until, self._aborted)

    def _await_outcomes(self, parts: WorkerParts) -> bool:
        """Wait until the database has answered about every claim, or seems not to be there."""
        until = time.monotonic() + (1.0 if self._aborted.is_set() else FLUSH_TIMEOUT)
        while self._unsettled(parts) and time.monotonic() < until:
            parts.completer.wake()
            parts.claimer.wake()
            parts.completer.join(0.005)
        return not self._unsettled(parts)

    def _unsettled(self, parts: WorkerParts) -> bool:
        """True while a claim is on its way in, or an outcome on its way out."""
        inflight = self._inflight
        return parts.planner.commit_unknown or bool(inflight.held) or inflight.outbox.qsize() > 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
