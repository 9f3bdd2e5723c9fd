"""Backpressure: an exact limit on the waiting jobs of a queue, shared by all producers.

The limit is a row of the queues table. A producer of that queue locks the row until it commits, so
that producers of one queue take turns. Producers of unlimited queues only read the limits, at most
once a second.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, TypeVar, get_args
from weakref import ref

from sqlalchemy import Connection, Transaction, func, select, update

from jobqueue import options
from jobqueue.errors import Duration, QueueFull
from jobqueue.literal_types import WhenFull
from jobqueue.new_jobs import NewJob
from jobqueue.polling import PollInterval
from jobqueue.records import counted
from jobqueue.states import State
from jobqueue.store.clock import after, once
from jobqueue.store.database import Store
from jobqueue.store.schema import CounterKind, counters, jobs, queues
from jobqueue.store.sql.predicates import AVAILABLE, in_state

T = TypeVar("T")
_Row = tuple[int | None, str | None]  # max_pending, when_full

LIMITS_SECONDS = 1.0  # seconds for which the limits that were read are reused
FIRST_POLL = 0.005  # seconds
MINUTE = 60.0  # seconds that one row of counters covers
PENDING_MAX = 10_000_000
RETRY_LEAST, RETRY_MOST, RETRY_UNKNOWN = 1.0, 60.0, 5.0  # seconds

WHEN_FULL: tuple[WhenFull, ...] = get_args(WhenFull)


class QueueLimit(NamedTuple):
    """The limit of one queue. `timeout`: seconds that a producer waits; None waits without end."""

    max_pending: int
    when_full: WhenFull
    timeout: float | None = None


def queue_bound(
    max_pending: int | None, when_full: WhenFull, timeout: Duration | None
) -> QueueLimit | None:
    """Check what `jobs.queue(…)` is given; None without a bound. Raises InvalidOption."""
    words = options.one_of(when_full, "when_full", WHEN_FULL)
    seconds = None if timeout is None else options.seconds(timeout, "timeout")
    if max_pending is None:
        return None
    return QueueLimit(options.whole(max_pending, "max_pending", 1, PENDING_MAX), words, seconds)


class _UnwrittenLimit(NamedTuple):
    """A declared limit that may not be in the database yet."""

    limit: QueueLimit
    transaction: ref[Transaction] | None = None
    """The caller's transaction that has written the limit, and may still roll back."""
    before: _Row = (None, None)
    """The limit in the database before that write."""

    def is_in(self, transaction: Transaction | None) -> bool:
        """Return whether that transaction has written the limit."""
        return self.transaction is not None and self.transaction() is transaction is not None

    @property
    def is_open(self) -> bool:
        """Return whether the writing transaction is still open, so that others see no limit yet."""
        transaction = None if self.transaction is None else self.transaction()
        return transaction is not None and transaction.is_active


class _QueueIsFull(Exception):
    """Raised to roll back when the queue has no capacity.

    `excess`: jobs above the limit. `never`: the batch exceeds the limit by itself.
    """

    def __init__(self, queue: str, limit: QueueLimit, excess: int, *, never: bool = False) -> None:
        super().__init__(queue)
        self.queue, self.limit, self.excess, self.never = queue, limit, excess, never


class QueueLimits:
    """The limits of one database's queues as one process sees them. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._declared: dict[str, QueueLimit] = {}
        self._unwritten: dict[str, _UnwrittenLimit] = {}
        self._known: Mapping[str, QueueLimit] = {}
        self._read_at = float("-inf")

    def declare(self, limits: Mapping[str, QueueLimit]) -> None:
        """Limit queues; this process's next enqueue writes the limits, for all processes."""
        for queue, limit in limits.items():
            self._declared[queue] = limit
            self._unwritten[queue] = _UnwrittenLimit(limit)

    def write(self, store: Store) -> None:
        """Write the declared limits now, through another store on the same database."""
        if self._unwritten:
            self._write_declared(set(), None, store)

    def limits_of(
        self, new: Sequence[NewJob], connection: Connection | None
    ) -> dict[str, QueueLimit]:
        """Return the limits of those queues of the calls that have one."""
        names = {job.queue for job in new}
        if self._unwritten:
            self._write_declared(names, connection)
        if time.monotonic() - self._read_at >= LIMITS_SECONDS:
            self._read(connection)
        if not self._known:
            return {}
        return {queue: self._known[queue] for queue in names if queue in self._known}

    def lock(
        self, connection: Connection, limits: Mapping[str, QueueLimit]
    ) -> dict[str, QueueLimit]:
        """Lock the limits of these queues until the transaction ends; return their present values.

        Other producers of these queues wait meanwhile.
        """
        held: dict[str, QueueLimit] = {}
        for queue, limit in sorted(limits.items()):
            # A write, not SELECT … FOR UPDATE: SQLite has no row locks, and a user's transaction
            # may not have started to write.
            most = connection.execute(
                update(queues)
                .where(queues.c.name == queue)
                .values(max_pending=queues.c.max_pending)
                .returning(queues.c.max_pending)
            ).scalar()
            if most is not None:  # Otherwise the limit was removed meanwhile.
                held[queue] = limit._replace(max_pending=most)
        return held

    def check_capacity(
        self,
        connection: Connection,
        held: Mapping[str, QueueLimit],
        need: Counter[str],
        *,
        made: bool = False,
    ) -> None:
        """Check that each queue has capacity for `need[queue]` more jobs.

        `made`: the jobs are inserted already. Queues that get no job are not checked. Raises
        _QueueIsFull, on which `insert` waits or raises QueueFull.
        """
        for queue, limit in held.items():
            if not need[queue]:
                continue
            most = limit.max_pending
            if need[queue] > most:
                raise _QueueIsFull(queue, limit, need[queue], never=True)
            excess = _pending(connection, queue, most) + (0 if made else need[queue]) - most
            if excess > 0:
                raise _QueueIsFull(queue, limit, excess)

    def insert(
        self, connection: Connection | None, work: Callable[[Connection], T], *, wait: bool = True
    ) -> T:
        """Run `work`, which locks and checks limits, in the caller's transaction or a new one.

        In a new transaction, wait for capacity if the queue's `when_full` and `wait` allow it.
        Raises QueueFull.
        """
        if connection is not None:
            try:
                return work(connection)
            except _QueueIsFull as full:
                raise self._full(full, connection) from None
        began, interval = time.monotonic(), PollInterval(FIRST_POLL)
        while True:
            try:
                return self._store.transact(work)
            except _QueueIsFull as full:
                lost = full
            limit = lost.limit
            left = None if limit.timeout is None else limit.timeout - (time.monotonic() - began)
            waits = wait and limit.when_full != "reject" and not lost.never
            if not waits or (left is not None and left <= 0):
                raise self._full(lost, None)
            pause = interval.next()
            self._store.pause(pause if left is None else min(pause, left))

    def _full(self, full: _QueueIsFull, connection: Connection | None) -> QueueFull:
        most = full.limit.max_pending
        why = (
            f"{counted(full.excess, 'job')} at once never fit in"
            if full.never
            else f"its limit of {counted(most, 'job')} is reached"
        )
        return QueueFull(
            f"queue {full.queue!r} is full: {why}",
            queue=full.queue,
            max_pending=most,
            retry_after=self._retry_after(full.queue, full.excess, connection),
        )

    def _retry_after(self, queue: str, excess: int, connection: Connection | None) -> float:
        """Estimate the seconds until `excess` jobs have started, from the last two minutes.

        Reads on the caller's connection if there is one: it may hold the row lock that every
        connection of the pool waits for.
        """
        ended = counters.c.succeeded + counters.c.failed + counters.c.cancelled
        recent = select(func.coalesce(func.sum(ended), 0)).where(
            counters.c.minute > once(after(-2 * MINUTE)),
            counters.c.queue == queue,
            # Not `!= TOTAL`, which cannot use the index.
            counters.c.kind.in_((CounterKind.WRITTEN, CounterKind.PERIOD)),
        )
        with self._store.read() if connection is None else nullcontext(connection) as asked:
            count = asked.execute(recent).scalar_one()
        rate = int(count) / (1.5 * MINUTE)  # The present minute is half over on average.
        guess = excess / rate if rate else RETRY_UNKNOWN
        return min(max(guess, RETRY_LEAST), RETRY_MOST)

    def _write_declared(
        self, wanted: set[str], connection: Connection | None, store: Store | None = None
    ) -> None:
        """Write each declared limit once, if it differs from the one in the database.

        A caller's transaction locks the rows that it writes until it ends. It therefore writes only
        the limits of its own queues, and other transactions skip those unless they need the same
        queue.
        """
        unwritten = {
            name: new
            for name, new in sorted(self._unwritten.items())
            if name in wanted or (connection is None and not new.is_open)
        }
        if not unwritten:
            return
        written: dict[str, _Row] = {}
        current = None
        if connection is None:
            store = store or self._store
            store.transact(lambda own: _write(own, store, unwritten))
        else:
            written = _write(connection, self._store, unwritten)
            current = connection.get_transaction()
        for name, new in unwritten.items():
            if self._unwritten.get(name) is not new or new.is_in(current):
                continue  # Another limit was declared meanwhile, or this one is not committed yet.
            if name in written and current is not None:
                self._unwritten[name] = new._replace(transaction=ref(current), before=written[name])
            else:
                self._unwritten.pop(name, None)
        self._read_at = float("-inf")

    def _read(self, connection: Connection | None) -> None:
        statement = select(queues.c.name, queues.c.max_pending, queues.c.when_full).where(
            queues.c.max_pending.is_not(None)
        )
        if connection is not None:
            rows = connection.execute(statement).all()
        else:
            with self._store.read() as own:
                rows = own.execute(statement).all()
        self._known = {
            name: QueueLimit(
                most,
                when_full or "wait",
                self._declared[name].timeout if name in self._declared else None,
            )
            for name, most, when_full in rows
            if most is not None  # Plain SQL has written another value.
        }
        self._read_at = time.monotonic()


def _pending(connection: Connection, queue: str, most: int) -> int:
    """Return the number of waiting jobs of a queue; each part is counted up to `most` + 1.

    One statement, so that a job that moves from one state to the other is counted.
    """
    counts = [
        select(func.count())
        .select_from(
            select(jobs.c.id).where(part, jobs.c.queue == queue).limit(most + 1).subquery()
        )
        .scalar_subquery()
        for part in (in_state(State.SCHEDULED), *AVAILABLE)
    ]
    return int(connection.execute(select(sum(counts[1:], start=counts[0]))).scalar_one())


def _write(
    connection: Connection, store: Store, unwritten: Mapping[str, _UnwrittenLimit]
) -> dict[str, _Row]:
    """Write the limits that differ from the database's; return those that they replaced."""
    columns = queues.c.name, queues.c.max_pending, queues.c.when_full
    rows = connection.execute(select(*columns).where(queues.c.name.in_(unwritten))).all()
    there = {name: (most, when_full) for name, most, when_full in rows}
    written: dict[str, _Row] = {}
    for name, new in unwritten.items():
        found = there.get(name, (None, None))
        values = {"max_pending": new.limit.max_pending, "when_full": new.limit.when_full}
        if found == tuple(values.values()):
            continue
        if new.transaction is not None and found != new.before:
            continue  # It was committed, and another process has changed it since.
        # Insert first: if another process inserts the row meanwhile, the update finds it.
        connection.execute(store.backend.insert(queues).values(name=name, **values))
        connection.execute(update(queues).where(queues.c.name == name).values(values))
        written[name] = found
    return written
