"""What a worker holds: claims in its inbox, running handlers, outcomes to be written."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from operator import attrgetter
from queue import Empty, SimpleQueue

from jobqueue.errors import AttemptTimeout, ClaimLost, JobCancelled
from jobqueue.records import Claim, Outcome, Unsuccessful
from jobqueue.store.claims import WorkerRef
from jobqueue.store.sql.rows import Progress
from jobqueue.worker.capacity import Capacity, Contention, Key
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.handler.outcomes import cancelled_unbegun, interrupted, released
from jobqueue.worker.lease_state import LeaseState

_CLAIMED_AT = attrgetter("started_at")
_job_of = attrgetter("task", "args", "run_at")


class Unbegun(Exception):
    """A claim was dispatched, and its handler was not entered."""

    def __init__(self, outcome: Unsuccessful | None) -> None:
        self.outcome = outcome
        """None: the claim is not this worker's any more, or its outcome is written already."""


class Inbox(SimpleQueue["Claim | None"]):
    """Claims for the threads. A thread that takes None ends."""

    def take_claims(self) -> list[Claim]:
        """Take out every claim, and leave what ends threads."""
        taken: list[Claim | None] = []
        with suppress(Empty):
            while True:
                taken.append(self.get_nowait())
        claims = [claim for claim in taken if claim is not None]
        for _ in range(len(taken) - len(claims)):
            self.put(None)
        return claims


class InFlight:
    """The claims of one worker, from the commit of the claim to the commit of the outcome.

    Its plain dicts and queues are safe between threads by themselves: every step is one operation.
    Others read the dicts, and change them by methods.
    """

    def __init__(self, threads: int, lease: float) -> None:
        self.capacity = Capacity(threads)
        self.contention = Contention()
        self.lease = LeaseState(lease)
        self.inbox = Inbox()
        self.outbox: SimpleQueue[Outcome] = SimpleQueue()
        self._held: dict[int, Claim] = {}
        self.held: Mapping[int, Claim] = self._held
        """By id: claims whose outcome the database has not accepted."""
        self._running: dict[Key, Attempt] = {}
        self.running: Mapping[Key, Attempt] = self._running
        """Attempts whose handler runs."""
        self._starting: dict[Key, Attempt] = {}
        self.starting: Mapping[Key, Attempt] = self._starting
        """Attempts that have not begun: their child process is not ready for them."""
        self._progress: dict[Key, Progress] = {}
        """What handlers reported last and no heartbeat has written."""
        self._busy = 0.0
        self._runs_on_loop: Callable[[Claim], bool] = lambda _claim: False
        self._submit: Callable[[Claim], None] = lambda _claim: None
        self._cancel_requested: set[Key] = set()
        """Held claims that are to be cancelled and have not begun."""
        self._replaced: dict[int, Claim] = {}
        """By `id()`: held claims of jobs that the server has lost; their ids are of others now."""
        self._last_claimed_at: datetime | None = None
        """When the latest of the dispatched claims was made, by the database's clock."""
        self.failed_rounds = 0
        """Failed rounds of the services that write: their commits may have been done."""
        self.processed = 0
        """Attempts that ended here and were recorded."""
        self.errored = 0
        """Attempts that errored."""
        self.closing = False
        """The worker stops: no handler starts any more."""
        self._lock = threading.Lock()

    def send_to_loop(
        self, runs_on_loop: Callable[[Claim], bool], submit: Callable[[Claim], None]
    ) -> None:
        """Dispatch claims to the event loop too: `submit` takes those that run on it."""
        self._runs_on_loop, self._submit = runs_on_loop, submit

    def dispatch(self, claims: list[Claim], worker: WorkerRef | None) -> None:
        """Give claims to the threads and the event loop, after the commit of the claim only.

        Claims under a lost lease are dropped, claims of a worker that stops are released, and those
        that the event loop cannot take: then raises, once the others are given out.
        """
        with self._lock:
            if self.lease.worker is not worker or not claims:
                return
            latest = max(map(_CLAIMED_AT, claims))
            self._last_claimed_at = max(latest, self._last_claimed_at or latest)
            if self.capacity.free():
                # A thread is about to: it had nothing to begin.
                self.capacity.last_start = time.monotonic()
            asynchronous, refused = 0, None
            for claim in claims:
                known = self._held.setdefault(claim.id, claim)
                if known is not claim and self._is_repeated(known, claim):
                    continue
                if self.closing:
                    self.outbox.put(released(claim))
                    continue
                try:
                    if self._runs_on_loop(claim):
                        asynchronous += 1
                        self._submit(claim)
                    else:
                        self.capacity.open.add((claim.id, claim.fence))
                        self.inbox.put(claim)
                except Exception as error:  # noqa: BLE001 - No file, or no thread, for the loop.
                    refused = error
                    self.outbox.put(released(claim))
            self.capacity.asynchronous.observe(asynchronous, len(claims))
        if refused is not None:
            raise refused

    def _is_repeated(self, known: Claim, claim: Claim) -> bool:
        """True if the server has lost the commit of a held claim, and it is made once more.

        Or if it has lost the job, and given its id to another one, whose first claim has the same
        fence: what the first one still has to say is not written, and the other goes back.
        """
        same_fence = known.fence == claim.fence
        if same_fence and _job_of(known) == _job_of(claim):
            return True
        self._held[claim.id] = claim
        if same_fence:
            self._replaced[id(known)] = known
            self.outbox.put(released(claim))
            running = self._running.get((known.id, known.fence))
            if running is not None:
                running.request_stop(ClaimLost)
        return same_fence

    def owned(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes whose job id is not another job's by now."""
        if not self._replaced:
            return outcomes
        kept = []
        for outcome in outcomes:
            claim = self._replaced.pop(id(outcome.claim), None)
            if claim is None:
                kept.append(outcome)
            else:
                self._forget_progress(claim)
        return kept

    def release_unknown(self, claims: list[Claim], worker: WorkerRef) -> bool:
        """Release claims that only the database knows of; return False if the lease was lost.

        One that is later than all that were handed out has not begun. Of other claims this is
        unknown.
        """
        with self._lock:
            if self.lease.worker is not worker:
                return False
            for claim in claims:
                self._held[claim.id] = claim
                begun = self._last_claimed_at and claim.started_at <= self._last_claimed_at
                self.outbox.put(interrupted(claim) if begun else released(claim))
            return True

    def release(self, claim: Claim) -> None:
        """Release a claim that was never dispatched."""
        self._held[claim.id] = claim
        self.outbox.put(released(claim))

    def is_held(self, claim: Claim) -> bool:
        """False once the claim was released or abandoned."""
        return self._held.get(claim.id) is claim

    def refusal(self, claim: Claim) -> Unbegun | None:
        """Return why a dispatched claim may not start; None if it may, while the lease is good."""
        if self._held.get(claim.id) is not claim:
            self._replaced.pop(id(claim), None)  # It will have no outcome.
            return Unbegun(None)
        if self._cancel_requested and (claim.id, claim.fence) in self._cancel_requested:
            return Unbegun(cancelled_unbegun(claim))
        return Unbegun(released(claim)) if self.closing else None

    def request_cancel(self, id_: int, fence: int) -> Claim | None:
        """Cancel a held claim: its handler is asked to stop, or does not start.

        Returns the claim if its handler is asked now for the first time.
        """
        claim = self._held.get(id_)
        if claim is None or claim.fence != fence:
            return None
        self._cancel_requested.add((id_, fence))
        context = self._running.get((id_, fence)) or self._starting.get((id_, fence))
        if context is None or context.stop_reason is not None:
            return None
        context.request_stop(JobCancelled)
        return claim

    def begin(self, context: Attempt) -> None:
        """A handler is about to be entered."""
        self._running[context.key] = context
        self._starting.pop(context.key, None)
        self.capacity.last_start = time.monotonic()

    def start(self, context: Attempt) -> None:
        """A child process is about to be made ready for a job."""
        self._starting[context.key] = context
        self.capacity.last_start = time.monotonic()

    def begin_started(self, context: Attempt) -> bool:
        """Begin a job whose child process is ready, unless it may not: ask `refusal()` why.

        One step with the question: a stop either gives the job back, or waits for it.
        """
        with self._lock:
            if self.refusal(context.claim) is not None:
                return False
            self.begin(context)
            return True

    def withdraw(self, context: Attempt, outcome: Outcome | None) -> None:
        """A job whose child process was made ready does not begin; None: nothing is to be said."""
        with self._lock:
            if self._starting.pop(context.key, None) is not None and outcome is not None:
                self.outbox.put(outcome)

    def end(self, context: Attempt, outcome: Outcome) -> bool:
        """A handler was left. False: its claim was given up meanwhile, so nobody waits for it."""
        duration = outcome.duration or 0.0
        with self._lock:
            if self._running.pop(context.key, None) is None:
                return False
            if not context.is_coroutine:
                self._busy += duration
                self.capacity.finished(duration)
            if context.reported is not None:
                self._keep_progress(context)
            self.outbox.put(outcome)
            return True

    def detach(self, context: Attempt, outcome: Outcome) -> bool:
        """End the claim of a handler that goes on; return False if it has ended meanwhile."""
        if not self.end(context, outcome):
            return False
        self.capacity.free_slot(context.key)
        context.request_stop(AttemptTimeout)
        return True

    def drop(self, key: Key) -> bool:
        """Remove an attempt without an outcome; return True if its handler had begun."""
        self._starting.pop(key, None)
        return self._running.pop(key, None) is not None

    def busy_seconds(self) -> float:
        """Seconds that handlers have filled threads so far, those that still run included."""
        with self._lock:
            return self._busy + _busy(list(self._running.values()))

    def progress_of(self, outcomes: Sequence[Outcome]) -> list[Progress]:
        """What the handlers of these jobs reported last, and no heartbeat has written."""
        if not self._progress:
            return []
        keys = [(outcome.claim.id, outcome.claim.fence) for outcome in outcomes]
        return [self._progress[key] for key in keys if key in self._progress]

    def _keep_progress(self, context: Attempt) -> None:
        if (said := context.unwritten_progress()) is not None:
            self._progress[context.key] = said

    def _forget_progress(self, claim: Claim) -> None:
        self._progress.pop((claim.id, claim.fence), None)

    def snapshot(self) -> tuple[WorkerRef | None, dict[int, Claim]]:
        """Return in whose name claims are held, and which, at one moment."""
        with self._lock:
            return self.lease.worker, dict(self._held)

    def acknowledged(self, outcomes: Sequence[Outcome]) -> None:
        """Forget the claims whose outcomes the database has answered."""
        held = self._held
        for outcome in outcomes:
            claim = outcome.claim
            if held.get(claim.id) is claim:
                del held[claim.id]
            if self._cancel_requested:
                self._cancel_requested.discard((claim.id, claim.fence))
            if self._progress:
                self._forget_progress(claim)

    def count_attempts(self, count: int, *, errored: int) -> None:
        """Count attempts that ended here and were recorded."""
        self.processed += count
        self.errored += errored

    def round_failed(self) -> None:
        """Count a round that failed: what it was to commit may be committed."""
        self.failed_rounds += 1

    def release_prefetched(self, which: Callable[[Claim], bool] = lambda _claim: True) -> int:
        """Release the claims in the inbox, uncharged, or some of them; return how many."""
        count = 0
        for claim in self.inbox.take_claims():
            with self._lock:  # Or a stop meanwhile could release the others without this one.
                if not self.closing and not which(claim):
                    self.inbox.put(claim)
                    continue
            self.capacity.free_slot((claim.id, claim.fence))
            if self.is_held(claim):
                self.outbox.put(released(claim))
                count += 1
        return count

    def close(self) -> int:
        """Release every claim that has not started, now and later; return how many now."""
        with self._lock:
            self.closing = True
            unbegun = self._withdraw_starting()
            for context in unbegun:
                self.outbox.put(released(context.claim))
        for context in unbegun:  # Its slot need not wait for the child any longer.
            context.request_stop(ClaimLost)
        return len(unbegun) + self.release_prefetched()

    def detach_all(self) -> list[Claim]:
        """End the claims of running handlers: jobs are released, results dropped.

        A job that may start only once fails instead.
        """
        with self._lock:
            claims = []
            contexts = list(self._running.values())
            self._running.clear()
            self._busy += _busy(contexts)
            for context in contexts:
                if context.reported is not None:
                    self._keep_progress(context)
                context.request_stop(ClaimLost)
                claim = self._held.get(context.claim.id)
                if claim is not None and claim.fence == context.claim.fence:
                    claims.append(claim)
                    self.outbox.put(interrupted(claim))
            return claims

    def abandon(self) -> int:
        """Forget every claim, as the lease was lost; return how many."""
        with self._lock:
            self.lease.lose()
            count = len(self._held)
            self._held.clear()
            self._cancel_requested.clear()
            contexts = [*self._running.values(), *self._withdraw_starting()]
        for context in contexts:
            context.request_stop(ClaimLost)
        return count

    def _withdraw_starting(self) -> list[Attempt]:
        contexts = list(self._starting.values())
        self._starting.clear()
        return contexts


def _busy(running: Iterable[Attempt]) -> float:
    """Seconds that these handlers have filled threads."""
    present = time.perf_counter()
    return sum(present - context.began for context in running if not context.is_coroutine)
