"""A worker's vitals: what its probes tell of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobqueue.worker.inflight import InFlight
from jobqueue.worker.service import Service
from jobqueue.worker.stop_conditions import StopConditions


class Health(NamedTuple):
    """Each of them should be true."""

    alive: bool  # it answers, and did not give up by itself
    lease: bool  # others may rely on its claims
    database: bool  # no service of it fails
    working: bool  # it is not stopping


class Reading(NamedTuple):
    """A figure, as Prometheus wants it."""

    name: str
    kind: str  # gauge or counter
    what: str
    value: float


@dataclass(frozen=True, slots=True)
class Vitals:
    """Looks when it is asked, and touches no database. May be used from any thread."""

    name: str
    inflight: InFlight
    services: Sequence[Service]
    stop_conditions: StopConditions

    def health(self) -> Health:
        """How it fares now."""
        return Health(
            alive=self.stop_conditions.failure is None,
            lease=self.inflight.lease.good(),
            database=not any(service.failing for service in self.services),
            working=not self.stop_conditions.ended.is_set(),
        )

    def readings(self) -> list[Reading]:
        """Its counters and gauges now."""
        inflight = self.inflight
        return [
            Reading("slots", "gauge", "Threads that run jobs.", inflight.capacity.threads),
            Reading("busy", "gauge", "Handlers that run now.", len(inflight.running.attempts)),
            Reading("busy_seconds_total", "counter", "For how long.", inflight.busy_seconds()),
            Reading("held", "gauge", "Jobs in its hands.", len(inflight.held)),
            Reading("processed_total", "counter", "Attempts that ended.", inflight.processed),
            Reading("errored_total", "counter", "Attempts that errored.", inflight.errored),
            Reading("lease", "gauge", "1 while its lease is good.", inflight.lease.good()),
        ]
