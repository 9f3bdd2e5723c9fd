"""Maintenance: due jobs, retention, counters. Every worker may run each part at any time."""

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from jobqueue.loggers import get_logger
from jobqueue.records import ExpiredJob
from jobqueue.states import State
from jobqueue.store.audit import Action, transact_audited
from jobqueue.store.clock import after, once
from jobqueue.store.compaction import LEDGERS, compact
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import Store
from jobqueue.store.indexes import AWAITS_KEY
from jobqueue.store.schema import attempts, audit, jobs
from jobqueue.store.sql.predicates import (
    AVAILABLE,
    LIMIT_IS_0,
    QUEUE_PAUSED,
    in_state,
    unpaused,
)

log = get_logger("jobqueue.store")

BATCH = 500
DAY = 86_400.0
ACTIONS_KEPT = 90 * DAY
"""Seconds for which the audit is kept."""

_MAY_START = and_(~QUEUE_PAUSED, ~LIMIT_IS_0, unpaused())


class Maintenance:
    """Upkeep of the tables. Every method runs short transactions that workers may run at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements = store.statements

    def promote(self, limit: int = BATCH) -> list[str]:
        """Make due jobs available; return the queue of each."""
        due = (self._statements.promote, {"in_limit": limit})
        return self._store.transact_at_once(lambda own: list(own.scalars(*due)))

    def pass_on_keys(self, limit: int = BATCH) -> int:
        """Give keys that are free to the jobs that wait for them; return how many.

        A key that another transaction is about to take is left for the next round.
        """

        def work(connection: Connection) -> int:
            passed, waiters = 0, self._statements.waiters_of_free_keys
            for id_ in connection.execute(waiters, {"in_limit": limit}).scalars():
                try:
                    with connection.begin_nested():
                        taken = connection.execute(self._statements.take_key, {"in_job": id_})
                        passed += taken.scalar_one_or_none() is not None
                except IntegrityError:
                    log.debug("job %d waits on: its key was taken again", id_)
                except OperationalError as error:
                    if not self._store.backend.is_transient(error) or connection.invalidated:
                        raise
                    log.debug("job %d waits on: its key is locked", id_)
            return passed

        return self._store.transact_at_once(work)

    def expire(self, limit: int = BATCH) -> list[ExpiredJob]:
        """Cancel jobs that have not begun in time; return them."""

        def work(connection: Connection) -> list[ExpiredJob]:
            rows = connection.execute(self._statements.expire, {"in_limit": limit})
            expired = [ExpiredJob(*row) for row in rows]
            counts = TransactionCounts()
            for job in expired:
                counts.ended(job.queue, job.task, State.CANCELLED)
            counts.write(connection, self._store)
            return expired

        return self._store.transact_at_once(work)

    def prune(
        self,
        state: State,
        older_than: float,
        limit: int = BATCH,
        queue: str | None = None,
        action: Action | None = None,
    ) -> int:
        """Delete up to `limit` jobs that ended in `state` more than `older_than` seconds ago.

        An operator's `action` is written to the audit.
        """
        oldest = (
            select(jobs.c.id)
            .where(in_state(state), jobs.c.finished_at < once(after(-older_than)))
            .order_by(jobs.c.finished_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=jobs)
        )
        if queue is not None:
            oldest = oldest.where(jobs.c.queue == queue)

        def work(connection: Connection) -> int:
            ids = list(connection.execute(oldest).scalars())
            if ids:
                # Before the first ANALYZE, PostgreSQL 15 would read the whole table.
                self._store.backend.prefer_indexes(connection)
                connection.execute(delete(attempts).where(attempts.c.job_id.in_(ids)))
                connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))
            return len(ids)

        return transact_audited(self._store, work, action, int, at_once=True)

    def forget_actions(self) -> None:
        """Delete what operators did more than 90 days ago from the audit."""
        old = delete(audit).where(audit.c.at < once(after(-ACTIONS_KEPT)))
        self._store.transact_at_once(lambda connection: connection.execute(old))

    def compact(self, limit: int = 5000) -> int:
        """Add up the counts of events and of errors, into totals and into rows per minute or hour.

        Return the number of rows that it replaced or deleted: at least `limit` if there may be
        more.
        """
        return sum(compact(self._store, ledger, limit) for ledger in LEDGERS)

    def available(self, queues: tuple[str, ...] | None, limit: int) -> int:
        """Return how many jobs could be claimed, counted up to `limit`."""
        mine = _MAY_START if queues is None else and_(_MAY_START, jobs.c.queue.in_(queues))
        some = union_all(*(select(jobs.c.id).where(part, mine) for part in AVAILABLE)).limit(limit)
        with self._store.read() as connection:
            count = select(func.count()).select_from(some.subquery())
            return int(connection.execute(count).scalar_one())

    def unfinished(self, queues: tuple[str, ...] | None, tasks: tuple[str, ...]) -> bool:
        """Return whether a drain has to wait: a job is available, running or awaits a retry."""
        kinds = (  # A subquery each, with the predicate of its index: OR would scan the table.
            *(and_(part, _MAY_START) for part in AVAILABLE),
            and_(AWAITS_KEY, _MAY_START),
            and_(jobs.c.worker_id.is_not(None), in_state(State.RUNNING)),
            and_(
                in_state(State.SCHEDULED),
                or_(jobs.c.attempt > 0, jobs.c.snoozes > 0),
                _MAY_START,
            ),
        )
        mine: ColumnElement[bool] = jobs.c.task.in_(tasks)
        if queues is not None:
            mine = and_(mine, jobs.c.queue.in_(queues))
        # One statement, one snapshot: a job that moves between the parts must not be missed.
        any_ = union_all(*(select(jobs.c.id).where(kind, mine) for kind in kinds)).limit(1)
        with self._store.read() as connection:
            return connection.execute(any_).first() is not None

    def left_behind(self, queues: tuple[str, ...] | None, tasks: tuple[str, ...]) -> dict[str, int]:
        """Count the jobs that a drain does not wait for: held, delayed, of unknown tasks."""
        live = in_state(State.SCHEDULED, State.AVAILABLE)
        known = jobs.c.task.in_(tasks)
        kinds = {
            "of unknown tasks": ~known,
            "in paused queues": and_(known, QUEUE_PAUSED),
            "of paused tasks or tags": and_(known, ~unpaused(), ~QUEUE_PAUSED),
            "with a limit of 0": and_(known, LIMIT_IS_0, ~QUEUE_PAUSED, unpaused()),
            "delayed": and_(in_state(State.SCHEDULED), known, _MAY_START),
        }
        counts = {}
        with self._store.read() as connection:
            for kind, clause in kinds.items():
                statement = select(func.count()).select_from(jobs).where(live, clause)
                if queues is not None:
                    statement = statement.where(jobs.c.queue.in_(queues))
                counts[kind] = int(connection.execute(statement).scalar_one())
        return {kind: count for kind, count in counts.items() if count}
