"""Binds a JobQueue to one database; limits and tasks belong to the queue, not the binding."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from sqlalchemy import URL

from jobqueue import redaction
from jobqueue.job import Job
from jobqueue.schedules.scheduled_calls import declared
from jobqueue.store.backpressure import QueueLimit, QueueLimits
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.notify.notifier import Notifier
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schedule_ticks import Ticks
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Registry


class Binding(NamedTuple):
    """One database, and the parts that enqueue into it."""

    store: Store
    jobs: Jobs
    transactions: UserTransactions
    notifier: Notifier
    made: Callable[[Sequence[Job[Any]]], object] | None = None
    """Called with the jobs of each enqueue, for tests."""

    @classmethod
    def to(
        cls,
        url: str | URL,
        connections: int,
        limits: Mapping[str, QueueLimit],
        *,
        named: bool = True,
    ) -> Self:
        """Bind to a database; does not connect. Raises ConfigurationError for its URL."""
        store = Store(url, named=named, connections=connections)
        jobs = Jobs(store)
        jobs.limits.declare(limits)
        notifier = Notifier(store.backend.notification_sender(store.engine))
        return cls(store, jobs, UserTransactions(store), notifier)


def write_declarations(limits: QueueLimits, registry: Registry, store: Store) -> None:
    """Write what an app declares, queues and schedules, as its workers do at their start."""
    limits.write(store)
    QueueControl(store).declare(registry.queues)
    redaction.declare(store, registry)
    Ticks(store).declare(declared(registry), list(registry))
