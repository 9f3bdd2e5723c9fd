"""The lifespan of a worker: until when it works, and why it ends by itself."""

from collections.abc import Sequence

from jobqueue.loggers import get_logger
from jobqueue.store.leases import Upkeep
from jobqueue.worker.claim.planner import Intake
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.keepers import Drain, LastJob
from jobqueue.worker.memory import MemoryGuard
from jobqueue.worker.service import Service
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.signal_safe_event import Flag

log = get_logger("jobqueue.worker")


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
        upkeep: Upkeep,
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
            services.append(Drain(upkeep, inflight, queues=queues, tasks=tasks, done=done))
        return services
