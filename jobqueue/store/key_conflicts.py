"""Conflicts of keys: what an enqueue does to the job that holds its unique key."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import astuple, replace
from sqlalchemy import Connection, Row, delete

from jobqueue.new_jobs import Conflict, ExtraColumns, Inserted, NewJob
from jobqueue.states import WAITING, State
from jobqueue.store.database import Store
from jobqueue.store.schema import jobs
from jobqueue.store.sql.conflicts import CONFLICT

ROUNDS = 20
"""Looks for the holder of a key, which may change hands between two statements."""

NO_EXTRA = ExtraColumns()


class KeyConflicts:
    """Resolves the conflicts of calls that have options for it, in the enqueue's transaction."""

    def __init__(
        self, store: Store, insert: Callable[[Connection, Sequence[NewJob]], Sequence[Row[Any]]]
    ) -> None:
        self._statements = store.statements
        self._insert = insert

    def resolve(
        self, connection: Connection, new: Sequence[NewJob], result: list[Inserted]
    ) -> None:
        """Change the holders of keys as calls ask for it; update the calls' results.

        In the order of ids, in which every transaction locks jobs, so that two cannot deadlock.
        """
        withdrawn: dict[int, int] = {}
        followed: dict[tuple[str | None, Conflict], Inserted] = {}
        conflicts = sorted((row.id, place) for place, row in enumerate(result))
        for id_, place in conflicts:
            job, row = new[place], result[place]
            if job.conflict is None:
                continue
            if not row.created:
                call = (job.unique_key, job.conflict)
                result[place] = followed.get(call) or self._resolve(connection, job, job.conflict)
                if not job.conflict.changes:  # All further ones get the same job.
                    followed[call] = Inserted(result[place].id, False)
            elif job.conflict.rerun and (waits := self._successor(connection, job)) is not None:
                # The holder has just ended, and upkeep has not passed its key on yet. While this
                # transaction has held the key, no other could take it.
                connection.execute(delete(jobs).where(jobs.c.id == id_))
                connection.execute(self._statements.take_key, {"in_job": waits})
                result[place] = self._resolve(connection, job, job.conflict)
                withdrawn[id_] = result[place].id
        for place, row in enumerate(result):
            if row.id in withdrawn:
                result[place] = Inserted(withdrawn[row.id], False)

    def _resolve(self, connection: Connection, job: NewJob, conflict: Conflict) -> Inserted:
        """Change the waiting holder of a key; insert the job if the holder has ended."""
        statements = self._statements
        change = statements.replace if replaces(job) else statements.reschedule
        for _ in range(ROUNDS):
            if conflict.changes:
                changed = connection.execute(change, conflict_parameters(job, conflict)).first()
                if changed is not None:
                    return Inserted(changed.id, False)
            keys = {"in_keys": [job.unique_key]}
            held = connection.execute(statements.unique_key_holders, keys).one_or_none()
            if held is None:
                for row in self._insert(connection, [job]):
                    return Inserted(int(row.id), True)
            elif State(held.state) not in WAITING:
                if not (conflict.rerun and State(held.state) is State.RUNNING):
                    return Inserted(int(held.id), False)
                follows = self._follow(connection, job, conflict)
                if follows is not None:
                    return follows
            elif not conflict.changes:
                return Inserted(int(held.id), False)
        raise kept_changing(repr(job.unique_key))

    def _follow(self, connection: Connection, job: NewJob, conflict: Conflict) -> Inserted | None:
        """Insert the job that waits for the key, or change the one that does.

        None: it has got the key meanwhile.
        """
        extra = (job.extra or NO_EXTRA)._replace(awaited_key=job.unique_key)
        for row in self._insert(connection, [replace(job, unique_key=None, extra=extra)]):
            return Inserted(int(row.id), True)
        statements = self._statements
        if not conflict.changes:
            waits = self._successor(connection, job)
        else:
            change = statements.reschedule_successor
            if replaces(job):
                change = statements.replace_successor
            changed = connection.execute(change, conflict_parameters(job, conflict))
            waits = changed.scalar_one_or_none()
        return None if waits is None else Inserted(waits, False)

    def _successor(self, connection: Connection, job: NewJob) -> int | None:
        key = {"in_unique_key": job.unique_key}
        found: int | None = connection.execute(self._statements.successor, key).scalar_one_or_none()
        return found


def replaces(job: NewJob) -> bool:
    """Return whether a call writes itself onto a waiting job that holds its key."""
    return job.conflict is not None and job.conflict.on_conflict == "replace"


def kept_changing(keys: str) -> RuntimeError:
    """Return the error of an enqueue that has not got hold of keys."""
    return RuntimeError(f"unique keys kept changing hands: {keys}")


def columns_of(job: NewJob) -> tuple[Any, ...]:
    """Return the values of NEW."""
    return astuple(job)[:-2]


def conflict_parameters(job: NewJob, conflict: Conflict) -> dict[str, Any]:
    """Return the parameters of the statements that change a waiting job."""
    values = (*columns_of(job), *(job.extra or NO_EXTRA), conflict.debounce, conflict.max_wait)
    return {f"in_{name}": value for name, value in zip(CONFLICT, values, strict=True)}
