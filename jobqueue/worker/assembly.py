"""Builds the services of a worker."""

from collections.abc import Callable

from jobqueue.events import EventStream
from jobqueue.store.database import Store
from jobqueue.store.history import History
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import Maintenance
from jobqueue.worker.complete.event_dispatcher import Announcer
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.observe.history import Recorder
from jobqueue.worker.observe.metrics import Metrics
from jobqueue.worker.observe.reporter import Reporter
from jobqueue.worker.process_identity import Identity
from jobqueue.worker.service import Service
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.shared_poll import Lookout
from jobqueue.worker.upkeep.pruner import Pruner
from jobqueue.worker.upkeep.reaper import Reaper
from jobqueue.worker.upkeep.scheduler import Scheduler


def upkeep_services(
    store: Store,
    lookout: Lookout,
    inflight: InFlight,
    me: Identity,
    *,
    settings: WorkerSettings,
    ring: Callable[[], None],
    announcer: Announcer,
    events: EventStream,
) -> list[Service]:
    """Due jobs, dead workers, retention."""
    maintenance = Maintenance(store)
    return [
        Scheduler(maintenance, lookout, settings.poll, ring),
        Reaper(
            Leases(store),
            lookout,
            inflight,
            me,
            reaped=ring,
            announce=announcer.announce,
            events=events,
        ),
        Pruner(maintenance, settings.retention),
    ]


def observers(
    settings: WorkerSettings,
    name: str,
    inflight: InFlight,
    metrics: Metrics,
    history: History,
    *,
    waiting: Callable[[int], int],
) -> list[Service]:
    """What a worker writes down and logs of its own work. `waiting` counts jobs up to a limit."""
    services: list[Service] = [Recorder(history, name, metrics.reader())]
    if settings.stats_interval is not None:
        services.append(Reporter(inflight, metrics.reader(), settings.stats_interval, waiting))
    return services
