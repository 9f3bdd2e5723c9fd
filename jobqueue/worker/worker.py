"""The worker: starts its services in order, and stops them in reverse order."""

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Self

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from jobqueue.calls import EnqueueHook
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
"""Seconds for child processes to exit after a stop request, before they are killed."""
FLUSH_TIMEOUT = 5.0
"""Seconds for which a shutdown retries to record the last outcomes."""


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
        enqueue_hooks: Sequence[EnqueueHook] = (),  # For the jobs of schedules.
        handlers: Store | None = None,  # The store that handlers use; None creates one.
        declared: Callable[[Store], None] | None = None,  # Writes the app's queue limits.
    ) -> None:
        self.settings = settings
        self._declared = declared
        self._assembly = assembly = Assembly(
            url,
            registry,
            settings,
            events=events or EventStream(),
            middleware=middleware,
            enqueue_hooks=enqueue_hooks,
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
        """Register a lease and start the services. Raises the database's error if it is away.

        `registered` is called after the lease is registered, before any job can start. While a
        server has no free connection, it waits; if the worker is stopped meanwhile, nothing starts.
        """
        copy_context().run(self._start, registered)  # The worker's name is for its threads only.

    def _start(self, registered: Callable[[], None] | None) -> None:
        parts: WorkerParts | None = None
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
            if parts is not None:
                parts.discard()
                self._parts = None
            self._connections.close()
            if isinstance(error, DBAPIError) and self._stop_conditions.is_over():
                log.info("stopped before it had a connection")
                self._in_order = True  # No service has started, so there is none to stop.
                return
            raise
        self._stop_conditions.is_at_work = True
        if registered is not None:
            registered()
        try:
            for service in parts.services:
                service.start()
        except BaseException:  # No thread left: stop the services that have started.
            self.stop(0)
            raise
        slots = self.settings.concurrency
        parts.thread_pool.resize(slots)
        say("began", "worker %s began, slots: %d", self.name, slots, slots=slots)

    @property
    def failure(self) -> str | None:
        """Return why the worker stopped by itself because of an error, or None."""
        return self._stop_conditions.failure

    @property
    def outgrown(self) -> bool:
        """Return whether it stopped because of `max_memory`, and should be replaced."""
        return self._stop_conditions.is_outgrown

    @property
    def health(self) -> WorkerHealth:
        """Return the health and the figures of the worker."""
        services = self._parts.services if self._parts else ()
        return WorkerHealth(
            self.name, self._inflight, services, self._stop_conditions, self._assembly.metrics
        )

    @property
    def processed(self) -> int:
        """Return the number of attempts that ended in this worker and were recorded."""
        return self._inflight.processed

    @property
    def concurrency(self) -> int:
        """Return the present number of threads for jobs."""
        return self._inflight.capacity.threads

    @property
    def running(self) -> int:
        """Return the number of handlers that run now."""
        return len(self._inflight.running)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker is stopped, or ends by itself (`drain`, `max_jobs`)."""
        return self._stop_conditions.ended.wait(timeout)

    def request_stop(self) -> None:
        """Make `wait()` return; may be called from a signal handler."""
        self._stop_conditions.ended.set()

    def abort(self) -> None:
        """Stop waiting for running handlers; may be called from a signal handler."""
        self._aborted.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop: claim no more jobs, release those that have not started, wait for handlers.

        After `timeout` seconds (default: `shutdown_timeout`) running jobs are released uncharged.
        Return whether every handler ended in time and every outcome was recorded.
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
        if (running := len(self._inflight.running)) or given_back:
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
            False  # Before the services are joined: threads that wait for a connection give up.
        )
        until = time.monotonic() + FLUSH_TIMEOUT
        for service in reversed(parts.services):
            ended = service.join(max(0.0, until - time.monotonic()))
            in_order &= ended or service is parts.event_dispatcher  # A slow one delays no job.
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
        """Wait up to FLUSH_TIMEOUT (1 s after an abort) for commits of claims and outcomes."""
        until = time.monotonic() + (1.0 if self._aborted.is_set() else FLUSH_TIMEOUT)
        while (
            self._unsettled(parts) or parts.planner.lanes.is_behind()
        ) and time.monotonic() < until:
            parts.completer.wake()
            parts.claimer.wake()
            parts.completer.join(0.005)
        return not self._unsettled(parts)

    def _unsettled(self, parts: WorkerParts) -> bool:
        """Return whether a claim or an outcome is not committed yet."""
        inflight = self._inflight
        return parts.planner.commit_unknown or bool(inflight.held) or inflight.outbox.qsize() > 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
