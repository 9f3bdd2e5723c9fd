"""Completion: record the outcomes of claims, and the progress that handlers report.

Every write names (id, fence) and the lease under which the job was claimed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec.json import decode, encode
from sqlalchemy import Connection, Executable

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
        batch = _Batch(self._store, connection, holder, counts)
        batch.write(outcomes, progress)
        return batch.states

    def save_progress(self, holder: WorkerRef, rows: Sequence[Progress]) -> None:
        """Write the progress of running jobs."""
        backend = self._store.backend
        parameters = backend.batch_parameters(PROGRESS, sorted(rows, key=_ID))
        with self._store.write() as connection:
            backend.limit_lock_wait(connection)  # A lock on a job must not delay the heartbeat.
            statement = self._store.statements.save_progress
            connection.execute(statement, parameters | {"in_worker": holder.id})


class _Batch:
    """The outcomes that one transaction records."""

    def __init__(
        self, store: Store, connection: Connection, holder: WorkerRef, counts: TransactionCounts
    ) -> None:
        self._store = store
        self._statements = store.statements
        self._connection = connection
        self._holder = holder
        self._counts = counts
        self.states: dict[int, State] = {}
        """The new states of those whose claims were held, so far."""

    def write(self, outcomes: Sequence[Outcome], progress: Sequence[Progress]) -> None:
        """Record the outcomes, and the last progress of those whose claims were held."""
        states = self.states
        well, ends = _split(outcomes)
        if well and not (ends or progress or self._store.backend.single_writer):
            if self._succeed_and_count(well):
                return
        elif well and not (self._store.backend.single_writer and self._succeed_all(well)):
            self._execute(self._statements.succeed, SUCCESS, _rows(well))
        if ends:
            self._execute(self._statements.complete, END, sorted(ends, key=_ID))
        if progress:
            own = [said for said in progress if said[0] in states]
            parameters = last_progress(self._store.backend, own)
            self._connection.execute(self._statements.save_progress, parameters)
        self._count(outcomes, states)
        if ends or len(well) < BULK or State.CANCELLED in states.values():
            self._record(outcomes)
        if len(states) < len(outcomes):
            self._settle(outcomes)
        self._counts.write(self._connection, self._store)

    def _succeed_and_count(self, well: Sequence[Succeeded]) -> bool:
        """Record successes; if all claims were held, count them too and return True.

        By one statement, where each round trip takes the time of some hundred jobs.
        """
        expected = dict.fromkeys([done.claim.id for done in well], State.SUCCEEDED)
        self._count(well, expected)
        parameters = self._pack(SUCCESS, _rows(well)) | {"in_expected": len(well)}
        parameters |= self._store.backend.batch_parameters(COUNTS, self._counts.rows())
        quick = CompiledStatement(self._store, self._statements.succeed_and_count)
        given = quick.constants | parameters
        recorded = self._connection.exec_driver_sql(quick.text, given).scalar_one()
        if recorded is None:
            self.states.update(expected)
            return True
        self.states.update(decode(recorded, type=dict[int, State]))
        self._counts.counts.clear()
        return False

    def _succeed_all(self, well: Sequence[Succeeded]) -> bool:
        """Record successes as if all claims were held; return False if some are not.

        On a database without round trips: without RETURNING. Not if there are few for a fence.
        """
        results: dict[int, dict[int, str | None]] = defaultdict(dict)
        for done in well:
            results[done.claim.fence][done.claim.id] = done.result
        if len(well) < BULK * len(results):
            return False
        # Not `begin_nested()`: plain SQL takes a third of its time, for which all writers wait.
        self._connection.exec_driver_sql("SAVEPOINT jobqueue_all")
        held, quick = 0, CompiledStatement(self._store, self._statements.succeed_batch)
        for fence, by_id in results.items():
            given = {"in_results": encode(by_id).decode(), "in_claimed": fence}
            given["in_worker"] = self._holder.id
            held += quick.execute(self._connection, given).rowcount
        if held != sum(map(len, results.values())):
            self._connection.exec_driver_sql("ROLLBACK TO jobqueue_all")
            return False
        self._connection.exec_driver_sql("RELEASE jobqueue_all")
        self.states.update(dict.fromkeys([done.claim.id for done in well], State.SUCCEEDED))
        return True

    def _execute(
        self, statement: Executable, columns: Columns, rows: Sequence[Sequence[Any]]
    ) -> None:
        """Record outcomes by a statement that returns the states of those that were held."""
        written = self._connection.execute(statement, self._pack(columns, rows)).all()
        self.states.update((id_, _STATES[state]) for id_, state in written)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Accept outcomes recorded already, by `finish_within` or a commit whose answer was lost.

        Their counters stay; `finish_within` has not counted the duration, which is added here.
        """
        open_ = {one.claim.id: one for one in outcomes if one.claim.id not in self.states}
        pairs = [(id_, outcome.claim.fence) for id_, outcome in open_.items()]
        parameters = self._store.backend.batch_parameters(PAIRS, pairs)
        parameters["in_worker_name"] = self._holder.name
        found = self._connection.execute(self._statements.already_completed, parameters)
        for id_, state, _ in found:
            outcome = open_[id_]
            own = State.SUCCEEDED if isinstance(outcome, Succeeded) else outcome.state
            within = (
                isinstance(outcome, Unsuccessful) and outcome.within and state == State.SUCCEEDED
            )
            if (state in FINAL and state == own) or within:
                self.states[id_] = State(state)
            if within:
                claim = outcome.claim
                self._counts.ran(claim.queue, claim.task, outcome.duration or 0.0, outcome.wait)

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        rows = []
        for one in outcomes:
            state = self.states.get(one.claim.id, State.SUCCEEDED)
            if state is State.SUCCEEDED or (row := _attempt_row(one, self._holder.name)) is None:
                continue
            rows.append(row._asdict())
            if isinstance(one, Unsuccessful) and one.error is not None:
                self._counts.error(one.claim.task, one.error, state)
        if rows:
            self._connection.execute(self._statements.record_attempts, rows)

    def _pack(self, columns: Columns, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        return self._store.backend.batch_parameters(columns, rows) | {"in_worker": self._holder.id}

    def _count(self, outcomes: Sequence[Outcome], states: Mapping[int, State]) -> None:
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
                    count = self._counts.of(queue, task)
                count.succeeded += 1
                count.durations.append(outcome.duration)
                count.waits.append(outcome.wait)
                continue
            if state in FINAL:
                self._counts.ended(claim.queue, claim.task, state)
            if isinstance(outcome, Unsuccessful) and outcome.outcome in _ERRORED:
                self._counts.of(claim.queue, claim.task).errored_attempts += 1
            if isinstance(outcome, Unsuccessful) and outcome.snooze and state is State.SCHEDULED:
                self._counts.of(claim.queue, claim.task).snoozed += 1
            if outcome.duration is not None:
                self._counts.ran(claim.queue, claim.task, outcome.duration, outcome.wait)


def _rows(well: Sequence[Succeeded]) -> list[tuple[int, int, str | None]]:
    """Return the rows of SUCCESS."""
    return sorted(((done.claim.id, done.claim.fence, done.result) for done in well), key=_ID)


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
