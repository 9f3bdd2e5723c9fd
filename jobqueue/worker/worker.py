"""The worker as its program sees it: start, stop, wait; its health and its figures."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Self

from sqlalchemy.exc import DBAPIError

from jobqueue.store.database import Store
from jobqueue.worker.assembly import Assembly, WorkerParts
from jobqueue.worker.isolate.importing import ImportGuard
from jobqueue.worker.log_context import log, log_event
from jobqueue.worker.observe.health import WorkerHealth
from jobqueue.worker.shutdown import Shutdown
from jobqueue.worker.signal_safe_event import SignalSafeEvent


class Worker:
    """Runs jobs in this process until stopped. A context manager, or `start()` and `stop()`."""

    def __init__(
        self,
        assembly: Assembly,
        declared: Callable[[Store], None],  # Writes the app's queue limits.
    ) -> None:
        self.settings = assembly.settings
        self._declared = declared
        self._assembly = assembly
        self._inflight = assembly.inflight
        self._exit_conditions = assembly.exit_conditions
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
            self._declared(store)
            self._parts = parts = self._assembly.build()
            self.name = parts.name
            parts.heartbeat.register()
        except BaseException as error:
            if parts is not None:
                parts.discard()
                self._parts = None
            self._connections.close()
            if isinstance(error, DBAPIError) and self._exit_conditions.is_over():
                log.info("stopped before it had a connection")
                self._in_order = True  # No service has started, so there is none to stop.
                return
            raise
        self._exit_conditions.is_at_work = True
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
        log_event("began", "worker %s began, slots: %d", self.name, slots, slots=slots)

    @property
    def failure(self) -> str | None:
        """Return why the worker stopped by itself because of an error, or None."""
        return self._exit_conditions.failure

    @property
    def outgrown(self) -> bool:
        """Return whether it stopped because of `max_memory`, and should be replaced."""
        return self._exit_conditions.is_outgrown

    @property
    def health(self) -> WorkerHealth:
        """Return the health and the figures of the worker."""
        services = self._parts.services if self._parts else ()
        return WorkerHealth(
            self.name,
            self._inflight,
            services,
            self._exit_conditions,
            self._assembly.metrics,
            self._connections.heartbeat.require_place,
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
        return self._exit_conditions.ended.wait(timeout)

    def request_stop(self) -> None:
        """Make `wait()` return; may be called from a signal handler."""
        self._exit_conditions.ended.set()

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
                    self._exit_conditions.ended.set()
                    self._connections.close()
                    self._in_order = True
                else:
                    shutdown = Shutdown(self._assembly, self._parts, self._aborted)
                    self._in_order = copy_context().run(shutdown.run, limit)
            return self._in_order

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
