"""When a worker ends by itself: `max_jobs`, `max_memory`, `drain`, or a failure."""

import os
import resource
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from jobqueue.loggers import get_logger
from jobqueue.records import counted
from jobqueue.store.maintenance import Maintenance
from jobqueue.worker.claim.planner import ClaimPlanner
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import log
from jobqueue.worker.service_thread import Service
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.signal_safe_event import SignalSafeEvent

report_log = get_logger("jobqueue.report")

MEMORY_INTERVAL = 1.0  # seconds between two checks of the memory alone
JOBS_INTERVAL = 0.2  # seconds between two checks of the jobs, too


class ExitConditions:
    """Says when the worker is to stop. May be used from any thread."""

    def __init__(self) -> None:
        self.ended = SignalSafeEvent()
        """Set: it is to stop, in order."""
        self.failure: str | None = None
        """Why it stopped by itself before its time, if it did."""
        self.is_outgrown = False
        """It stopped because of `max_memory`, in order; another one is to take its place."""
        self.is_at_work = False
        """It has begun, and has not offered its last outcomes yet."""

    def is_over(self) -> bool:
        """True once it is to stop and has nothing to write that is worth waiting for."""
        return self.ended.is_set() and not self.is_at_work

    def fail(self, reason: str) -> None:
        """Stop, so that a supervisor starts afresh: no thread can be trusted any longer."""
        if self.failure is None:
            log.error("this worker stops: %s", reason)
            self.failure = reason
        self.ended.set()

    def recycle(self, reason: str) -> None:
        """Stop in order, so that a supervisor starts a small process: this one is too large."""
        log.warning("this worker stops in order: %s", reason)
        self.is_outgrown = True
        self.ended.set()


class ExitWatch(Service):
    """Ends the worker when one of its conditions is met: each is asked in turn, on one thread."""

    def __init__(
        self,
        conditions: Sequence[Callable[[], bool]],
        done: Callable[[], None],
        interval: float,
        name: str = "stop conditions",
    ) -> None:
        super().__init__(name)
        self._conditions = conditions
        self._done = done
        self._interval = interval

    def tick(self) -> float | None:
        """Ask until one is met."""
        if not any(is_met() for is_met in self._conditions):
            return self._interval
        self._done()
        return None


def exit_watches(
    stop: ExitConditions,
    settings: WorkerSettings,
    maintenance: Maintenance,
    planner: ClaimPlanner,
    tasks: Sequence[str],
) -> list[Service]:
    """The services that end a worker by itself, as far as its settings want that."""
    inflight, bound = planner.inflight, settings.max_memory
    interval = JOBS_INTERVAL if settings.max_jobs else MEMORY_INTERVAL
    conditions: list[Callable[[], bool]] = []
    watches: list[Service] = []
    if bound is not None:
        conditions.append(lambda: outgrown(bound, stop.recycle))
    if settings.max_jobs is not None:
        conditions.append(lambda: planner.exhausted and not inflight.held)
    if conditions:
        watches.append(ExitWatch(conditions, stop.ended.set, interval))
    if settings.drain:  # On its own thread: it alone asks the database, and may have to wait.
        queues = None if settings.queues is None else tuple(settings.queues)
        names = tuple(tasks)
        is_drained = partial(drained, maintenance, inflight, queues, names)
        watches.append(ExitWatch([is_drained], stop.ended.set, JOBS_INTERVAL, "drain"))
    return watches


def drained(
    maintenance: Maintenance,
    inflight: InFlight,
    queues: tuple[str, ...] | None,
    tasks: tuple[str, ...],
) -> bool:
    """True when nothing is left to run; logs what is not waited for."""
    if inflight.held or maintenance.unfinished(queues, tasks):
        return False
    for kind, count in maintenance.left_behind(queues, tasks).items():
        report_log.warning("not waited for: %s %s", counted(count, "job"), kind)
    return True


def outgrown(bound: int, recycle: Callable[[str], None]) -> bool:
    """True when the process has more than `bound` bytes of memory; says so to `recycle`."""
    present = resident()
    if present > bound:
        recycle(f"it has {present / 1e6:,.0f} MB of memory, more than {bound / 1e6:,.0f} MB")
    return present > bound


def resident() -> int:
    """Bytes of memory that this process has now; where nobody says, the most that it has had."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
