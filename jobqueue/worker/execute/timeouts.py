"""The timeout watchdog: ends the claims of handlers that ignore their timeout.

A thread cannot be killed. One that ignores its deadline goes on, but its job does not wait for it:
the attempt is recorded as timed out, and another thread is started in its place.
"""

from collections.abc import Callable

from jobqueue.worker.execute.event_loop import AsyncRunner
from jobqueue.worker.execute.thread_pool import ThreadPool
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.handler.outcomes import timed_out
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.isolate.pool import ProcessPool
from jobqueue.worker.log_context import about, log
from jobqueue.worker.service_thread import Service

CHECK_INTERVAL = 0.5  # seconds, at most, between two checks


class TimeoutWatchdog(Service):
    """Watches the deadlines of running handlers, and whether one blocks the event loop."""

    def __init__(
        self,
        inflight: InFlight,
        thread_pool: ThreadPool,
        async_runner: AsyncRunner,
        *,
        finished: Callable[[], None],
        exhausted: Callable[[str], None],
        process_pool: ProcessPool,
    ) -> None:
        super().__init__("timeout watchdog")
        self._inflight = inflight
        self._thread_pool = thread_pool
        self._async_runner = async_runner
        self._finished = finished
        self._exhausted = exhausted
        self._process_pool = process_pool

    def tick(self) -> float:
        """End the claims of overdue handlers; return the seconds until the next check."""
        delay = CHECK_INTERVAL
        self._thread_pool.restore_missing()
        self._process_pool.end_idle_children()
        self._async_runner.report_blocked()
        for context in list(self._inflight.running.values()):
            if context.killable:
                continue
            overdue = context.overdue() - context.grace
            if overdue >= 0:
                self._detach(context)
            else:
                delay = min(delay, max(0.01, -overdue))
        return delay

    def _detach(self, context: Attempt) -> None:
        outcome = timed_out(context, context.where())
        if not self._inflight.detach(context, outcome):
            return
        if context.is_coroutine:
            self._async_runner.replace(context)
        else:
            self._thread_pool.replace(context.thread)
        log.warning(
            "job %d (%s) ignores its timeout: its claim is given up, the handler goes on",
            context.claim.id,
            context.claim.task,
            extra=about(context.claim),
        )
        self._finished()
        stuck = self._thread_pool.stuck
        if stuck >= self._inflight.capacity.threads:
            self._exhausted(f"{stuck} handlers ignored their timeouts and still run")
