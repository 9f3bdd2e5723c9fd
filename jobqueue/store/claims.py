"""Claims: how a worker takes jobs and writes down how they ended.

Every write names (id, fence) and the lease under which the job was claimed.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection

from jobqueue.records import Claim, Ended, Outcome, Succeeded
from jobqueue.states import FINAL, State
from jobqueue.store.counters import Tally
from jobqueue.store.database import Alone, Store
from jobqueue.store.dialects.base import Columns
from jobqueue.store.sql.rows import END, PAIRS, PROGRESS, SUCCESS, Progress, last_progress

START: tuple[datetime, int] = (datetime(1, 1, 1, tzinfo=UTC), 0)
"""The cursor before every job."""
LAST: tuple[datetime, int] = (datetime.max.replace(tzinfo=UTC), 2**63 - 1)
"""The cursor behind every job."""

PRIORITY_BEFORE_ALL = -(2**31)
PRIORITY_AFTER_ALL = 2**31 - 1
BULK = 16
"""Outcomes from which on it pays to try first as if every claim held."""

_RAN_OUT = ("errored", "timed out", "crashed", "refused")


_CLAIM: Callable[[Sequence[Any]], Claim] = partial(tuple.__new__, Claim)
"""What `Claim._make` does, without a call of Python's per row."""
_ORDER = attrgetter("run_at", "id")
_PLACE = itemgetter(-1, Claim._fields.index("run_at"), Claim._fields.index("id"))
_ID = itemgetter(0)  # Rows are locked in this order by all, so that two transactions take turns.
_STATES = {state.value: state for state in State}


class Holder(NamedTuple):
    """The worker in whose name jobs are claimed."""

    id: int
    name: str


class Pair(NamedTuple):
    """A queue and a priority: jobs of one pair are claimed by one statement."""

    queue: str
    priority: int


class Taken(list[Claim]):
    """Claims in order, and whether the next job was left because no slot is free to begin it."""

    held_back = False


class Claims:
    """The verbs of the hot line; those that are given a connection run in its transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements = store.statements

    def next_pair(self, connection: Connection, after: Pair) -> Pair | None:
        """The first pair after the given one that has an available job, or None."""
        parameters = {
            "in_queue": after.queue,
            "in_priority": after.priority,
            "in_cursor_run_at": LAST[0],
            "in_cursor_id": LAST[1],
        }
        row = connection.execute(self._statements.next_pair, parameters).one_or_none()
        return None if row is None else Pair(*row)

    def claim(
        self,
        connection: Connection,
        holder: Holder,
        pair: Pair,
        cursor: tuple[datetime, int],
        *,
        limit: int,
        free: int,
    ) -> Taken:
        """Claim up to `limit` jobs of a pair after the cursor, in order of (run_at, id).

        `free` is how many of them could begin at once. Beyond those, a job that may not wait in an
        inbox ends the claim, so that nothing overtakes it either. Hand claims out after the commit
        only: the outcome of a fast handler would otherwise name a fence that is not there yet.
        """
        parameters = {
            "in_worker": holder.id,
            "in_worker_name": holder.name,
            "in_queue": pair.queue,
            "in_priority": pair.priority,
            "in_cursor_run_at": cursor[0],
            "in_cursor_id": cursor[1],
            "in_limit": limit,
        }
        claims = self._claim(connection, parameters)
        for place in range(free, len(claims)):
            if claims[place].solo:
                # Rare: callers that met such a job ask for no more than `free`.
                self._unclaim(connection, claims[place:])
                del claims[place:]
                claims.held_back = True
                break
        return claims

    def claim_head(self, holder: Holder, queue: str, limit: int) -> list[Claim]:
        """Claim the first jobs of a queue, better priorities first, by one statement; it commits.

        Ask for no more than can begin at once.
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
    def _head(self) -> Alone:
        return Alone(self._store, self._statements.claim_head)

    def _unclaim(self, connection: Connection, claims: Sequence[Claim]) -> None:
        """Undo claims of this very transaction, which nobody has seen."""
        pairs = sorted((claim.id, claim.fence) for claim in claims)
        parameters = self._store.backend.pack(PAIRS, pairs)
        connection.execute(self._statements.unclaim, parameters)

    def _claim(self, connection: Connection, parameters: dict[str, Any]) -> Taken:
        rows = connection.execute(self._statements.claim, parameters).all()
        claims = Taken(map(_CLAIM, rows))
        claims.sort(key=_ORDER)
        return claims

    def begin(self, claim: Claim) -> bool:
        """Free the unique key of a job that begins now; False: the claim is not held any more.

        Where the answer is lost, the key may be free although the job has not begun.
        """
        with self._store.turn(), self._store.write() as connection:
            self._store.backend.hurry(connection)  # A slot may not wait for someone's lock.
            parameters = {
                "in_job": claim.id,
                "in_claimed": claim.fence,
                "in_worker": claim.worker_id,
            }
            return connection.execute(self._statements.begin, parameters).rowcount == 1

    def unknown(
        self, connection: Connection, holder: Holder, known: Mapping[int, Claim], limit: int = 500
    ) -> list[Claim]:
        """Up to `limit` claims in the holder's name that are not among those it knows of.

        Where a commit's answer was lost, the worker was never told of its claims; where the server
        has lost a commit that it had answered, the worker has forgotten them.
        """
        rows = connection.execute(self._statements.held, {"in_worker": holder.id})
        ids = sorted(id_ for id_, fence in rows if id_ not in known or known[id_].fence != fence)
        if not ids:
            return []
        parameters = {"in_worker": holder.id, "in_ids": ids[:limit]}
        found = connection.execute(self._statements.held_claims, parameters)
        return [_CLAIM(row) for row in found]

    def finish(
        self,
        connection: Connection,
        holder: Holder,
        outcomes: Sequence[Outcome],
        tally: Tally | None = None,
        progress: Sequence[Progress] = (),
    ) -> dict[int, State]:
        """Write outcomes in the holder's name; returns the new state of jobs whose claim held.

        A job that is missing from the answer is no longer this worker's: its fence did not match.
        What was counted is in `tally` afterwards; it counts when the transaction is committed.
        `progress` is what handlers reported last, and no heartbeat has written.
        """
        tally = Tally() if tally is None else tally
        states: dict[int, State] = {}
        well: list[Succeeded] = []
        ends: list[Any] = []
        for outcome in outcomes:
            if isinstance(outcome, Ended):
                ends.append(_end_row(outcome))
            elif outcome.reason is not None:
                ends.append(_dropped_row(outcome))
            else:
                well.append(outcome)
        if well:
            self._succeed(connection, holder, well, states)
        if ends:
            ends.sort(key=_ID)
            parameters = self._pack(END, ends, holder)
            written = connection.execute(self._statements.end, parameters).all()
            states.update((id_, _STATES[state]) for id_, state in written)
        if progress:
            own = [said for said in progress if said[0] in states]
            parameters = last_progress(self._store.backend, own)
            connection.execute(self._statements.report, parameters)
        _count(tally, outcomes, states)
        if ends or len(well) < BULK or State.CANCELLED in states.values():
            self._record(connection, holder.name, outcomes, states)
        if len(states) < len(outcomes):
            self._settle(connection, holder, outcomes, states, tally)
        tally.write(connection, self._statements)
        return states

    def _succeed(
        self,
        connection: Connection,
        holder: Holder,
        well: Sequence[Succeeded],
        states: dict[int, State],
    ) -> None:
        """Write successes.

        Where a round trip costs nothing, first as if all claims held: that needs no answer per row.
        """
        rows = [(claim.id, claim.fence, result) for claim, result, _, _, _ in well]
        rows.sort(key=_ID)
        parameters = self._pack(SUCCESS, rows, holder)
        if self._store.backend.one_writer and len(well) >= BULK:
            # Not `begin_nested()`: a third of its time, and it is on the one writer's clock.
            connection.exec_driver_sql("SAVEPOINT jobqueue_all")
            held = connection.execute(self._statements.succeed_all, parameters).rowcount
            if held == len(well):
                connection.exec_driver_sql("RELEASE jobqueue_all")
                states.update(dict.fromkeys([row[0] for row in rows], State.SUCCEEDED))
                return
            connection.exec_driver_sql("ROLLBACK TO jobqueue_all")
        written = connection.execute(self._statements.succeed, parameters).all()
        states.update((id_, _STATES[state]) for id_, state in written)

    def _settle(
        self,
        connection: Connection,
        holder: Holder,
        outcomes: Sequence[Outcome],
        states: dict[int, State],
        tally: Tally,
    ) -> None:
        """Accept what was written already: by `finish_within`, or by a commit without an answer.

        What they counted stays; a handler's own transaction has not counted how long it took.
        """
        open_ = {
            outcome.claim.id: outcome for outcome in outcomes if outcome.claim.id not in states
        }
        pairs = [(id_, outcome.claim.fence) for id_, outcome in open_.items()]
        parameters = self._store.backend.pack(PAIRS, pairs) | {"in_worker_name": holder.name}
        for id_, state, _ in connection.execute(self._statements.settled, parameters):
            outcome = open_[id_]
            own = State.SUCCEEDED if isinstance(outcome, Succeeded) else outcome.state
            within = isinstance(outcome, Ended) and outcome.within and state == State.SUCCEEDED
            if (state in FINAL and state == own) or within:
                states[id_] = State(state)
            if within:
                claim = outcome.claim
                tally.ran(claim.queue, claim.task, outcome.duration or 0.0, outcome.wait)

    def _record(
        self,
        connection: Connection,
        worker: str,
        outcomes: Sequence[Outcome],
        states: dict[int, State],
    ) -> None:
        rows = []
        for outcome in outcomes:
            claim, error = outcome.claim, None
            exit_signal = peak_memory = None
            if states.get(claim.id) in (None, State.SUCCEEDED):
                continue
            what = "cancelled"  # A success that came after the wish to cancel.
            if isinstance(outcome, Ended):
                what, error = outcome.outcome, outcome.error
                exit_signal, peak_memory = outcome.exit_signal, outcome.peak_memory
                begun = outcome.duration is not None or outcome.reason == "interrupted"
                if not begun and error is None:
                    continue  # Giving back what has not begun is no attempt.
            rows.append(
                {
                    "job_id": claim.id,
                    "fence": claim.fence,
                    "attempt": claim.attempt,
                    "worker": worker,
                    "started_at": claim.started_at,
                    "outcome": what,
                    "error_type": error and error.type,
                    "error_message": error and error.message,
                    "traceback": error and error.traceback,
                    "exit_signal": exit_signal,
                    "peak_memory": peak_memory,
                }
            )
        if rows:
            connection.execute(self._statements.record_attempts, rows)

    def report(self, holder: Holder, rows: Sequence[Progress]) -> None:
        """Write the progress of running jobs."""
        parameters = self._pack(PROGRESS, sorted(rows, key=_ID), holder)
        with self._store.write() as connection:
            self._store.backend.hurry(connection)  # No lock on a job may hold up the heartbeat.
            connection.execute(self._statements.report, parameters)

    def _pack(
        self, columns: Columns, rows: Sequence[Sequence[Any]], holder: Holder
    ) -> dict[str, Any]:
        return self._store.backend.pack(columns, rows) | {"in_worker": holder.id}


def _count(tally: Tally, outcomes: Sequence[Outcome], states: Mapping[int, State]) -> None:
    """Count the outcomes that were accepted just now."""
    queue = task = count = None
    for outcome in outcomes:
        claim = outcome.claim
        state = states.get(claim.id)
        if state is None:
            continue
        if state is State.SUCCEEDED and outcome.duration is not None:
            # Most are; and neighbours are often of one kind, so that it need not be looked up.
            if count is None or claim.task != task or claim.queue != queue:
                queue, task = claim.queue, claim.task
                count = tally.of(queue, task)
            count.succeeded += 1
            count.durations.append(outcome.duration)
            count.waits.append(outcome.wait)
            continue
        if state in FINAL:
            tally.ended(claim.queue, claim.task, state)
        if isinstance(outcome, Ended) and outcome.outcome in _RAN_OUT:
            tally.errored(claim.queue, claim.task)
        if isinstance(outcome, Ended) and outcome.snooze and state is State.SCHEDULED:
            tally.of(claim.queue, claim.task).snoozed += 1
        if outcome.duration is not None:
            tally.ran(claim.queue, claim.task, outcome.duration, outcome.wait)


def _end_row(outcome: Ended) -> tuple[Any, ...]:
    claim = outcome.claim
    crashes = own_crashes = None  # As they are: it has not begun, or not been left to end.
    if outcome.crash:
        crashes, own_crashes = claim.crashes + 1, claim.own_crashes + 1
    elif outcome.duration is not None:
        crashes = own_crashes = 0
    return (
        claim.id,
        claim.fence,
        outcome.state,
        outcome.delay,
        int(outcome.refund),
        int(outcome.snooze),
        outcome.reason,
        crashes,
        own_crashes,
    )


def _dropped_row(outcome: Succeeded) -> tuple[Any, ...]:
    """Success without a result, and why there is none."""
    claim = outcome.claim
    return (claim.id, claim.fence, State.SUCCEEDED, None, 0, 0, outcome.reason, 0, 0)
