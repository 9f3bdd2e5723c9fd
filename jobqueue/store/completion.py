"""Completion: how a worker writes what became of its claims, and what their handlers report.

Every write names (id, fence) and the lease under which the job was claimed.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from jobqueue.records import Outcome, Succeeded, Unsuccessful
from jobqueue.states import FINAL, State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import Store
from jobqueue.store.dialects.base import Columns
from jobqueue.store.sql.rows import END, PAIRS, PROGRESS, SUCCESS, Progress, last_progress

BULK = 16
"""Outcomes from which on it pays to try first as if every claim held."""

_RAN_OUT = ("errored", "timed out", "crashed", "refused")
_ID = itemgetter(0)  # Rows are locked in this order by all, so that two transactions take turns.
_STATES = {state.value: state for state in State}


class Completion:
    """Outcomes, attempts and counts, in one transaction."""

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
        """Write outcomes in the holder's name; returns the new state of jobs whose claim held.

        A job that is missing from the answer is no longer this worker's: its fence did not match.
        What was counted is in `counts` afterwards; it counts when the transaction is committed.
        `progress` is what handlers reported last, and no heartbeat has written.
        """
        counts = TransactionCounts() if counts is None else counts
        states: dict[int, State] = {}
        well: list[Succeeded] = []
        ends: list[Any] = []
        for outcome in outcomes:
            if isinstance(outcome, Unsuccessful):
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
            written = connection.execute(self._statements.complete, parameters).all()
            states.update((id_, _STATES[state]) for id_, state in written)
        if progress:
            own = [said for said in progress if said[0] in states]
            parameters = last_progress(self._store.backend, own)
            connection.execute(self._statements.save_progress, parameters)
        _count(counts, outcomes, states)
        if ends or len(well) < BULK or State.CANCELLED in states.values():
            self._record(connection, holder.name, outcomes, states)
        if len(states) < len(outcomes):
            self._settle(connection, holder, outcomes, states, counts)
        counts.write(connection, self._statements)
        return states

    def _succeed(
        self,
        connection: Connection,
        holder: WorkerRef,
        well: Sequence[Succeeded],
        states: dict[int, State],
    ) -> None:
        """Write successes.

        Where a round trip costs nothing, first as if all claims held: that needs no answer per row.
        """
        rows = [(claim.id, claim.fence, result) for claim, result, _, _, _ in well]
        rows.sort(key=_ID)
        parameters = self._pack(SUCCESS, rows, holder)
        if self._store.backend.single_writer and len(well) >= BULK:
            # Not `begin_nested()`: a third of its time, and it is on the one writer's clock.
            connection.exec_driver_sql("SAVEPOINT jobqueue_all")
            held = connection.execute(self._statements.succeed_batch, parameters).rowcount
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
        holder: WorkerRef,
        outcomes: Sequence[Outcome],
        states: dict[int, State],
        counts: TransactionCounts,
    ) -> None:
        """Accept what was written already: by `finish_within`, or by a commit without an answer.

        What they counted stays; a handler's own transaction has not counted how long it took.
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
    ) -> None:
        rows = []
        for outcome in outcomes:
            claim, error = outcome.claim, None
            exit_signal = peak_memory = None
            if states.get(claim.id) in (None, State.SUCCEEDED):
                continue
            what = "cancelled"  # A success that came after the wish to cancel.
            if isinstance(outcome, Unsuccessful):
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

    def save_progress(self, holder: WorkerRef, rows: Sequence[Progress]) -> None:
        """Write the progress of running jobs."""
        parameters = self._pack(PROGRESS, sorted(rows, key=_ID), holder)
        with self._store.write() as connection:
            self._store.backend.limit_lock_wait(
                connection
            )  # No lock on a job may hold up the heartbeat.
            connection.execute(self._statements.save_progress, parameters)

    def _pack(
        self, columns: Columns, rows: Sequence[Sequence[Any]], holder: WorkerRef
    ) -> dict[str, Any]:
        return self._store.backend.batch_parameters(columns, rows) | {"in_worker": holder.id}


def _count(
    counts: TransactionCounts, outcomes: Sequence[Outcome], states: Mapping[int, State]
) -> None:
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
                count = counts.of(queue, task)
            count.succeeded += 1
            count.durations.append(outcome.duration)
            count.waits.append(outcome.wait)
            continue
        if state in FINAL:
            counts.ended(claim.queue, claim.task, state)
        if isinstance(outcome, Unsuccessful) and outcome.outcome in _RAN_OUT:
            counts.errored(claim.queue, claim.task)
        if isinstance(outcome, Unsuccessful) and outcome.snooze and state is State.SCHEDULED:
            counts.of(claim.queue, claim.task).snoozed += 1
        if outcome.duration is not None:
            counts.ran(claim.queue, claim.task, outcome.duration, outcome.wait)


def _end_row(outcome: Unsuccessful) -> tuple[Any, ...]:
    claim = outcome.claim
    crashes = child_crashes = None  # As they are: it has not begun, or not been left to end.
    if outcome.crash:
        crashes, child_crashes = claim.crashes + 1, claim.child_crashes + 1
    elif outcome.duration is not None:
        crashes = child_crashes = 0
    return (
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


def _dropped_row(outcome: Succeeded) -> tuple[Any, ...]:
    """Success without a result, and why there is none."""
    claim = outcome.claim
    return (claim.id, claim.fence, State.SUCCEEDED, None, 0, 0, outcome.reason, 0, 0)
