"""The switches of queues in the database: what the code declares, and what operators change."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, select, update

from jobqueue.queue_switches import QueueSwitches, Rate
from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store.audit import Action, transact_audited
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.lanes import Lanes
from jobqueue.store.schema import queues


class Switchboard:
    """Changes the switches of queues, for the whole fleet, from the next claim on. Thread-safe.

    An operator's `action` is written to the audit.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lanes = Lanes(store)

    def declare(self, declared: Mapping[str, QueueSwitches]) -> None:
        """Write what an app declares, where it differs from what was declared last.

        So an operator's change stays until the code declares something else. Workers do this at
        their start.
        """
        if not declared:
            return
        columns = queues.c.name, queues.c.declared
        with self._store.read() as connection:
            rows = connection.execute(select(*columns).where(queues.c.name.in_(declared)))
            before = dict(map(tuple, rows))
        for name, switches in sorted(declared.items()):
            if before.get(name) != switches.to_text():
                self._store.transact(partial(self._declare, name=name, switches=switches))

    def _declare(self, connection: Connection, name: str, switches: QueueSwitches) -> None:
        text = select(queues.c.declared).where(queues.c.name == name).with_for_update()
        before = connection.execute(text).scalar_one_or_none()
        values = switches.changes(before) | {"declared": switches.to_text()}
        self._write(connection, name, values)

    def limit(self, queue: str, most: int | None, action: Action | None = None) -> None:
        """Let at most `most` jobs of a queue run at once; None: as many as there are slots."""
        self._change(queue, {"max_running": most}, action)

    def rate(self, queue: str, rate: Rate | None, action: Action | None = None) -> None:
        """Let jobs of a queue start at a rate; None: as soon as there are slots."""
        count, period, burst = rate or (None, None, None)
        values = {"rate_count": count, "rate_period": period, "rate_burst": burst}
        self._change(queue, values, action)

    def fair(self, queue: str, action: Action | None = None, *, fair: bool) -> None:
        """Let the concurrency keys of a queue take turns, or not."""
        self._change(queue, {"fair": 1 if fair else None}, action)

    def purge(self, queue: str, action: Action | None = None) -> int:
        """Delete the jobs of a queue that wait; return how many. Running ones go on."""
        jobs = Jobs(self._store)
        # In the order of a job's life: one that becomes due meanwhile is found by the second.
        return sum(
            len(jobs.delete(JobFilter(state=state, queue=queue), action)[0])
            for state in (State.SCHEDULED, State.AVAILABLE)
        )

    def _change(self, queue: str, values: Mapping[str, Any], action: Action | None) -> None:
        self._store.require_schema(beside_others=False)
        work = partial(self._write, queue=queue, values=values)
        transact_audited(self._store.transact, work, action, lambda _: 1)

    def _write(self, connection: Connection, queue: str, values: Mapping[str, Any]) -> None:
        # Insert first: if another process inserts the row meanwhile, the update finds it.
        connection.execute(self._store.backend.insert(queues).values(name=queue, **values))
        connection.execute(update(queues).where(queues.c.name == queue).values(**values))
        self._lanes.unpark_waiting(connection, queue)  # Or workers would pass it over for seconds.
