"""The outcome writer: writes outcomes to the database, and retries until it answers."""

import logging
from collections.abc import Mapping, Sequence
from queue import Empty

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError, StatementError

from jobqueue.records import NOT_COMMITTED, AttemptError, Outcome, Succeeded, Unsuccessful
from jobqueue.states import OutcomeKind, State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.completion import Completion
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import Store
from jobqueue.worker.claim.lanes import LanePlanner
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import about, log
from jobqueue.worker.observe.metrics import Metrics


class OutcomeWriter:
    """Writes outcomes in batches, and retries a batch until the database has answered."""

    def __init__(
        self,
        store: Store,
        completion: Completion,
        inflight: InFlight,
        name: str,
        *,
        events: EventDispatcher,
        metrics: Metrics,
        lanes: LanePlanner | None = None,
    ) -> None:
        self._store = store
        self._completion = completion
        self.inflight = inflight
        self._name = name
        self._events = events
        self._metrics = metrics
        self._lanes = lanes
        self._transaction_counts = TransactionCounts()
        self.batch: list[Outcome] = []
        """Outcomes that were gathered and are not written."""
        self._states: dict[int, State] = {}

    def gather(self) -> int:
        """Gather the outcomes to write next: those whose transaction failed, then new ones.

        Return how many they are.
        """
        batch = self.batch
        outbox = self.inflight.outbox
        try:
            most = self.inflight.contention.batch_max(self._store.backend)
            while len(batch) < most:
                batch.append(outbox.get_nowait())
        except Empty:
            pass
        batch[:] = self.inflight.owned(batch)
        if self.inflight.lease.was_lost or len({outcome.claim.id for outcome in batch}) < len(
            batch
        ):
            self._split_repeats()
        return len(batch)

    def may_gather_more(self) -> bool:
        """Return whether jobs in hand were claimed from lanes with those that were gathered."""
        if self._lanes is None or not self._lanes.lanes_of:
            return False
        return self._lanes.claimed_with(self.batch, self.inflight.held)

    def _split_repeats(self) -> None:
        """Put back what one batch cannot hold: its states are by job id, its lease is one.

        That is a second outcome of one job, and outcomes of claims under another lease.
        """
        first: dict[int, Outcome] = {}
        for outcome in self.batch:
            other = outcome.claim.worker_id != self.batch[0].claim.worker_id
            if other or first.setdefault(outcome.claim.id, outcome) is not outcome:
                self.inflight.outbox.put(outcome)
        self.batch[:] = first.values()

    def write(self, connection: Connection) -> None:
        """Write the batch within a transaction; call `acknowledge()` after its commit."""
        self._states = self._complete(connection, self.batch)

    def _complete(self, connection: Connection, batch: list[Outcome]) -> dict[int, State]:
        self._transaction_counts = TransactionCounts()
        worker = WorkerRef(batch[0].claim.worker_id, self._name)
        progress = self.inflight.progress_of(batch)
        return self._completion.complete(
            connection, worker, batch, self._transaction_counts, progress
        )

    def acknowledge(self) -> None:
        """After the commit: forget the claims, count, log, publish events."""
        batch, self.batch = self.batch, []
        states, self._states = self._states, {}
        inflight = self.inflight
        self._measure()
        silent = not (self._events.wanted("succeeded") or log.isEnabledFor(logging.DEBUG))
        if self._lanes is not None and self._lanes.lanes_of:
            self._lanes.ended(batch)  # First: a stop waits for both.
        inflight.acknowledged(batch)
        if silent and _all_succeeded(batch, states):  # The common case: a fifth of the loop's time.
            inflight.count_attempts(len(batch), errored=0)
            return
        attempts = errored = 0
        for outcome in batch:
            state = states.get(outcome.claim.id)
            if isinstance(outcome, Succeeded):
                attempts += 1
                if silent and state is State.SUCCEEDED:
                    continue
            elif outcome.within and state is State.SUCCEEDED:
                attempts += 1
                self._completed_in_user_transaction(outcome)
                continue
            elif outcome.duration is not None or outcome.error is not None:
                attempts += 1
                errored += outcome.error is not None
            self._log_and_publish(outcome, state)
        inflight.count_attempts(attempts, errored=errored)

    def _measure(self) -> None:
        """Give the metrics what the committed transaction has counted."""
        counts, self._transaction_counts = self._transaction_counts, TransactionCounts()
        self._metrics.add(counts.counts)

    def _completed_in_user_transaction(self, outcome: Unsuccessful) -> None:
        """Log what a handler raised after its `finish_within` was committed: the job succeeded."""
        claim, error = outcome.claim, outcome.error
        if error is not None and error.type != NOT_COMMITTED:
            log.log_error(
                logging.WARNING,
                "job %d (%s) raised after its success was committed: %s",
                *(claim.id, claim.task, _why(outcome, error)),
                traceback=error.traceback,
                extra=about(claim, duration=outcome.duration, error_type=error.type),
            )
        self._log_and_publish(
            Succeeded(claim, None, None, outcome.duration or 0.0, 0.0), State.SUCCEEDED
        )

    def _log_and_publish(self, outcome: Outcome, state: State | None) -> None:
        claim = outcome.claim
        error = outcome.error if isinstance(outcome, Unsuccessful) else None
        if state is None:
            log.error(
                "job %d (%s): the claim with fence %d was lost; its outcome was refused",
                *(claim.id, claim.task, claim.fence),
                extra=about(claim, "refused", duration=outcome.duration),
            )
            return
        kind = OutcomeKind.SUCCEEDED
        if isinstance(outcome, Unsuccessful):
            kind = outcome.outcome if error is None else OutcomeKind.ERRORED
            _log(outcome, state)
        elif state is State.SUCCEEDED and log.isEnabledFor(logging.DEBUG):
            log.debug(
                "job %d (%s) succeeded, attempt %d of %d, in %.3f s",
                *(claim.id, claim.task, claim.attempt, claim.max_attempts, outcome.duration),
                extra=about(claim, "succeeded", duration=outcome.duration),
            )
        for event in dict.fromkeys((str(kind), state.value)):
            self._events.publish(event, claim, error, outcome.duration)

    def one_by_one(self) -> None:
        """Write a batch that was refused for its content outcome by outcome.

        The one that is refused again is written without its result and error.
        """
        states: dict[int, State] = {}
        for place, outcome in enumerate(self.batch):
            try:
                with self._store.write() as connection:
                    states |= self._complete(connection, [outcome])
                self._measure()
            except Exception as error:
                if not self.is_data_error(error):
                    raise
                said = about(outcome.claim)
                log.exception(
                    "job %d: its outcome could not be stored", outcome.claim.id, extra=said
                )
                reduced = _without_content(outcome, error)
                with self._store.write() as connection:
                    states |= self._complete(connection, [reduced])
                self._measure()
                # Only now: if that failed, not the content is to blame.
                self.batch[place] = reduced
        self._states = states
        self.acknowledge()

    def is_data_error(self, error: Exception) -> bool:
        """True for an error that the same batch would meet again, because of a value in it."""
        if type(error) is StatementError:  # A value that could not even be bound.
            return True
        return isinstance(error, DataError | IntegrityError | ValueError | TypeError)


def _all_succeeded(batch: Sequence[Outcome], states: Mapping[int, State]) -> bool:
    """Return whether each outcome is a success, and was recorded as one."""
    return (
        len(states) == len(batch)
        and set(states.values()) == {State.SUCCEEDED}
        and set(map(type, batch)) == {Succeeded}
    )


def _log(outcome: Unsuccessful, state: State) -> None:
    """Log a failed attempt with its traceback: as a warning if a retry follows, else an error."""
    claim, error = outcome.claim, outcome.error
    attempt = f"attempt {claim.attempt} of {claim.max_attempts}"
    if state is State.FAILED:
        level, event, what = logging.ERROR, "failed", f" failed, {attempt}"
    elif error is not None and state is State.SCHEDULED:
        level, event = logging.WARNING, "errored"
        what = f": {attempt} errored, again in {outcome.delay or 0.0:.1f} s"
    else:
        return
    log.log_error(
        level,
        "job %d (%s)%s: %s",
        *(claim.id, claim.task, what, _why(outcome, error)),
        traceback=error and error.traceback,
        extra=about(claim, event, duration=outcome.duration, error_type=error and error.type)
        | {"outcome": str(outcome.outcome), "max_attempts": claim.max_attempts},
    )


def _why(outcome: Outcome, error: AttemptError | None) -> str:
    if error is not None:
        return f"{error.type}: {error.message.partition(chr(10))[0][:300]}"
    return outcome.reason or ""


def _without_content(outcome: Outcome, error: Exception) -> Outcome:
    reason = f"its outcome could not be stored ({type(error).__name__})"
    if isinstance(outcome, Succeeded):
        return replace(outcome, result=None, reason=reason)
    described = None if outcome.error is None else AttemptError("Unstorable", reason, None)
    return replace(outcome, reason=reason, error=described)
