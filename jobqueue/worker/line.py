"""The line: claims in, outcomes out. Two threads on two connections, or both in one transaction."""

import logging
import time
from collections.abc import Callable
from queue import Empty

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from jobqueue.events import Event, EventStream
from jobqueue.records import AttemptError, Claim, Ended, Outcome, Succeeded
from jobqueue.states import State
from jobqueue.store.claims import Claims, Holder
from jobqueue.store.store import Store
from jobqueue.worker.frontier import Frontier
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.service import Service

log = logging.getLogger("jobqueue.worker")

HOARD_AGE = 1.0  # seconds that claims may wait while no slot moves
LOOK_AHEAD = 2.0  # round trips for which prefetched jobs should last
GAP = 0.001  # seconds, at least, in which the database is left to other writers
GAP_SHARE = 0.5  # of the time that the transaction took: then they find it free a third of the time


class Intake:
    """How many jobs to claim, and the claiming."""

    def __init__(
        self,
        store: Store,
        frontier: Frontier,
        inflight: InFlight,
        *,
        poll: float,
        max_jobs: int | None,
    ) -> None:
        self._store = store
        self._claims = Claims(store)
        self._frontier = frontier
        self._inflight = inflight
        self._poll = poll
        self._max_jobs = max_jobs
        self._batch_max = store.backend.batch_max
        self._round_trip = 0.005  # seconds, corrected by every claim
        self._claimed = 0
        self._got = 0
        self._holder: Holder | None = None
        self.began = 0.0
        """When the round began that claims: waiting for a turn is part of the round trip."""
        self._unanswered = False
        self.closed = False
        self.low = 0
        """Claims left in the inbox at which it is time to claim more."""

    @property
    def exhausted(self) -> bool:
        """True once as many jobs were claimed as `max_jobs` allows."""
        return self._max_jobs is not None and self._claimed >= self._max_jobs

    def prefetch(self) -> int:
        """Claims worth holding beyond the free slots: what the slots use up in two round trips.

        By Little's law from the measured duration of a job: none for long jobs, a batch for short.
        """
        mean = self._inflight.mean_duration
        if mean is None:
            return 0
        rate = self._inflight.concurrency / max(mean, 1e-6)
        return min(self._batch_max, int(rate * self._round_trip * LOOK_AHEAD))

    def wanted(self) -> int:
        """How many jobs to claim now; 0 when there is room for few, or the database lags behind."""
        inflight = self._inflight
        if self.closed or inflight.holder is None or not inflight.lease.good():
            return 0
        if inflight.outbox.qsize() > 2 * self._batch_max:
            return 0
        queued = inflight.inbox.qsize()
        prefetch = self.prefetch()
        self.low = prefetch // 2
        if queued > self.low and inflight.free() == 0:
            return 0
        room = inflight.concurrency + prefetch - len(inflight.open)
        if self._max_jobs is not None:
            room = min(room, self._max_jobs - self._claimed)
        return max(0, min(room, self._batch_max))

    def look(self) -> bool:
        """Sweep if it is time, in a transaction of its own; True if there is what to claim."""
        frontier = self._frontier
        if frontier.sweep_in() <= 0:
            with self._store.read() as connection:
                frontier.sweep(connection)
        return not frontier.empty

    def hurry(self) -> None:
        """There may be new jobs: look now, or if jobs run, as soon as looking keeps its share."""
        self._frontier.suspect = True
        self._frontier.urgent = not self._inflight.held

    def claim(self, connection: Connection, limit: int) -> list[Claim]:
        """Claim within a transaction."""
        self._unanswered = True
        self._holder = self._inflight.holder
        if self._holder is None:
            return []
        return self._frontier.claim(
            connection,
            self._holder,
            limit=limit,
            free=self._inflight.free(),
            held=self._inflight.held,
        )

    def hand_out(self, claims: list[Claim]) -> None:
        """After the commit: to the executors, unless the lease was taken away meanwhile."""
        self._unanswered = False
        took = time.monotonic() - self.began
        self._round_trip += (min(took, 1.0) - self._round_trip) * 0.2
        self._got = len(claims)
        self._inflight.hand_out(claims, self._holder)
        self._claimed += self._got  # Only now, or the last job would seem to have ended.

    def give_back_unanswered(self) -> None:
        """After a claim that failed: its commit may have been done, and only the answer lost."""
        holder, known = self._inflight.holder, dict(self._inflight.held)
        if not self._unanswered or holder is None:
            return
        with self._store.write() as connection:
            count = self._claims.disown(connection, holder, known)
        self._unanswered = False
        if count:
            log.warning("gave back %d claims whose commit was not answered", count)
            self._frontier.suspect = True  # They are behind the cursors.

    def give_back_hoard(self) -> None:
        """Release claims that wait while every slot is busy with something long."""
        inflight = self._inflight
        if self.closed:
            return  # The inbox holds the executors' last words by now.
        waited = time.monotonic() - inflight.last_begun
        if inflight.inbox.qsize() and waited > max(HOARD_AGE, 20 * self._round_trip):
            if not inflight.lease.good():
                return
            inflight.mean_duration = max(inflight.mean_duration or 0.0, waited)
            count = inflight.give_back()
            self._claimed -= count
            log.debug("gave back %d claims that no slot was free for", count)

    def rest(self) -> float:
        """Seconds until the next claim, if nothing wakes it."""
        rest = min(self._poll, HOARD_AGE / 2) if self._inflight.inbox.qsize() else self._poll
        if not self.wanted():
            return rest
        if self._got and not self._frontier.empty:
            return 0
        return max(0.0, min(rest, self._frontier.sweep_in()))


class Exit:
    """Outcomes on their way into the database, offered until it answers."""

    def __init__(
        self,
        store: Store,
        claims: Claims,
        inflight: InFlight,
        announce: Callable[[Event], None],
        events: EventStream,
    ) -> None:
        self._store = store
        self._claims = claims
        self._inflight = inflight
        self._announce = announce
        self._events = events
        self._batch: list[Outcome] = []
        self._batch_max = store.backend.batch_max

    def gather(self) -> list[Outcome]:
        """The outcomes to write next: those whose writing failed, then new ones."""
        batch = self._batch
        outbox = self._inflight.outbox
        try:
            while len(batch) < self._batch_max:
                batch.append(outbox.get_nowait())
        except Empty:
            pass
        return batch

    def finish(self, connection: Connection, batch: list[Outcome]) -> dict[int, State]:
        """Write a batch within a transaction."""
        holder = self._inflight.holder
        return self._claims.finish(connection, holder.name if holder else "", batch)

    def settle(self, states: dict[int, State]) -> None:
        """After the commit: let go of the claims, count, log, tell."""
        batch, self._batch = self._batch, []
        inflight = self._inflight
        silent = not self._events.wanted("succeeded")
        for outcome in batch:
            inflight.settled(outcome)
            state = states.get(outcome.claim.id)
            if isinstance(outcome, Succeeded):
                inflight.processed += 1
                if silent and state is State.SUCCEEDED:
                    continue
            elif outcome.duration is not None or outcome.error is not None:
                inflight.processed += 1
                inflight.errored += outcome.error is not None
            self._tell(outcome, state)

    def _tell(self, outcome: Outcome, state: State | None) -> None:
        claim = outcome.claim
        error = outcome.error if isinstance(outcome, Ended) else None
        if state is None:
            log.error(
                "job %d (%s): the claim with fence %d was lost; its outcome was refused",
                claim.id,
                claim.task,
                claim.fence,
            )
            return
        name = "errored" if error is not None else getattr(outcome, "outcome", "succeeded")
        if state is State.FAILED:
            log.error("job %d (%s) failed: %s", claim.id, claim.task, _why(outcome, error))
        elif error is not None and state is State.SCHEDULED:
            log.warning(
                "job %d (%s): attempt %d of %d errored, again in %.1f s: %s",
                claim.id,
                claim.task,
                claim.attempt,
                claim.max_attempts,
                outcome.delay or 0.0 if isinstance(outcome, Ended) else 0.0,
                _why(outcome, error),
            )
        for event in dict.fromkeys((name, state.value)):
            if self._events.wanted(event):
                self._announce(
                    Event(
                        event,
                        claim.id,
                        claim.task,
                        claim.queue,
                        claim.attempt,
                        error,
                        outcome.duration,
                    )
                )

    def one_by_one(self) -> None:
        """The batch was refused, not for want of a connection: find the outcome to blame.

        Recording an outcome may not fail because of its content, so that one is recorded bare.
        """
        states: dict[int, State] = {}
        for place, outcome in enumerate(self._batch):
            try:
                with self._store.write() as connection:
                    states |= self.finish(connection, [outcome])
            except Exception as error:
                if not self.is_content(error):
                    raise
                log.exception("job %d: its outcome could not be stored", outcome.claim.id)
                bare = _bare(outcome, error)
                with self._store.write() as connection:
                    states |= self.finish(connection, [bare])
                self._batch[place] = bare  # Only now: if that failed, not the content is to blame.
        self.settle(states)

    def is_content(self, error: Exception) -> bool:
        """True for an error that the same batch would meet again."""
        known = isinstance(error, SQLAlchemyError | ValueError | TypeError)
        return known and not self._store.backend.is_transient(error)


class Claimer(Service):
    """Claims jobs, on a connection of its own."""

    def __init__(self, store: Store, intake: Intake) -> None:
        super().__init__("claimer")
        self._store = store
        self._intake = intake

    def tick(self) -> float:
        """Claim as much as there is room for."""
        intake = self._intake
        intake.began = time.monotonic()
        intake.give_back_unanswered()
        intake.give_back_hoard()
        wanted = intake.wanted()
        if wanted and intake.look():
            with self._store.write() as connection:
                claims = intake.claim(connection, wanted)
            intake.hand_out(claims)
        return intake.rest()


class Completer(Service):
    """Writes outcomes down. The commit under way is the batching window: no timer."""

    def __init__(self, store: Store, exit_: Exit) -> None:
        super().__init__("completer")
        self._store = store
        self._exit = exit_

    def tick(self) -> float | None:
        """Write one batch."""
        batch = self._exit.gather()
        if not batch:
            return 0.5
        try:
            with self._store.write() as connection:
                states = self._exit.finish(connection, batch)
        except Exception as error:
            if self._exit.is_content(error):
                self._exit.one_by_one()
                return 0
            raise
        self._exit.settle(states)
        return 0


class Turn(Service):
    """Where there is one writer: completions and the next claim in one transaction."""

    def __init__(self, store: Store, intake: Intake, exit_: Exit) -> None:
        super().__init__("turn")
        self._store = store
        self._intake = intake
        self._exit = exit_
        self._gap_until = 0.0

    def tick(self) -> float | None:
        """Write one batch and claim the next, in this process's turn among our processes."""
        self._intake.began = time.monotonic()
        with self._store.turn():
            self._gap_until = 0.0
            self._work()
            # Let writers in that know nothing of turns, above all the user's sessions.
            gap = self._gap_until - time.monotonic()
            if gap > 0:
                self._stopping.wait(gap)
        return self._intake.rest()

    def _work(self) -> None:
        intake, exit_ = self._intake, self._exit
        intake.give_back_unanswered()
        intake.give_back_hoard()
        wanted = intake.wanted()
        if wanted and not intake.look():
            wanted = 0
        batch = exit_.gather()
        if not batch and not wanted:
            return
        claims: list[Claim] = []
        states: dict[int, State] = {}
        began = time.monotonic()
        try:
            with self._store.write() as connection:
                if batch:
                    states = exit_.finish(connection, batch)
                if wanted:
                    claims = intake.claim(connection, wanted)
        except Exception as error:
            if batch and exit_.is_content(error):
                exit_.one_by_one()
                return
            raise
        ended = time.monotonic()
        self._gap_until = ended + max(GAP, GAP_SHARE * (ended - began))
        exit_.settle(states)
        if wanted:
            intake.hand_out(claims)


def _why(outcome: Outcome, error: AttemptError | None) -> str:
    if error is not None:
        return f"{error.type}: {error.message.partition(chr(10))[0][:300]}"
    return outcome.reason or ""


def _bare(outcome: Outcome, error: Exception) -> Outcome:
    reason = f"its outcome could not be stored ({type(error).__name__})"
    if isinstance(outcome, Succeeded):
        return outcome._replace(result=None, reason=reason)
    described = None if outcome.error is None else AttemptError("Unstorable", reason, None)
    return outcome._replace(reason=reason, error=described)
