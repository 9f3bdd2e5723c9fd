"""Stops a worker: the order in which its parts stop, and how long the shutdown waits for each."""

import time

from jobqueue.records import counted
from jobqueue.worker.assembly import Assembly, WorkerParts
from jobqueue.worker.log_context import about, log, log_event, name_worker
from jobqueue.worker.signal_safe_event import SignalSafeEvent

CHILD_EXIT_TIMEOUT = 1.0
"""Seconds for child processes to exit after a stop request, before they are killed."""
FLUSH_TIMEOUT = 5.0
"""Seconds for which a shutdown retries to record the last outcomes."""


class Shutdown:
    """The shutdown of one worker that has started; `aborted` ends the waiting for handlers."""

    def __init__(self, assembly: Assembly, parts: WorkerParts, aborted: SignalSafeEvent) -> None:
        self._assembly = assembly
        self._inflight = assembly.inflight
        self._parts = parts
        self._aborted = aborted

    def run(self, limit: float) -> bool:
        """Stop the worker; handlers have `limit` seconds. True: all that was begun is recorded."""
        name_worker(self._parts.name)
        self._assembly.exit_conditions.ended.set()
        self._release_what_has_not_started()
        in_order = self._await_handlers(limit)
        if not in_order:
            for claim in self._inflight.detach_all():
                line = "job %d (%s) is interrupted and goes back"
                log.warning(line, claim.id, claim.task, extra=about(claim, "interrupted"))
        in_order &= self._await_outcomes()
        quickly = self._aborted.is_set()
        self._assembly.process_pool.close(CHILD_EXIT_TIMEOUT / 4 if quickly else CHILD_EXIT_TIMEOUT)
        in_order &= self._stop_services()
        self._parts.notifier.close()
        inflight = self._inflight
        self._assembly.connections.leave(None if inflight.held else inflight.lease.worker)
        name, count = self._parts.name, inflight.processed
        log_event("ended", "worker %s ended: %s", name, counted(count, "job"), processed=count)
        return in_order

    def _release_what_has_not_started(self) -> None:
        parts = self._parts
        parts.planner.closed = True
        given_back = self._inflight.close()
        parts.thread_pool.close()
        parts.async_runner.release_waiting()
        parts.completer.wake()
        if (running := len(self._inflight.running)) or given_back:
            back = counted(given_back, "job")
            log.info("stopping: %s given back, %d still running", back, running)

    def _await_handlers(self, limit: float) -> bool:
        until = time.monotonic() + limit
        while self._inflight.capacity.asynchronous.open:
            if time.monotonic() >= until or self._aborted.wait(0.02):
                return False
        return self._parts.thread_pool.join(until, self._aborted)

    def _await_outcomes(self) -> bool:
        """Wait up to FLUSH_TIMEOUT (1 s after an abort) for commits of claims and outcomes."""
        parts = self._parts
        until = time.monotonic() + (1.0 if self._aborted.is_set() else FLUSH_TIMEOUT)
        while (
            self._is_unsettled() or parts.planner.lanes.is_behind()
        ) and time.monotonic() < until:
            parts.completer.wake()
            parts.claimer.wake()
            parts.completer.join(0.005)
        return not self._is_unsettled()

    def _is_unsettled(self) -> bool:
        """Return whether a claim or an outcome is not committed yet."""
        inflight = self._inflight
        return (
            self._parts.planner.commit_unknown or bool(inflight.held) or inflight.outbox.qsize() > 0
        )

    def _stop_services(self) -> bool:
        """Stop the threads, the last started first; return whether they ended in time."""
        parts, in_order = self._parts, True
        parts.async_runner.close()
        for service in reversed(parts.services):
            service.stop()
        # Before the services are joined: threads that wait for a connection give up.
        self._assembly.exit_conditions.is_at_work = False
        until = time.monotonic() + FLUSH_TIMEOUT
        for service in reversed(parts.services):
            ended = service.join(max(0.0, until - time.monotonic()))
            in_order &= ended or service is parts.event_dispatcher  # A slow one delays no job.
        return in_order
