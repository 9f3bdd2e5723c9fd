"""Claims: how a worker takes jobs.

Every write names (id, fence) and the lease under which the job was claimed.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection

from jobqueue.records import Claim
from jobqueue.store.database import AutocommitStatement, Store
from jobqueue.store.sql.claim import LEVELS
from jobqueue.store.sql.rows import PAIRS

Cursor = tuple[datetime, int]
"""The (run_at, id) of the last job of a level that was claimed."""

START: Cursor = (datetime(1, 1, 1, tzinfo=UTC), 0)
"""The cursor before every job."""
LAST: Cursor = (datetime.max.replace(tzinfo=UTC), 2**63 - 1)
"""The cursor behind every job."""

PRIORITY_BEFORE_ALL = -(2**31)
PRIORITY_AFTER_ALL = 2**31 - 1

_CLAIM: Callable[[Sequence[Any]], Claim] = partial(tuple.__new__, Claim)
"""What `Claim._make` does, without a call of Python's per row."""
_ORDER = attrgetter("run_at", "id")
_PLACE = itemgetter(-1, Claim._fields.index("run_at"), Claim._fields.index("id"))


class WorkerRef(NamedTuple):
    """The worker that claims jobs, by its lease."""

    id: int
    name: str


class PriorityLevel(NamedTuple):
    """A queue and a priority: jobs of one level are claimed by one statement."""

    queue: str
    priority: int


class ClaimBatch(list[Claim]):
    """Claims in order; `stopped_at_immediate`: the next job needs a free slot and there is none."""

    stopped_at_immediate = False


class Claims:
    """The statements of the claimer. A method that takes a connection runs in its transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements = store.statements

    def next_levels(
        self, connection: Connection, after: PriorityLevel, *, limit: int, per_queue: int
    ) -> list[PriorityLevel]:
        """Return up to `limit` levels after the given one that have available jobs, in order.

        Of each queue only the best `per_queue`.
        """
        parameters = {
            "in_queue": after.queue,
            "in_priority": after.priority,
            "in_cursor_run_at": LAST[0],
            "in_cursor_id": LAST[1],
            "in_per_queue": per_queue,
            "in_limit": limit,
        }
        rows = connection.execute(self._statements.next_levels, parameters)
        return [PriorityLevel(queue, priority) for queue, priority, _ in rows]

    def claim(
        self,
        connection: Connection,
        holder: WorkerRef,
        level: PriorityLevel,
        cursor: Cursor,
        *,
        limit: int,
        free: int,
    ) -> ClaimBatch:
        """Claim up to `limit` jobs of a level after the cursor, in order of (run_at, id).

        `free`: how many of them can start at once. Beyond those, a job that must start at once ends
        the claim, so that no other job overtakes it. Hand claims out only after the commit: the
        outcome of a fast handler would otherwise name a fence that is not committed yet.
        """
        parameters = {
            "in_worker": holder.id,
            "in_worker_name": holder.name,
            "in_queue": level.queue,
            "in_priority": level.priority,
            "in_cursor_run_at": cursor[0],
            "in_cursor_id": cursor[1],
            "in_limit": limit,
        }
        rows = connection.execute(self._statements.claim, parameters).all()
        return self._in_order(connection, ClaimBatch(map(_CLAIM, rows)), free)

    def claim_levels(
        self,
        connection: Connection,
        holder: WorkerRef,
        cursors: Mapping[PriorityLevel, Cursor],
        *,
        limit: int,
        free: int,
    ) -> dict[PriorityLevel, ClaimBatch]:
        """Claim up to `limit` jobs of each level after its cursor, by one statement.

        As `claim` does for one level after the other, in the order of `cursors`.
        """
        levels = [(*level, *cursor) for level, cursor in cursors.items()]
        parameters = self._store.backend.batch_parameters(LEVELS, levels) | {
            "in_worker": holder.id,
            "in_worker_name": holder.name,
            "in_limit": limit,
        }
        batches = {level: ClaimBatch() for level in cursors}
        for row in connection.execute(self._statements.claim_levels, parameters):
            claim = _CLAIM(row[:-1])
            batches[PriorityLevel(claim.queue, row[-1])].append(claim)
        for batch in batches.values():
            self._in_order(connection, batch, max(0, free))
            free -= len(batch)
        return batches

    def _in_order(self, connection: Connection, claims: ClaimBatch, free: int) -> ClaimBatch:
        """Sort a level's claims, and undo those from the first that must start and cannot."""
        claims.sort(key=_ORDER)
        for place in range(free, len(claims)):
            if claims[place].immediate_only:
                # Rare: after such a job, callers claim at most `free`.
                self._unclaim(connection, claims[place:])
                del claims[place:]
                claims.stopped_at_immediate = True
                break
        return claims

    def claim_first(self, holder: WorkerRef, queue: str, limit: int) -> list[Claim]:
        """Claim the first jobs of a queue, best priority first, by one statement in autocommit.

        `limit` must not exceed the number of jobs that can start at once.
        """
        parameters = {
            "in_worker": holder.id,
            "in_worker_name": holder.name,
            "in_queue": queue,
            "in_limit": limit,
        }
        rows = self._head.rows(parameters) or []
        rows.sort(key=_PLACE)
        return [_CLAIM(row[:-1]) for row in rows]

    @cached_property
    def _head(self) -> AutocommitStatement:
        return AutocommitStatement(self._store, self._statements.claim_first)

    def _unclaim(self, connection: Connection, claims: Sequence[Claim]) -> None:
        """Undo claims of this transaction before its commit."""
        pairs = sorted((claim.id, claim.fence) for claim in claims)
        parameters = self._store.backend.batch_parameters(PAIRS, pairs)
        connection.execute(self._statements.undo_claim, parameters)

    def mark_started(self, claim: Claim) -> bool:
        """Free the unique key of a job that starts now; return False if the claim is lost.

        If the commit's answer is lost, the key may be free although the job has not started.
        """
        with self._store.write_lock(), self._store.write() as connection:
            self._store.backend.limit_lock_wait(
                connection
            )  # A slot must not wait for another client's lock.
            parameters = {
                "in_job": claim.id,
                "in_claimed": claim.fence,
                "in_worker": claim.worker_id,
            }
            return connection.execute(self._statements.mark_started, parameters).rowcount == 1

    def unknown(
        self,
        connection: Connection,
        holder: WorkerRef,
        known: Mapping[int, Claim],
        limit: int = 500,
    ) -> list[Claim]:
        """Return up to `limit` claims of the worker's lease that are missing from `known`.

        A worker misses claims after a commit whose answer was lost, and after a server has lost
        the commit of an outcome.
        """
        rows = connection.execute(self._statements.held, {"in_worker": holder.id})
        ids = sorted(id_ for id_, fence in rows if id_ not in known or known[id_].fence != fence)
        if not ids:
            return []
        parameters = {"in_worker": holder.id, "in_ids": ids[:limit]}
        found = connection.execute(self._statements.held_claims, parameters)
        return [_CLAIM(row) for row in found]
