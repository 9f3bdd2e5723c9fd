"""Completion: record the outcomes of claims, and the progress that handlers report.

Every write names (id, fence) and the lease under which the job was claimed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec.json import decode, encode
from sqlalchemy import Connection

from jobqueue.records import INTERRUPTED, Outcome, Succeeded, Unsuccessful
from jobqueue.states import FINAL, OutcomeKind, State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import CompiledStatement, Store
from jobqueue.store.dialects.base import Columns
from jobqueue.store.sql.rows import (
    COUNTS,
    END,
    PAIRS,
    PROGRESS,
    SUCCESS,
    CompletionRow,
    Progress,
    last_progress,
)

BULK = 16
"""Number of successes from which `succeed_batch` is tried first, as if all claims were held.

For each of their fences: `succeed_batch` is a statement for one of them, `succeed` one for all.
"""

_ERRORED = (
    *(OutcomeKind.ERRORED, OutcomeKind.TIMED_OUT),
    *(OutcomeKind.CRASHED, OutcomeKind.REFUSED),
)
_ID = itemgetter(0)  # All transactions lock rows in this order, so that two cannot deadlock.
_STATES = {state.value: state for state in State}


class Completion:
    """Writes outcomes, attempts and counters in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statements = store.statements

    def complete(
        self,
        connection: Connection,
        holder: WorkerRef,
        outcomes: Sequence[Outcome],
        counts: TransactionCounts | None = None,
        progress: Sequence[Progress] = (),
    ) -> dict[int, State]:
        """Record the holder's outcomes; return the new state of each job whose claim was held.

        The worker has lost each job that is missing from the result: its fence did not match.
        `counts`, empty, gets what this transaction counts, valid once it is committed. `progress`:
        what handlers reported last, and no heartbeat has written yet.
        """
        counts = TransactionCounts() if counts is None else counts
        states: dict[int, State] = {}
        well, ends = _split(outcomes)
        if well and not (ends or progress or self._store.backend.single_writer):
            if self._succeed_and_count(connection, holder, well, states, counts):
                return states
        elif well:
            self._succeed(connection, holder, well, states)
        if ends:
            ends.sort(key=_ID)
            parameters = self._pack(END, ends, holder)
            written = connection.execute(self._statements.complete, parameters).all()
            states.update((id_, _STATES[state]) for id_, state in written)
        if progress:
            own = [said for said in progress if said[0] in states]
            parameters = last_progress(self._store.backend, own)
            connection.execute(self._statements.save_progress, parameters)
        _count(counts, outcomes, states)
        if ends or len(well) < BULK or State.CANCELLED in states.values():
            self._record(connection, holder.name, outcomes, states, counts)
        if len(states) < len(outcomes):
            self._settle(connection, holder, outcomes, states, counts)
        counts.write(connection, self._store)
        return states

    def _succeed_and_count(
        self,
        connection: Connection,
        holder: WorkerRef,
        well: Sequence[Succeeded],
        states: dict[int, State],
        counts: TransactionCounts,
    ) -> bool:
        """Record successes; if all claims were held, count them too and return True.

        By one statement, where each round trip takes the time of some hundred jobs.
        """
        expected = dict.fromkeys([done.claim.id for done in well], State.SUCCEEDED)
        _count(counts, well, expected)
        rows = sorted(((done.claim.id, done.claim.fence, done.result) for done in well), key=_ID)
        parameters = self._pack(SUCCESS, rows, holder) | {"in_expected": len(rows)}
        parameters |= self._store.backend.batch_parameters(COUNTS, counts.rows())
        quick = CompiledStatement(self._store, self._statements.succeed_and_count)
        given = quick.constants | parameters
        recorded = connection.exec_driver_sql(quick.text, given).scalar_one()
        if recorded is None:
            states.update(expected)
            return True
        states.update(decode(recorded, type=dict[int, State]))
        counts.counts.clear()
        return False

    def _succeed(
        self,
        connection: Connection,
        holder: WorkerRef,
        well: Sequence[Succeeded],
        states: dict[int, State],
    ) -> None:
        """Record successes.

        On a database without round trips, first as if all claims were held: without RETURNING.
        """
        by_fence = self._by_fence(well)
        if by_fence and len(well) >= BULK * len(by_fence):
            # Not `begin_nested()`: plain SQL takes a third of its time, for which all writers wait.
            connection.exec_driver_sql("SAVEPOINT jobqueue_all")
            if self._succeed_all(connection, holder, by_fence):
                connection.exec_driver_sql("RELEASE jobqueue_all")
                states.update(dict.fromkeys([done.claim.id for done in well], State.SUCCEEDED))
                return
            connection.exec_driver_sql("ROLLBACK TO jobqueue_all")
        rows = [(done.claim.id, done.claim.fence, done.result) for done in well]
        rows.sort(key=_ID)
        parameters = self._pack(SUCCESS, rows, holder)
        written = connection.execute(self._statements.succeed, parameters).all()
        states.update((id_, _STATES[state]) for id_, state in written)

    def _by_fence(self, well: Sequence[Succeeded]) -> dict[int, dict[int, str | None]]:
        """Return the results by id of the claims with each fence; nothing if they are too few."""
        results: dict[int, dict[int, str | None]] = defaultdict(dict)
        if self._store.backend.single_writer and len(well) >= BULK:
            for done in well:
                results[done.claim.fence][done.claim.id] = done.result
        return results

    def _succeed_all(
        self,
        connection: Connection,
        holder: WorkerRef,
        results: Mapping[int, Mapping[int, str | None]],
    ) -> bool:
        """Record successes as if all claims were held; return False if some are not."""
        held, quick = 0, CompiledStatement(self._store, self._statements.succeed_batch)
        for fence, by_id in results.items():
            given = {"in_results": encode(by_id).decode(), "in_claimed": fence}
            given["in_worker"] = holder.id
            held += quick.execute(connection, given).rowcount
        return held == sum(map(len, results.values()))

    def _settle(
        self,
        connection: Connection,
        holder: WorkerRef,
        outcomes: Sequence[Outcome],
        states: dict[int, State],
        counts: TransactionCounts,
    ) -> None:
        """Accept outcomes recorded already, by `finish_within` or a commit whose answer was lost.

        Their counters stay; `finish_within` has not counted the duration, which is added here.
        """
        open_ = {
            outcome.claim.id: outcome for outcome in outcomes if outcome.claim.id not in states
        }
        pairs = [(id_, outcome.claim.fence) for id_, outcome in open_.items()]
        parameters = self._store.backend.batch_parameters(PAIRS, pairs) | {
            "in_worker_name": holder.name
        }
        for id_, state, _ in connection.execute(self._statements.already_completed, parameters):
            outcome = open_[id_]
            own = State.SUCCEEDED if isinstance(outcome, Succeeded) else outcome.state
            within = (
                isinstance(outcome, Unsuccessful) and outcome.within and state == State.SUCCEEDED
            )
            if (state in FINAL and state == own) or within:
                states[id_] = State(state)
            if within:
                claim = outcome.claim
                counts.ran(claim.queue, claim.task, outcome.duration or 0.0, outcome.wait)

    def _record(
        self,
        connection: Connection,
        worker: str,
        outcomes: Sequence[Outcome],
        states: dict[int, State],
        counts: TransactionCounts,
    ) -> None:
        rows = []
        for one in outcomes:
            state = states.get(one.claim.id, State.SUCCEEDED)
            if state is State.SUCCEEDED or (row := _attempt_row(one, worker)) is None:
                continue
            rows.append(row._asdict())
            if isinstance(one, Unsuccessful) and one.error is not None:
                counts.error(one.claim.task, one.error, state)
        if rows:
            connection.execute(self._statements.record_attempts, rows)

    def save_progress(self, holder: WorkerRef, rows: Sequence[Progress]) -> None:
        """Write the progress of running jobs."""
        parameters = self._pack(PROGRESS, sorted(rows, key=_ID), holder)
        with self._store.write() as connection:
            # A lock on a job must not delay the heartbeat.
            self._store.backend.limit_lock_wait(connection)
            connection.execute(self._statements.save_progress, parameters)

    def _pack(
        self, columns: Columns, rows: Sequence[Sequence[Any]], holder: WorkerRef
    ) -> dict[str, Any]:
        return self._store.backend.batch_parameters(columns, rows) | {"in_worker": holder.id}


def _split(outcomes: Sequence[Outcome]) -> tuple[list[Succeeded], list[CompletionRow]]:
    """Return the successes with their results, and the rows of all other outcomes."""
    well: list[Succeeded] = []
    ends: list[CompletionRow] = []
    for outcome in outcomes:
        if isinstance(outcome, Unsuccessful):
            ends.append(_completion_row(outcome))
        elif outcome.reason is not None:
            # Its result was not kept.
            claim = outcome.claim
            row = CompletionRow(claim.id, claim.fence, State.SUCCEEDED, reason=outcome.reason)
            ends.append(row)
        else:
            well.append(outcome)
    return well, ends


def _count(
    counts: TransactionCounts, outcomes: Sequence[Outcome], states: Mapping[int, State]
) -> None:
    """Count the outcomes that were just recorded."""
    queue = task = count = None
    for outcome in outcomes:
        claim = outcome.claim
        state = states.get(claim.id)
        if state is None:
            continue
        if state is State.SUCCEEDED and outcome.duration is not None:
            # The common case. Neighbours often share queue and task, which saves the lookup.
            if count is None or claim.task != task or claim.queue != queue:
                queue, task = claim.queue, claim.task
                count = counts.of(queue, task)
            count.succeeded += 1
            count.durations.append(outcome.duration)
            count.waits.append(outcome.wait)
            continue
        if state in FINAL:
            counts.ended(claim.queue, claim.task, state)
        if isinstance(outcome, Unsuccessful) and outcome.outcome in _ERRORED:
            counts.of(claim.queue, claim.task).errored_attempts += 1
        if isinstance(outcome, Unsuccessful) and outcome.snooze and state is State.SCHEDULED:
            counts.of(claim.queue, claim.task).snoozed += 1
        if outcome.duration is not None:
            counts.ran(claim.queue, claim.task, outcome.duration, outcome.wait)


class AttemptRow(NamedTuple):
    """A row of jobqueue_attempts; the statement sets `finished_at`."""

    job_id: int
    fence: int
    attempt: int
    worker: str | None
    started_at: datetime | None
    outcome: OutcomeKind
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    exit_signal: str | None = None
    peak_memory: int | None = None
    error_signature: str | None = None


def _attempt_row(outcome: Outcome, worker: str) -> AttemptRow | None:
    """Return the row of an attempt that did not succeed; None for a claim that never started."""
    claim = outcome.claim
    key = (claim.id, claim.fence, claim.attempt, worker, claim.started_at)
    if isinstance(outcome, Succeeded):  # Its cancellation was requested before it succeeded.
        return AttemptRow(*key, OutcomeKind.CANCELLED)
    started = outcome.duration is not None or outcome.reason == INTERRUPTED
    if not started and outcome.error is None:
        return None
    row = AttemptRow(
        *key, outcome.outcome, exit_signal=outcome.exit_signal, peak_memory=outcome.peak_memory
    )
    if (error := outcome.error) is None:
        return row
    return row._replace(
        error_type=error.type,
        error_message=error.message,
        traceback=error.traceback,
        error_signature=error.signature(claim.task),
    )


def _completion_row(outcome: Unsuccessful) -> CompletionRow:
    claim = outcome.claim
    crashes = child_crashes = None  # Unchanged: the handler has not started, or not completed.
    if outcome.crash:
        crashes, child_crashes = claim.crashes + 1, claim.child_crashes + 1
    elif outcome.duration is not None:
        crashes = child_crashes = 0
    return CompletionRow(
        claim.id,
        claim.fence,
        outcome.state,
        outcome.delay,
        int(outcome.refund),
        int(outcome.snooze),
        outcome.reason,
        crashes,
        child_crashes,
    )
