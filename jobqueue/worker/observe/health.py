"""A worker's health and gauges, as its probes show them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobqueue.errors import DatabaseReplaced
from jobqueue.records import lasting
from jobqueue.worker.exit_conditions import ExitConditions
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.observe.metrics import Metrics
from jobqueue.worker.service_thread import Service


class Health(NamedTuple):
    """All are true for a healthy worker."""

    alive: bool  # it answers, and did not give up by itself
    lease: bool  # others may rely on its claims
    database: bool  # no service of it fails, and the SQLite file is in its place
    working: bool  # it is not stopping


class Sample(NamedTuple):
    """A figure, as Prometheus wants it."""

    name: str
    kind: str  # gauge or counter
    what: str
    value: float


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """Reads the worker's state when it is asked, not the database. May be used from any thread."""

    name: str
    inflight: InFlight
    services: Sequence[Service]
    exit_conditions: ExitConditions
    metrics: Metrics
    require_place: Callable[[], None]
    """See `Store.require_place`."""

    def check(self) -> Health:
        """Return what is well and what is not now."""
        return Health(
            alive=self.exit_conditions.failure is None,
            lease=self.inflight.lease.good(),
            database=not self._failing and self._lost_file is None,
            working=not self.exit_conditions.ended.is_set(),
        )

    def why_not(self, health: Health) -> str | None:
        """Return in one line the first reason why a worker is not ready, or None."""
        if not health.alive:
            return self.exit_conditions.failure
        if not health.database and (lost := self._lost_file):
            return lost
        if not health.database:
            failing = ", ".join(self._failing) or "none any more"  # Since `check`.
            return f"these services fail, see the log: {failing}"
        if not health.lease:
            return f"no heartbeat has landed for {lasting(self.inflight.lease.length)}"
        return None if health.working else "the worker is stopping"

    @property
    def _failing(self) -> list[str]:
        return [service.name for service in self.services if service.failing]

    @property
    def _lost_file(self) -> str | None:
        try:
            self.require_place()
        except DatabaseReplaced as lost:
            return str(lost)
        return None

    def samples(self) -> list[Sample]:
        """Return the counters and gauges now."""
        inflight = self.inflight
        return [
            Sample("slots", "gauge", "Threads that run jobs.", inflight.capacity.threads),
            Sample("busy", "gauge", "Handlers that run now.", len(inflight.running)),
            Sample("busy_seconds_total", "counter", "For how long.", inflight.busy_seconds()),
            Sample("held", "gauge", "Claims that this worker holds.", len(inflight.held)),
            Sample("processed_total", "counter", "Attempts that ended.", inflight.processed),
            Sample("errored_total", "counter", "Attempts that errored.", inflight.errored),
            Sample("lease", "gauge", "1 while its lease is good.", inflight.lease.good()),
        ]
