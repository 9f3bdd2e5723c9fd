"""Enqueue: insert one job, many at once, or jobs in a user's transaction."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import ref

from sqlalchemy import Connection, Row, Transaction, delete

from jobqueue.loggers import get_logger
from jobqueue.new_jobs import Inserted, NewJob
from jobqueue.store.backpressure import QueueLimit, QueueLimits
from jobqueue.store.database import Store
from jobqueue.store.dialects.base import PLAIN_COLUMNS
from jobqueue.store.key_conflicts import (
    NO_EXTRA,
    ROUNDS,
    KeyConflicts,
    columns_of,
    kept_changing,
    replaces,
)
from jobqueue.store.notify.notifier import Notifier
from jobqueue.store.schema import jobs
from jobqueue.store.sql.rows import NEW, NEW_WITH_EXTRA

log = get_logger("jobqueue.store")

BATCH = 5000
"""Rows per INSERT."""
BATCH_BYTES = 16_000_000
"""Approximate characters of arguments per INSERT: both databases limit a parameter's size."""
PLAIN_ROWS = 20
"""Number of plain jobs from which `Backend.insert_rows` is faster than one batch parameter."""

_plain_row = attrgetter(*PLAIN_COLUMNS)


class _Held(NamedTuple):
    """The job that holds a unique key."""

    id: int
    task: str
    args: str


class Enqueuer:
    """Inserts jobs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.limits = QueueLimits(store)
        self._conflicts = KeyConflicts(store, self._insert_rows)
        self._promised = 0
        """The greatest id in a user's transaction, where a rollback frees ids for reuse."""
        self._promised_in: ref[Transaction] | None = None

    def insert(
        self,
        new: Sequence[NewJob],
        connection: Connection | None = None,
        *,
        wait: bool = True,
        notifier: Notifier | None = None,
    ) -> list[Inserted]:
        """Insert jobs in order, in one transaction: the caller's if `connection` is given.

        A call whose unique key is held gets the holder's id and `created=False`. Without a
        caller's transaction, the notifier wakes workers after the commit. Raises QueueFull; without
        `wait`, also for queues whose `when_full` is wait.
        """
        if connection is not None:
            if limits := self.limits.limits_of(new, connection):
                limited = self._insert_limited(new, connection, limits, wait=wait)
                return self._promise(connection, limited)
            return self._promise(connection, self._insert(connection, new))
        if not new:  # Create no database for nothing.
            return []
        self.store.require_schema()
        promised = self._promised
        limits = self.limits.limits_of(new, None)
        is_single = len(new) == 1 and _is_plain(new[0]) and not promised and not limits
        inserted = self._insert_in_autocommit(new[0], notifier) if is_single else None
        if inserted is None:
            # No retry if autocommit has waited for the file already.
            retries = not (is_single and self.store.backend.single_writer)
            inserted = self._insert_in_transaction(new, limits, wait=wait, retries=retries)
            if notifier is not None:
                notifier.notify()
        if promised and self._promised == promised:
            self._promised = 0  # Committed rows now have greater ids.
        return inserted

    def _insert_in_autocommit(
        self, job: NewJob, notifier: Notifier | None
    ) -> list[Inserted] | None:
        """Insert one plain job in autocommit; return None if a transaction has to do it."""
        backend = self.store.backend
        carrying = backend.notifying_insertion
        if carrying is not None and (notifier is None or not notifier.is_quiet()):
            carrying = None
        began = time.monotonic()
        made = self.store.execute_autocommit(carrying or backend.insertion, _plain_row(job))
        if not made:  # Or a trigger has skipped the row.
            return None
        if notifier is not None and carrying is None:
            notifier.notify()
        elif notifier is not None:
            notifier.was_carried(time.monotonic() - began)
        return [Inserted(made[0][0], True)]

    def _insert_in_transaction(
        self, new: Sequence[NewJob], limits: Mapping[str, QueueLimit], *, wait: bool, retries: bool
    ) -> list[Inserted]:
        if limits:
            return self._insert_limited(new, None, limits, wait=wait)
        if retries:
            return self.store.transact(lambda own: self._insert(own, new))
        with self.store.write() as own:
            return self._insert(own, new)

    def _promise(self, connection: Connection, inserted: list[Inserted]) -> list[Inserted]:
        """Remember ids that handles have, and that a rollback would free for reuse."""
        if self.store.backend.reuses_ids:
            self._promised = max(self._promised, *(row.id for row in inserted if row.created), 0)
            current = _innermost(connection)
            self._promised_in = None if current is None else ref(current)
        return inserted

    def _insert_limited(
        self,
        new: Sequence[NewJob],
        connection: Connection | None,
        limits: Mapping[str, QueueLimit],
        *,
        wait: bool,
    ) -> list[Inserted]:
        def work(own: Connection) -> list[Inserted]:
            held = self.limits.lock(own, limits)
            need = self._need(own, new)
            self.limits.check_capacity(own, held, need)
            inserted = self._insert(own, new)
            made = [
                (job.queue, row.id) for job, row in zip(new, inserted, strict=True) if row.created
            ]
            # Workers and producers of other queues do not wait for our lock: a key that was held
            # at the check may have become free, and its job may have been inserted.
            more = Counter(queue for queue, _ in made) - need
            try:
                self.limits.check_capacity(own, held, more, made=True)
            except Exception:
                if connection is not None:  # A caller's transaction is not rolled back.
                    self._remove(own, [id_ for _, id_ in made])
                raise
            return inserted

        return self.limits.insert(connection, work, wait=wait)

    def _need(self, connection: Connection, new: Sequence[NewJob]) -> Counter[str]:
        """Count the jobs to insert per queue: one per unique key, and none if the key is held."""
        keyed = {job.unique_key: job.queue for job in reversed(new) if job.unique_key is not None}
        if keyed:
            rows = connection.execute(
                self.store.statements.unique_key_holders, {"in_keys": sorted(keyed)}
            )
            moved = {job.unique_key for job in new if replaces(job)}
            for row in rows:
                if row.unique_key not in moved or row.queue == keyed[row.unique_key]:
                    keyed.pop(row.unique_key, None)
        return Counter(job.queue for job in new if job.unique_key is None) + Counter(keyed.values())

    def _remove(self, connection: Connection, ids: Sequence[int]) -> None:
        """Delete jobs that were inserted in the same transaction."""
        for start in range(0, len(ids), BATCH):
            connection.execute(delete(jobs).where(jobs.c.id.in_(ids[start : start + BATCH])))

    def _insert(self, connection: Connection, new: Sequence[NewJob]) -> list[Inserted]:
        self._keep_promised(connection)
        # The engine decides, not the caller: a test may have lent its transaction to the store.
        is_ours = connection.engine is self.store.engine
        by_themselves = is_ours and len(new) >= PLAIN_ROWS and all(map(_is_plain, new))
        inserted: list[Inserted] = []
        for batch in _batches(new):  # The server may also limit a statement's time.
            if by_themselves:
                rows = list(map(_plain_row, batch))
                ids = self.store.backend.insert_rows(connection, rows)
                inserted += [Inserted(id_, True) for id_ in ids]
            else:
                inserted += self._insert_batch(connection, batch)
        return inserted

    def _keep_promised(self, connection: Connection) -> None:
        if self._promised:
            last = None if self._promised_in is None else self._promised_in()
            if last is None or last is not _innermost(connection):  # `last` may be rolled back.
                self.store.backend.keep_ids(connection, self._promised)

    def _insert_batch(self, connection: Connection, new: Sequence[NewJob]) -> list[Inserted]:
        statements = self.store.statements
        if len(new) == 1 and _is_plain(new[0]):
            parameters = {f"in_{name}": getattr(new[0], name) for name in PLAIN_COLUMNS}
            made = connection.execute(statements.insert_plain, parameters)
            return [Inserted(int(made.scalar_one()), True)]
        if len(new) == 1 and new[0].extra is None:
            parameters = {f"in_{name}": getattr(new[0], name) for name in NEW}
            rows: Sequence[Row[Any]] = connection.execute(statements.insert_one, parameters).all()
        else:
            rows = self._insert_rows(connection, new)
        # Ids grow in the order of the rows. A row with a unique key is found by the key, since it
        # may be missing, or stand for several calls.
        plain = iter(sorted(int(row.id) for row in rows if row.unique_key is None))
        keyed = {row.unique_key: int(row.id) for row in rows if row.unique_key is not None}
        missing = {job.unique_key for job in new if job.unique_key} - keyed.keys()
        held = self._holders(connection, new, missing, keyed) if missing else {}
        result = []
        for job in new:
            key = job.unique_key
            if key is None:
                result.append(Inserted(next(plain), True))
            elif key in held:
                result.append(Inserted(held[key].id, False))
                if not (replaces(job) or (job.conflict and job.conflict.rerun)):
                    _warn_of_another_call(held[key], job)
            else:
                held[key] = _Held(keyed[key], job.task, job.args)
                result.append(Inserted(keyed[key], True))
        if any(job.conflict for job in new):
            self._conflicts.resolve(connection, new, result)
        return result

    def _insert_rows(self, connection: Connection, new: Sequence[NewJob]) -> Sequence[Row[Any]]:
        """Insert jobs by one statement, without those whose key is held; return their rows."""
        statements, backend = self.store.statements, self.store.backend
        if all(job.extra is None for job in new):
            parameters = backend.batch_parameters(NEW, [columns_of(job) for job in new])
            return connection.execute(statements.insert, parameters).all()
        rows = [(*columns_of(job), *(job.extra or NO_EXTRA)) for job in new]
        parameters = backend.batch_parameters(NEW_WITH_EXTRA, rows)
        return connection.execute(statements.insert_with_extra, parameters).all()

    def _holders(
        self,
        connection: Connection,
        new: Sequence[NewJob],
        missing: set[str],
        keyed: dict[str, int],
    ) -> "dict[str, _Held]":
        """Find the holders of the keys; if one has ended, insert the job and add it to `keyed`."""
        held: dict[str, _Held] = {}
        wanted = {job.unique_key: job for job in reversed(new) if job.unique_key in missing}
        for _ in range(ROUNDS):
            keys = sorted(missing - held.keys() - keyed.keys())
            if not keys:
                break
            rows = connection.execute(self.store.statements.unique_key_holders, {"in_keys": keys})
            held |= {row.unique_key: _Held(int(row.id), row.task, row.args) for row in rows}
            again = [wanted[key] for key in keys if key not in held]
            if again:
                for row in self._insert_rows(connection, again):
                    keyed[row.unique_key] = int(row.id)
        if left := missing - held.keys() - keyed.keys():
            raise kept_changing(str(sorted(left)))
        return held


def _batches(new: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    """Split the calls, in order, into batches of at most BATCH rows and about BATCH_BYTES."""
    start = length = 0
    for place, job in enumerate(new):
        length += len(job.args)
        if place - start >= BATCH or (length > BATCH_BYTES and place > start):
            yield new[start:place]
            start, length = place, len(job.args)
    if start < len(new):
        yield new[start:]


def _innermost(connection: Connection) -> Transaction | None:
    return connection.get_nested_transaction() or connection.get_transaction()


def _is_plain(job: NewJob) -> bool:
    """Return whether `insert_plain` can insert the job: due at once, without key or deadline."""
    due = job.delay is None and job.at is None
    return due and job.unique_key is None and job.deadline is None and job.extra is None


def _warn_of_another_call(held: _Held, job: NewJob) -> None:
    if (held.task, held.args) != (job.task, job.args):
        log.warning(
            "unique key %r is held by job %d, which is another task or has other arguments; "
            "no job of %s was made",
            *(job.unique_key, held.id, job.task),
        )
