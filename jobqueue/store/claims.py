"""Claims: how a worker takes jobs.

Every write names (id, fence) and the lease under which the job was claimed.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import MsgspecError
from sqlalchemy import Connection, Executable

from jobqueue.records import Claim
from jobqueue.store.database import CompiledStatement, Store
from jobqueue.store.lane_admission import place_of
from jobqueue.store.sql.claim import CURSORS, RANGES
from jobqueue.store.sql.claim_rows import decode_claims, read_claims
from jobqueue.store.sql.rows import IDS, NAMES, PAIRS

_is_immediate_only = attrgetter("immediate_only")

Cursor = tuple[int, datetime, int]
"""The (priority, run_at, id) of the last job of a queue that was claimed."""

START: Cursor = (-(2**31), datetime(1, 1, 1, tzinfo=UTC), 0)
"""The cursor before every job."""

END: Cursor = (2**31 - 1, datetime.max.replace(tzinfo=UTC), 2**63 - 1)
"""The cursor behind every job."""


class WorkerRef(NamedTuple):
    """The worker that claims jobs, by its lease."""

    id: int
    name: str


class QueueHead(NamedTuple):
    """A queue that has available jobs, paused or not, and the best priority among them."""

    queue: str
    priority: int
    is_any_paused: bool = False
    """Some task or tag is paused, in this queue or another one."""


class ClaimBatch(list[Claim]):
    """The claims from one queue, in order."""

    stopped_at_immediate = False
    """The next job needs a free slot and there is none."""
    cut_short = False
    """The statement reached its limit: there may be more jobs although there are so few."""

    @property
    def cursor(self) -> Cursor:
        """The cursor behind the last claim."""
        last = self[-1]
        return last.priority, last.run_at, last.id


def claims_of(store: Store, rows: Iterable[Sequence[Any]], holder: WorkerRef) -> list[Claim]:
    """Decode the rows that a claim returned as claims of a worker."""
    return read_claims(rows, holder.id, store.read_instant)


def parameters_of(claim: Claim) -> dict[str, Any]:
    """Return the parameters of `OF_CLAIM`."""
    return {"in_job": claim.id, "in_claimed": claim.fence, "in_worker": claim.worker_id}


class Claims:
    """The statements of the claimer. A method that takes a connection runs in its transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements = store.statements

    def next_queues(
        self, connection: Connection, first: str = "", *, limit: int
    ) -> list[QueueHead]:
        """Return up to `limit` queues that have available jobs, in order, from `first` on."""
        parameters = {"in_queue": first, "in_limit": limit}
        rows = connection.execute(self._statements.next_queues, parameters)
        return [QueueHead(*row) for row in rows]

    def heads(self, connection: Connection, queues: Iterable[str]) -> list[QueueHead]:
        """Return those of the queues that have available jobs, in order."""
        given = [(name,) for name in queues]
        parameters = self._store.backend.batch_parameters(NAMES, given)
        return [QueueHead(*row) for row in connection.execute(self._statements.heads, parameters)]

    def claim(
        self,
        connection: Connection,
        holder: WorkerRef,
        queue: str,
        cursor: Cursor = START,
        *,
        limit: int,
        free: int,
    ) -> ClaimBatch:
        """Claim up to `limit` jobs of a queue after the cursor: by priority, then run_at, then id.

        `free`: how many of them can start at once. Beyond those, a job that must start at once ends
        the claim, so that no other job overtakes it. Hand claims out only after the commit: the
        outcome of a fast handler would otherwise name a fence that is not committed yet.
        """
        parameters = {
            "in_worker": holder.id,
            "in_worker_name": holder.name,
            "in_queue": queue,
            "in_priority": cursor[0],
            "in_cursor_run_at": cursor[1],
            "in_cursor_id": cursor[2],
            "in_limit": limit,
        }
        if self._store.backend.single_writer:
            jobs = self._statements.claimable_text, self._statements.claimable_rows
            found = self._claim_found(connection, *jobs, parameters, holder)
        else:
            found = self._claim_at_once(connection, self._statements.claim, parameters, holder)
        return self._undo_unready(connection, ClaimBatch(found), free)

    def _claim_at_once(
        self,
        connection: Connection,
        statement: Executable,
        parameters: dict[str, Any],
        holder: WorkerRef,
    ) -> list[Claim]:
        """Claim jobs by an UPDATE that returns them; in order of their places."""
        rows = CompiledStatement(self._store, statement).execute(connection, parameters)
        # All rows by one call of the driver: one by one they take nearly twice the time.
        return sorted(claims_of(self._store, rows.all(), holder), key=place_of)

    def _claim_found(
        self,
        connection: Connection,
        text: Executable,
        rows: Executable,
        parameters: dict[str, Any],
        holder: WorkerRef,
    ) -> list[Claim]:
        """Find jobs, and claim them: without RETURNING, for which SQLite fills a table.

        `text` and `rows` are two statements that find the same jobs.
        """
        quick = CompiledStatement(self._store, text)
        found = quick.execute(connection, parameters).scalar_one()
        if found is None:
            return []
        try:
            claims = decode_claims(found)
        except MsgspecError:  # Plain SQL wrote a value of another type into one of them.
            claims = claims_of(self._store, connection.execute(rows, parameters), holder)
        ids = [(claim.id,) for claim in claims]
        given = self._store.backend.batch_parameters(IDS, ids)
        given |= {name: parameters[name] for name in ("in_worker", "in_worker_name")}
        given["in_started_at"] = claims[0].started_at
        CompiledStatement(self._store, self._statements.claim_found).execute(connection, given)
        return claims

    def claim_queues(
        self,
        connection: Connection,
        holder: WorkerRef,
        cursors: Mapping[str, Cursor],
        ends: Mapping[str, Cursor] = MappingProxyType({}),
        *,
        share: int,
        limit: int,
        free: int,
    ) -> dict[str, ClaimBatch]:
        """Claim up to `share` jobs of each queue after its cursor and up to its end, if any.

        By one statement, as `claim` does for one queue after the other, in the order of `cursors`,
        until there are `limit` claims: the queues not asked by then are missing in the result.
        """
        parameters = {
            "in_worker": holder.id,
            "in_worker_name": holder.name,
            "in_share": share,
            "in_limit": limit,
        }
        statements, backend = self._statements, self._store.backend
        given: list[tuple[Any, ...]]
        if ends:
            given = [(name, *cursor, *ends.get(name, END)) for name, cursor in cursors.items()]
        else:
            given = [(queue, *cursor) for queue, cursor in cursors.items()]
        parameters |= backend.batch_parameters(RANGES if ends else CURSORS, given)
        if backend.single_writer:
            jobs = (
                (statements.claimable_text_of_ranges, statements.claimable_rows_of_ranges)
                if ends
                else (statements.claimable_text_of_queues, statements.claimable_rows_of_queues)
            )
            found = self._claim_found(connection, *jobs, parameters, holder)
        else:
            statement = statements.claim_ranges if ends else statements.claim_queues
            found = self._claim_at_once(connection, statement, parameters, holder)
        batches = {queue: ClaimBatch() for queue in cursors}
        for claim in found:
            batches[claim.queue].append(claim)
        if len(found) >= limit:
            while not batches[(last := next(reversed(batches)))]:
                del batches[last]
            batches[last].cut_short = True
        if any(map(_is_immediate_only, found)):  # Rare: one check of all costs less.
            for batch in batches.values():
                self._undo_unready(connection, batch, max(0, free))
                free -= len(batch)
        return batches

    def _undo_unready(self, connection: Connection, claims: ClaimBatch, free: int) -> ClaimBatch:
        """Undo a queue's claims, which are in order, from the first that must start and cannot."""
        for place in range(free, len(claims)):
            if claims[place].immediate_only:
                # Rare: after such a job, callers claim at most `free`.
                pairs = sorted((claim.id, claim.fence) for claim in claims[place:])
                parameters = self._store.backend.batch_parameters(PAIRS, pairs)
                connection.execute(self._statements.undo_claim, parameters)
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
        quick = CompiledStatement(self._store, self._statements.claim_first)
        rows = quick.in_autocommit(parameters) or []
        return sorted(claims_of(self._store, rows, holder), key=place_of)

    def mark_started(self, claim: Claim) -> bool:
        """Free the unique key of a job that starts now; return False if the claim is lost.

        If the commit's answer is lost, the key may be free although the job has not started.
        """
        with self._store.write_lock(), self._store.write() as connection:
            # A slot must not wait for another client's lock.
            self._store.backend.limit_lock_wait(connection)
            started = connection.execute(self._statements.mark_started, parameters_of(claim))
            return started.rowcount == 1

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
        return claims_of(self._store, found, holder)
