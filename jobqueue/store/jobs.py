"""Jobs for clients and operators: insert, find, cancel, retry, delete."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy import func as sql_func
from sqlalchemy.exc import IntegrityError

from jobqueue.job_changes import JobChanges
from jobqueue.records import (
    AttemptError,
    AttemptRecord,
    JobFilter,
    JobRecord,
    Refusal,
    names_in,
)
from jobqueue.states import FINAL, MOVES, WAITING, State
from jobqueue.store.audit import Action, moved_from, transact_audited
from jobqueue.store.clock import INSTANT, now
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.enqueue import Enqueuer
from jobqueue.store.schema import attempts, jobs
from jobqueue.store.sql.job_filters import id_of, matches
from jobqueue.store.sql.predicates import KEY_HELD_BY_OTHER, in_force, in_state, may

PAGE = 5000
"""Rows per SELECT of a long list."""

BULK = 1000
"""Rows per transaction of a bulk verb."""

_OURS = ("backoff", "base_max_attempts", "key_released", "worker_id", "progress_at")
_OF_LANES = ("lane_limit", "lane_weight", "lane_strict")
_COLUMNS = [column for column in jobs.c if column.name not in _OURS + _OF_LANES]

_WAS_FINAL = in_state(*FINAL)
_BUDGET = sql_func.coalesce(jobs.c.base_max_attempts, jobs.c.max_attempts)
_OF_FINAL: dict[str, Any] = {
    **dict.fromkeys(("deadline_at", "expires_at"), null()),  # The enqueue's, not the retry's.
    **dict.fromkeys(("crashes", "child_crashes"), 0),
    "fence": jobs.c.fence + 1,
    "base_max_attempts": _BUDGET,
    "max_attempts": jobs.c.attempt + _BUDGET,
}
_RETRIED: dict[str, Any] = {
    "state": case(
        # Once it has its key, upkeep makes it available.
        (jobs.c.awaited_key.is_not(None), State.SCHEDULED.value),
        else_=State.AVAILABLE.value,
    ),
    "run_at": now(),
    **dict.fromkeys(("reason", "finished_at", "started_at", "worker", "result")),
    **dict.fromkeys(("progress", "progress_message", "progress_at", "cancel_requested_at")),
    "snoozes": 0,
    **{name: case((_WAS_FINAL, value), else_=jobs.c[name]) for name, value in _OF_FINAL.items()},
}


class Jobs(Enqueuer):
    """The jobs table, for clients and operators."""

    def get(self, id_: int) -> JobRecord | None:
        """Return one job with the error of its last attempt, or None."""
        return next(iter(self.find(JobFilter(ids=(id_,)))), None)

    def find(
        self, wanted: JobFilter, limit: int | None = None, page: int = PAGE
    ) -> Iterator[JobRecord]:
        """Yield jobs, newest first, read in pages so that no snapshot stays open for long."""
        below: int | None = None
        remaining = limit
        while remaining is None or remaining > 0:
            size = page if remaining is None else min(page, remaining)
            id_ = id_of(wanted)
            statement = select(*_COLUMNS).where(matches(wanted)).order_by(id_.desc())
            if below is not None:
                statement = statement.where(id_ < below)
            with self.store.read() as connection:
                self._prepare(connection, wanted)
                rows = connection.execute(statement.limit(size)).all()
                errors = self._last_errors(connection, [row.id for row in rows if row.attempt])
            yield from (_record(row, errors.get(row.id)) for row in rows)
            if len(rows) < size:
                return
            below = rows[-1].id
            remaining = None if remaining is None else remaining - size

    def _last_errors(self, connection: Connection, ids: list[int]) -> dict[int, Row[Any]]:
        errors: dict[int, Row[Any]] = {}
        if ids:
            self.store.backend.prefer_indexes(connection)
        for start in range(0, len(ids), 500):
            rows = connection.execute(
                select(attempts)
                .where(
                    attempts.c.job_id.in_(ids[start : start + 500]),
                    attempts.c.error_type.is_not(None),
                )
                .order_by(attempts.c.fence)
            )
            errors |= {row.job_id: row for row in rows}
        return errors

    def may_pass(self, error: BaseException) -> bool:
        """Return whether the error is an outage, of a database that has answered before."""
        return self.store.answered and self.store.backend.is_transient(error)

    def states(self, ids: Sequence[int]) -> dict[int, State]:
        """Return the state of each job that exists; used to wait for many jobs at once."""
        found: dict[int, State] = {}
        with self.store.read() as connection:
            for start in range(0, len(ids), 500):
                rows = connection.execute(
                    select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(ids[start : start + 500]))
                )
                found |= {row.id: State(row.state) for row in rows}
        return found

    def attempts(self, job: JobRecord, newest: int | None = None) -> list[AttemptRecord]:
        """Return all attempts in order: the recorded ones, and the one that succeeded or runs.

        Of those that are recorded only the `newest`, where that is given.
        """
        recorded = select(attempts).where(attempts.c.job_id == job.id)
        with self.store.read() as connection:
            rows = connection.execute(
                recorded.order_by(attempts.c.fence.desc()).limit(newest)
            ).all()
        found = [_attempt(row) for row in reversed(rows)]
        if job.state in (State.RUNNING, State.SUCCEEDED):
            outcome = job.state.value
            fence = job.fence - (job.state is State.SUCCEEDED)
            found.append(
                AttemptRecord(
                    job.attempt, fence, job.worker, job.started_at, job.finished_at, outcome, None
                )
            )
        return found

    def count_attempts(self, id_: int) -> int:
        """Return how many attempts of a job are recorded."""
        recorded = select(sql_func.count()).where(attempts.c.job_id == id_)
        with self.store.read() as connection:
            return connection.execute(recorded).scalar_one()

    def cancel(
        self, wanted: JobFilter, action: Action | None = None
    ) -> tuple[list[int], list[Refusal]]:
        """Cancel waiting jobs and request cancellation of running ones.

        Return the changed ids, and a refusal for each other id that the filter names. An `action`
        is written to the audit.
        """
        waiting = in_state(State.SCHEDULED, State.AVAILABLE)

        def cancel(connection: Connection, ids: list[int]) -> list[int]:
            rows = connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(ids), may("cancel"))
                .values(
                    state=case((waiting, State.CANCELLED.value), else_=jobs.c.state),
                    finished_at=case((waiting, now()), else_=null()),
                    cancel_requested_at=sql_func.coalesce(jobs.c.cancel_requested_at, now()),
                )
                .returning(jobs.c.id, jobs.c.queue, jobs.c.task, jobs.c.state)
            ).all()
            counts = TransactionCounts()
            for row in rows:
                if row.state == State.CANCELLED:
                    counts.ended(row.queue, row.task, State.CANCELLED)
            counts.write(connection, self.store)
            return [row.id for row in rows]

        changed = self._in_batches(wanted, may("cancel"), cancel, action)
        return changed, self._refusals(
            wanted, changed, "cancelled", lambda job: job.state is State.CANCELLED
        )

    def retry(
        self,
        wanted: JobFilter,
        action: Action | None = None,
        *,
        succeeded: bool = False,
        ask: str = "succeeded=True",
    ) -> tuple[list[int], list[Refusal]]:
        """Give final jobs new attempts, and make scheduled jobs due now.

        Refused for a job whose unique key another job holds, and, without `succeeded`, for one that
        has succeeded, whose effects would happen twice. `ask`: how to ask for those, for the text
        of the refusal. `action` and return as `cancel`.
        """
        left_out = () if succeeded else (State.SUCCEEDED,)
        guard = in_state(
            State.SCHEDULED, *(state for state in MOVES["requeue"].before if state not in left_out)
        )

        def retry(connection: Connection, ids: list[int]) -> list[int]:
            def change(*more: ColumnElement[bool]) -> list[int]:
                statement = update(jobs).where(jobs.c.id.in_(ids), guard, *more).values(_RETRIED)
                return list(connection.execute(statement.returning(jobs.c.id)).scalars())

            key = sql_func.coalesce(jobs.c.unique_key, jobs.c.awaited_key)
            changed = change(key.is_(None))
            keyed = select(jobs.c.id).where(jobs.c.id.in_(ids), key.is_not(None))
            for id_ in connection.execute(keyed).scalars().all():
                with suppress(IntegrityError), connection.begin_nested():
                    changed += change(jobs.c.id == id_, ~KEY_HELD_BY_OTHER)
            return changed

        changed = self._in_batches(wanted, guard, retry, action)
        refusals = self._refusals(
            wanted, changed, "retried", lambda job: job.state is State.AVAILABLE
        )
        twice = f"it has succeeded, and a retry would run it once more: ask for that with {ask}"
        return changed, [
            replace(refusal, reason=twice) if refusal.state in left_out else refusal
            for refusal in refusals
        ]

    def update(
        self,
        wanted: JobFilter,
        changes: JobChanges,
        action: Action | None = None,
        *,
        seen: Mapping[str, Any] | None = None,
    ) -> tuple[list[int], list[Refusal]]:
        """Change jobs that wait, if their columns are as `seen`. `action` and return as `cancel`.

        One that is so already is neither changed nor refused. A new due time makes a job scheduled,
        or available if it has passed, unless the job waits for its key. The bound of a queue that
        they are moved to does not count, as for a retry.
        """
        values: dict[str, Any] = {}
        if changes.priority is not None:
            values["priority"] = changes.priority
        if changes.queue is not None:
            values["queue"] = changes.queue
        if changes.tags is not None:
            values["tags"] = json.dumps(changes.tags) if changes.tags else None
        if changes.at is not None:
            waits_on = or_(literal(changes.at, INSTANT) > now(), jobs.c.awaited_key.is_not(None))
            values["run_at"] = changes.at
            values["state"] = case((waits_on, State.SCHEDULED.value), else_=State.AVAILABLE.value)
        waits = and_(in_state(*WAITING), *in_force(jobs, seen or {}))
        differs = or_(*(jobs.c[name].is_distinct_from(value) for name, value in values.items()))

        def is_so(job: JobRecord) -> bool:
            return job.state in WAITING and changes.are_made(job)

        def change(connection: Connection, ids: list[int]) -> list[int]:
            if action is not None and set(ids) == set(wanted.ids or ()):
                action.before = moved_from(connection, ids, [*changes.moves])
            # Not a condition of the batch: to look for 1,000 that differ may be to read millions.
            statement = update(jobs).where(jobs.c.id.in_(ids), waits, differs).values(values)
            return list(connection.execute(statement.returning(jobs.c.id)).scalars())

        changed = self._in_batches(wanted, waits, change, action)
        return changed, self._refusals(wanted, changed, "changed", is_so)

    def delete(
        self, wanted: JobFilter, action: Action | None = None
    ) -> tuple[list[int], list[Refusal]]:
        """Delete jobs that are not running, and their attempts. `action`, return: as `cancel`."""
        idle = in_state(*(state for state in State if state is not State.RUNNING))

        def remove(connection: Connection, ids: list[int]) -> list[int]:
            statement = delete(jobs).where(jobs.c.id.in_(ids), idle).returning(jobs.c.id)
            gone = list(connection.execute(statement).scalars())
            connection.execute(delete(attempts).where(attempts.c.job_id.in_(gone)))
            return gone

        changed = self._in_batches(wanted, idle, remove, action)
        return changed, self._refusals(wanted, changed, "deleted")

    def _in_batches(
        self,
        wanted: JobFilter,
        guard: ColumnElement[bool],
        change: Callable[[Connection, list[int]], list[int]],
        action: Action | None,
    ) -> list[int]:
        """Apply a change in short transactions; return the changed ids.

        Each first locks its rows in the order of their ids, so that two changes cannot deadlock.
        """
        changed: list[int] = []
        last = 0
        id_ = id_of(wanted)

        def work(connection: Connection) -> tuple[list[int], list[int]]:
            self._prepare(connection, wanted)
            ids = list(
                connection.execute(
                    select(jobs.c.id)
                    .where(matches(wanted, by_id=False), guard, id_ > last)
                    .order_by(id_)
                    .limit(BULK)
                    .with_for_update(of=jobs)
                ).scalars()
            )
            return ids, change(connection, ids) if ids else []

        while True:
            ids, done = transact_audited(self.store, work, action, lambda batch: len(batch[1]))
            changed += done
            if action is not None:
                action.unchanged += len(ids) - len(done)
            if len(ids) < BULK:
                return changed
            last = ids[-1]

    def _prepare(self, connection: Connection, wanted: JobFilter) -> None:
        if wanted.error is not None:  # Else a planner without statistics sorts all that match.
            self.store.backend.prefer_indexes(connection)

    def count(self, wanted: JobFilter) -> int:
        """Return the number of matching jobs."""
        with self.store.read() as connection:
            statement = select(sql_func.count()).select_from(jobs).where(matches(wanted))
            return int(connection.execute(statement).scalar_one())

    def _refusals(
        self,
        wanted: JobFilter,
        changed: list[int],
        verb: str,
        already: Callable[[JobRecord], bool] = lambda _job: False,
    ) -> list[Refusal]:
        """Return why the ids that the filter names were not changed, but for those `already` so."""
        refusals = []
        done = set(changed)
        left = tuple(id_ for id_ in dict.fromkeys(wanted.ids or ()) if id_ not in done)
        found = {job.id: job for job in self.find(JobFilter(ids=left))} if left else {}
        for id_ in left:
            job = found.get(id_)
            if job is None:
                refusals.append(Refusal(id_, None, "there is no such job"))
            elif not already(job):
                reason = f"it is {job.state} and cannot be {verb}"
                if verb == "retried" and job.state in FINAL:
                    reason = f"its unique key {job.unique_key!r} is held by another job"
                refusals.append(Refusal(id_, job.state, reason))
        return refusals


def _record(row: Row[Any], error: Row[Any] | None) -> JobRecord:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented mapping of a row.
    values["state"] = State(row.state)
    awaited = values.pop("awaited_key")
    values["unique_key"] = row.unique_key if awaited is None else awaited
    values["awaits_key"] = awaited is not None
    values["tags"] = names_in(row.tags)
    if error is not None:
        values["error"] = AttemptError(error.error_type, error.error_message, error.traceback)
        values["error_at"] = error.finished_at
    return JobRecord(**values)


def _attempt(row: Row[Any]) -> AttemptRecord:
    error = None
    if row.error_type is not None:
        error = AttemptError(row.error_type, row.error_message, row.traceback)
    before = (row.attempt, row.fence, row.worker, row.started_at, row.finished_at, row.outcome)
    return AttemptRecord(*before, error, row.exit_signal, row.peak_memory)
