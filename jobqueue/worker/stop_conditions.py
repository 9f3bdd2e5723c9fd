"""The stop conditions of a worker: until when it works, and why it ends by itself."""

import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jobqueue.loggers import get_logger
from jobqueue.records import counted
from jobqueue.store.maintenance import Maintenance
from jobqueue.worker.claim.planner import Intake
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.service import Service
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.signal_safe_event import Flag

log = get_logger("jobqueue.worker")
report_log = get_logger("jobqueue.report")

LOOK = 1.0  # seconds
DRAIN_LOOK = 0.2


class Lifespan:
    """Says when the worker is to stop. May be used from any thread."""

    def __init__(self) -> None:
        self.ended = Flag()
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

    def exhausted(self, reason: str) -> None:
        """No slot can be trusted any longer: end, so that a supervisor starts afresh."""
        if self.failure is None:
            log.error("this worker stops: %s", reason)
            self.failure = reason
        self.ended.set()

    def outgrown(self, reason: str) -> None:
        """The process is too large: end in order, so that a supervisor starts a small one."""
        log.warning("this worker stops in order: %s", reason)
        self.is_outgrown = True
        self.ended.set()

    def watchers(
        self,
        settings: WorkerSettings,
        maintenance: Maintenance,
        inflight: InFlight,
        intake: Intake,
        tasks: Sequence[str],
    ) -> list[Service]:
        """The services that end it, as the settings want."""
        done = self.ended.set
        services: list[Service] = []
        if settings.max_jobs is not None:
            services.append(LastJob(inflight, intake, done))
        if settings.max_memory is not None:
            services.append(MemoryGuard(settings.max_memory, self.outgrown))
        if settings.drain:
            queues = None if settings.queues is None else tuple(settings.queues)
            services.append(Drain(maintenance, inflight, queues=queues, tasks=tasks, done=done))
        return services


class LastJob(Service):
    """Notices that as many jobs were run as this worker was to run."""

    def __init__(self, inflight: InFlight, intake: Intake, done: Callable[[], None]) -> None:
        super().__init__("last job")
        self._inflight = inflight
        self._intake = intake
        self._done = done

    def tick(self) -> float | None:
        """Look."""
        if self._intake.exhausted and not self._inflight.held:
            self._done()
            return None
        return DRAIN_LOOK


class Drain(Service):
    """Notices that nothing is left to run."""

    def __init__(
        self,
        maintenance: Maintenance,
        inflight: InFlight,
        *,
        queues: Sequence[str] | None,
        tasks: Sequence[str],
        done: Callable[[], None],
    ) -> None:
        super().__init__("drain")
        self._maintenance = maintenance
        self._inflight = inflight
        self._queues = None if queues is None else tuple(queues)
        self._tasks = tuple(tasks)
        self._done = done

    def tick(self) -> float | None:
        """Look, when this worker has nothing itself."""
        if self._inflight.held or self._maintenance.unfinished(self._queues, self._tasks):
            return DRAIN_LOOK
        for kind, count in self._maintenance.left_behind(self._queues, self._tasks).items():
            report_log.warning("not waited for: %s %s", counted(count, "job"), kind)
        self._done()
        return None


class MemoryGuard(Service):
    """Looks every second at how much memory this process has."""

    def __init__(self, bound: int, outgrown: Callable[[str], None]) -> None:
        super().__init__("memory")
        self._bound = bound
        self._outgrown = outgrown

    def tick(self) -> float | None:
        """Look; beyond the bound, say so and be done."""
        present = resident()
        if present <= self._bound:
            return LOOK
        self._outgrown(
            f"it has {present / 1e6:,.0f} MB of memory, more than {self._bound / 1e6:,.0f} MB"
        )
        return None


def resident() -> int:
    """Bytes of memory that this process has now; where nobody says, the most that it has had."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
