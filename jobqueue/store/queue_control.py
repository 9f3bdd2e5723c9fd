"""Control of queues: limits, rates and fair shares that code declares and operators set; purges."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, update

from jobqueue.queue_switches import QueueSwitches, Rate, columns_of, value_of
from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store.audit import Action, action_of, transact_audited
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.lanes import Lanes
from jobqueue.store.schema import LaneKind, queues
from jobqueue.store.sql.predicates import in_force


class QueueControl:
    """Changes the switches of queues, for the whole fleet, from the next claim on. Thread-safe.

    `limit`, `rate` and `fair` return False where the switch was so already. What an `operator`
    changes is written to the audit.
    """

    def __init__(self, store: Store, operator: str | None = None) -> None:
        self._store = store
        self._operator = operator
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
        # Insert first: if another process inserts the row meanwhile, it is read and locked.
        connection.execute(self._store.backend.insert(queues).values(name=name))
        text = select(queues.c.declared).where(queues.c.name == name).with_for_update()
        before = connection.execute(text).scalar_one()
        values = switches.changes(before) | {"declared": switches.to_text()}
        self._write(connection, name, values)

    def limit(self, queue: str, most: int | None) -> bool:
        """Let at most `most` jobs of a queue run at once; None: as many as there are slots."""
        return self._operate(queue, "limit", most)

    def rate(self, queue: str, rate: Rate | None) -> bool:
        """Let jobs of a queue start at a rate; None: as soon as there are slots."""
        return self._operate(queue, "rate", rate and str(rate))

    def fair(self, queue: str, *, fair: bool) -> bool:
        """Let the concurrency keys of a queue take turns, or not."""
        return self._operate(queue, "fair", fair)

    def _operate(self, queue: str, switch: str, value: Any) -> bool:
        action = action_of(self._operator, switch, queue=queue, **{switch: value})
        return self._set(queue, switch, value, action)

    def restore(self, queue: str, switch: str, value: Any, action: Action, *, seen: Any) -> bool:
        """Set a switch to an earlier value while it is as `seen`; return False if it is not."""
        return self._set(queue, switch, value, action, in_force(queues, columns_of(switch, seen)))

    def purge(self, queue: str) -> int:
        """Delete the jobs of a queue that wait; return how many. Running ones go on."""
        jobs, action = Jobs(self._store), action_of(self._operator, "purge", queue=queue)
        # In the order of a job's life: one that becomes due meanwhile is found by the second.
        return sum(
            len(jobs.delete(JobFilter(state=state, queue=queue), action)[0])
            for state in (State.SCHEDULED, State.AVAILABLE)
        )

    def _set(
        self,
        queue: str,
        switch: str,
        value: Any,
        action: Action | None,
        still: Sequence[ColumnElement[bool]] = (),
    ) -> bool:
        """Set a switch, if the row is `still` so; return whether that changed it.

        See `columns_of` for the value.
        """
        self._store.require_schema(beside_others=False)
        values = columns_of(switch, value)
        columns = [queues.c[name] for name in values]
        there = select(*columns).where(queues.c.name == queue).with_for_update()

        def work(connection: Connection) -> bool:
            # Insert first: if another process inserts the row meanwhile, it is read and locked.
            row = self._store.backend.insert(queues).values(name=queue)
            made = connection.execute(row.returning(queues.c.name)).first() is not None
            old = value_of(switch, dict(connection.execute(there).mappings().one()))
            if old == value_of(switch, values):
                if made:
                    connection.execute(delete(queues).where(queues.c.name == queue))
                return False
            if action is not None:
                action.before = {switch: old}
            return self._write(connection, queue, values, still)

        return transact_audited(self._store, work, action, int)

    def _write(
        self,
        connection: Connection,
        queue: str,
        values: Mapping[str, Any],
        still: Sequence[ColumnElement[bool]] = (),
    ) -> bool:
        row = update(queues).where(queues.c.name == queue, *still).values(**values)
        if connection.execute(row.returning(queues.c.name)).first() is None:
            return False
        # Or workers would pass it over for seconds.
        self._lanes.unpark_waiting(connection, [(LaneKind.QUEUE, queue)])
        return True
