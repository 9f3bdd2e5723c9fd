"""Bounded queues: how many jobs may wait in one, exact among all producers.

The bound is a row of the queues table, which a producer locks until it has committed, so that those
of one queue go one after another. Producers of other queues read the bounds once a second, no more.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, TypeVar, get_args
from weakref import ref

from sqlalchemy import Connection, Transaction, func, select, update

from jobqueue.errors import QueueFull
from jobqueue.literals import WhenFull
from jobqueue.polling import PollInterval
from jobqueue.records import NewJob, counted
from jobqueue.states import WAITING
from jobqueue.store.clock import after, once, second
from jobqueue.store.database import Store
from jobqueue.store.schema import CounterKind, counters, jobs, queues
from jobqueue.store.sql.predicates import in_state

T = TypeVar("T")
_Row = tuple[int | None, str | None]  # max_pending, when_full

FRESH = 1.0  # seconds for which the bounds are believed to be what they were
FIRST_POLL = 0.005  # seconds
MINUTE = 60.0  # seconds that one row of counts is about
RETRY_LEAST, RETRY_MOST, RETRY_UNKNOWN = 1.0, 60.0, 5.0  # seconds

WHEN_FULL: tuple[WhenFull, ...] = get_args(WhenFull)


class Bound(NamedTuple):
    """Of one queue. `timeout` is the seconds that a producer waits; None: as long as it takes."""

    max_pending: int
    when_full: WhenFull
    timeout: float | None = None


class _Offer(NamedTuple):
    """A declared bound that is not known to be in the database."""

    bound: Bound
    transaction: ref[Transaction] | None = None
    """The caller's that has written it, and may yet be rolled back."""
    before: _Row = (None, None)
    """What it found there."""

    def is_in(self, transaction: Transaction | None) -> bool:
        """True if that transaction has written it."""
        return self.transaction is not None and self.transaction() is transaction is not None

    @property
    def is_open(self) -> bool:
        """True while nobody else can see whether it is there."""
        transaction = None if self.transaction is None else self.transaction()
        return transaction is not None and transaction.is_active


class _NoRoom(Exception):
    """Raised to undo the transaction that found none. `never`: so many do not fit in at all."""

    def __init__(self, queue: str, bound: Bound, excess: int, *, never: bool = False) -> None:
        super().__init__(queue)
        self.queue, self.bound, self.excess, self.never = queue, bound, excess, never


class Bounds:
    """The bounds of one database as one process sees them. May be used from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._declared: dict[str, Bound] = {}
        self._offers: dict[str, _Offer] = {}
        self._known: Mapping[str, Bound] = {}
        self._read_at = float("-inf")

    def declare(self, bounds: Mapping[str, Bound]) -> None:
        """Bound queues, from this process's next enqueue on; it then holds for all of them."""
        for queue, bound in bounds.items():
            self._declared[queue] = bound
            self._offers[queue] = _Offer(bound)

    def write(self, store: Store) -> None:
        """Write what was declared now, by another store on the same database."""
        if self._offers:
            self._write_declared(set(), None, store)

    def limits_of(self, new: Sequence[NewJob], connection: Connection | None) -> dict[str, Bound]:
        """The bounded ones among the queues of these calls."""
        names = {job.queue for job in new}
        if self._offers:
            self._write_declared(names, connection)
        if time.monotonic() - self._read_at >= FRESH:
            self._read(connection)
        if not self._known:
            return {}
        return {queue: self._known[queue] for queue in names if queue in self._known}

    def hold(self, connection: Connection, bounds: Mapping[str, Bound]) -> dict[str, Bound]:
        """Keep other producers of these queues out until the transaction ends.

        Returns the bounds as they are then.
        """
        held: dict[str, Bound] = {}
        for queue, bound in sorted(bounds.items()):
            # A write, not SELECT … FOR UPDATE: SQLite knows no lock on a row, and a transaction of
            # the user's may not have begun to write.
            most = connection.execute(
                update(queues)
                .where(queues.c.name == queue)
                .values(max_pending=queues.c.max_pending)
                .returning(queues.c.max_pending)
            ).scalar()
            if most is not None:  # Else the bound was lifted meanwhile.
                held[queue] = bound._replace(max_pending=most)
        return held

    def require(
        self,
        connection: Connection,
        held: Mapping[str, Bound],
        need: Counter[str],
        *,
        made: bool = False,
    ) -> None:
        """Raise what `insert` waits for, or makes QueueFull of, unless so many jobs fit in.

        `made`: they are there already. Who needs no room is not asked for any.
        """
        for queue, bound in held.items():
            if not need[queue]:
                continue
            most = bound.max_pending
            if need[queue] > most:
                raise _NoRoom(queue, bound, need[queue], never=True)
            excess = _pending(connection, queue, most) + (0 if made else need[queue]) - most
            if excess > 0:
                raise _NoRoom(queue, bound, excess)

    def insert(
        self, connection: Connection | None, work: Callable[[Connection], T], *, wait: bool = True
    ) -> T:
        """Do `work`, which holds and requires, in the caller's transaction or in one of its own.

        In one of its own it waits for room, if the queue is one to wait for and `wait` allows it.
        Raises QueueFull.
        """
        if connection is not None:
            try:
                return work(connection)
            except _NoRoom as none:
                raise self._full(none, connection) from None
        began, interval = time.monotonic(), PollInterval(FIRST_POLL)
        while True:
            try:
                return self._store.transact(work)
            except _NoRoom as none:
                lost = none
            bound = lost.bound
            left = None if bound.timeout is None else bound.timeout - (time.monotonic() - began)
            waits = wait and bound.when_full != "reject" and not lost.never
            if not waits or (left is not None and left <= 0):
                raise self._full(lost, None)
            pause = interval.next()
            self._store.pause(pause if left is None else min(pause, left))

    def _full(self, none: _NoRoom, connection: Connection | None) -> QueueFull:
        most = none.bound.max_pending
        why = (
            f"{counted(none.excess, 'job')} at once never fit in"
            if none.never
            else f"its limit of {counted(most, 'job')} is reached"
        )
        return QueueFull(
            f"queue {none.queue!r} is full: {why}",
            queue=none.queue,
            max_pending=most,
            retry_after=self._retry_after(none.queue, none.excess, connection),
        )

    def _retry_after(self, queue: str, excess: int, connection: Connection | None) -> float:
        """Seconds in which so many jobs are likely to begin, by the present minute and the last.

        Asked on the given connection: it may hold the row that all of the pool's wait for.
        """
        ended = counters.c.succeeded + counters.c.failed + counters.c.cancelled
        # Seconds and not instants: how those are written is up to the caller's session.
        recent = select(func.coalesce(func.sum(ended), 0), second()).where(
            counters.c.minute > once(after(-2 * MINUTE)),
            counters.c.queue == queue,
            # Not `!= TOTAL`, which is no range of the index.
            counters.c.kind.in_((CounterKind.WRITTEN, CounterKind.MINUTE)),
        )
        with self._store.read() if connection is None else nullcontext(connection) as asked:
            count, seconds = asked.execute(recent).one()
        rate = int(count) / (MINUTE + float(seconds))
        guess = excess / rate if rate else RETRY_UNKNOWN
        return min(max(guess, RETRY_LEAST), RETRY_MOST)

    def _write_declared(
        self, wanted: set[str], connection: Connection | None, store: Store | None = None
    ) -> None:
        """Write what was declared here, once, where it differs from what is there.

        A caller's transaction holds the rows that it writes until it ends: it writes those of its
        own queues only, and others leave them alone unless they are about the same queue.
        """
        offers = {
            name: offer
            for name, offer in sorted(self._offers.items())
            if name in wanted or (connection is None and not offer.is_open)
        }
        if not offers:
            return
        written: dict[str, _Row] = {}
        current = None
        if connection is None:
            store = store or self._store
            store.transact(lambda own: _write(own, store, offers))
        else:
            written = _write(connection, self._store, offers)
            current = connection.get_transaction()
        for name, offer in offers.items():
            if self._offers.get(name) is not offer or offer.is_in(current):
                continue  # Another was declared meanwhile; or this one is not committed yet.
            if name in written and current is not None:
                self._offers[name] = offer._replace(transaction=ref(current), before=written[name])
            else:
                self._offers.pop(name, None)
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
            name: Bound(
                most,
                when_full or "wait",
                self._declared[name].timeout if name in self._declared else None,
            )
            for name, most, when_full in rows
        }
        self._read_at = time.monotonic()


def _pending(connection: Connection, queue: str, most: int) -> int:
    """How many jobs wait in a queue, counted no further than one needs to know.

    In one statement, so that a job that goes from one state to the other is seen in one of them.
    """
    counts = [
        select(func.count())
        .select_from(
            select(jobs.c.id)
            .where(in_state(state), jobs.c.queue == queue)
            .limit(most + 1)
            .subquery()
        )
        .scalar_subquery()
        for state in WAITING
    ]
    return int(connection.execute(select(sum(counts[1:], start=counts[0]))).scalar_one())


def _write(connection: Connection, store: Store, offers: Mapping[str, _Offer]) -> dict[str, _Row]:
    """Write the bounds that differ from what is there; returns what was there instead of them."""
    columns = queues.c.name, queues.c.max_pending, queues.c.when_full
    rows = connection.execute(select(*columns).where(queues.c.name.in_(offers))).all()
    there = {name: (most, when_full) for name, most, when_full in rows}
    written: dict[str, _Row] = {}
    for name, offer in offers.items():
        found = there.get(name, (None, None))
        values = {"max_pending": offer.bound.max_pending, "when_full": offer.bound.when_full}
        if found == tuple(values.values()):
            continue
        if offer.transaction is not None and found != offer.before:
            continue  # It was committed, and another has changed it since.
        # Insert first: a row that another makes meanwhile is then there to be updated.
        connection.execute(store.backend.insert(queues).values(name=name, **values))
        connection.execute(update(queues).where(queues.c.name == name).values(values))
        written[name] = found
    return written
