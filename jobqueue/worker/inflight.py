"""What a worker holds: claims in its inbox, running handlers, outcomes to be written."""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import NamedTuple

from jobqueue.errors import AttemptTimeout, ClaimLost, JobCancelled
from jobqueue.records import Claim, Outcome, Unsuccessful
from jobqueue.states import State
from jobqueue.store.claims import WorkerRef
from jobqueue.worker.capacity import Capacity, Contention, Key
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.lease_state import LeaseState
from jobqueue.worker.running import Running

UNBEGUN = "given back before it began"
"""Why a claim was released."""


_CLAIMED_AT = attrgetter("started_at")
_job_of = attrgetter("task", "args", "run_at")


class Unbegun(NamedTuple):
    """A claim was dispatched, and its handler was not entered."""

    outcome: Unsuccessful | None
    """None: the claim is not this worker's any more, or its outcome is written already."""


class Inbox(SimpleQueue["Claim | None"]):
    """Claims for the threads. A thread that takes None ends."""

    def take_claims(self) -> list[Claim]:
        """Take out every claim, and leave what ends threads."""
        claims: list[Claim] = []
        endings = 0
        while True:
            try:
                claim = self.get_nowait()
            except Empty:
                break
            if claim is None:
                endings += 1
            else:
                claims.append(claim)
        for _ in range(endings):
            self.put(None)
        return claims


class InFlight:
    """The claims of one worker, from the commit of the claim to the commit of the outcome.

    Its plain dicts and queues are safe between threads by themselves: every step is one operation.
    Others read its parts, and change them by methods.
    """

    def __init__(self, threads: int, lease: float) -> None:
        self.capacity = Capacity(threads)
        self.contention = Contention()
        self.lease = LeaseState(lease)
        self.inbox = Inbox()
        self.outbox: SimpleQueue[Outcome] = SimpleQueue()
        self.running = Running()
        self._held: dict[int, Claim] = {}
        self.held: Mapping[int, Claim] = self._held
        """By id: claims whose outcome the database has not accepted."""
        self.dispatch_async: Callable[[Claim], bool] | None = None
        """Submits a claim of an async task to the event loop; returns False for other claims."""
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

    def dispatch(self, claims: list[Claim], worker: WorkerRef | None) -> None:
        """Give claims to the threads and the event loop, after the commit of the claim only.

        Claims under a lost lease are dropped, claims of a worker that stops are released.
        """
        with self._lock:
            if self.lease.worker is not worker or not claims:
                return
            latest = max(map(_CLAIMED_AT, claims))
            self._last_claimed_at = max(latest, self._last_claimed_at or latest)
            if self.capacity.free():
                self.capacity.started()  # A thread is about to: it had nothing to begin.
            asynchronous = sum(map(self._dispatch_one, claims))
            if self.dispatch_async is not None:
                self.capacity.asynchronous.observe(asynchronous, len(claims))

    def _dispatch_one(self, claim: Claim) -> bool:
        """Give one claim to a thread or to the event loop; True if it went to the loop."""
        known = self._held.setdefault(claim.id, claim)
        if known is not claim and self._is_repeated(known, claim):
            return False
        if self.closing:
            self.outbox.put(released(claim, UNBEGUN))
            return False
        try:
            if self.dispatch_async is not None and self.dispatch_async(claim):
                return True
        except BaseException:  # Such as: there is no thread for the event loop.
            del self._held[claim.id]
            raise
        self.capacity.fill(claim)
        self.inbox.put(claim)
        return False

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
            self.outbox.put(released(claim, UNBEGUN))
            running = self.running.attempts.get((known.id, known.fence))
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
                self.running.forget_progress([outcome])
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
                self.outbox.put(interrupted(claim) if begun else released(claim, UNBEGUN))
            return True

    def release(self, claim: Claim) -> None:
        """Release a claim that was never dispatched."""
        self._held[claim.id] = claim
        self.outbox.put(released(claim, UNBEGUN))

    def is_held(self, claim: Claim) -> bool:
        """False once the claim was released or abandoned."""
        return self._held.get(claim.id) is claim

    def refusal(self, claim: Claim) -> Unbegun | None:
        """Return why a dispatched claim may not start; None if it may, while the lease is good."""
        if self._held.get(claim.id) is not claim:
            self._replaced.pop(id(claim), None)  # It will have no outcome.
            return Unbegun(None)
        if self._cancel_requested and (claim.id, claim.fence) in self._cancel_requested:
            return Unbegun(Unsuccessful(claim, "cancelled", State.CANCELLED, refund=True))
        return Unbegun(released(claim, UNBEGUN)) if self.closing else None

    def request_cancel(self, id_: int, fence: int) -> Claim | None:
        """Cancel a held claim: its handler is asked to stop, or does not start.

        Returns the claim if its handler is asked now for the first time.
        """
        claim = self._held.get(id_)
        if claim is None or claim.fence != fence:
            return None
        self._cancel_requested.add((id_, fence))
        context = self.running.find((id_, fence))
        if context is None or context.stop_reason is not None:
            return None
        context.request_stop(JobCancelled)
        return claim

    def begin(self, context: Attempt) -> None:
        """A handler is about to be entered."""
        self.running.begin(context)
        self.capacity.started()

    def start(self, context: Attempt) -> None:
        """A child process is about to be made ready for a job."""
        self.running.start(context)
        self.capacity.started()

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
            if self.running.withdraw(context.key) and outcome is not None:
                self.outbox.put(outcome)

    def end(self, context: Attempt, outcome: Outcome) -> bool:
        """A handler was left. False: its claim was given up meanwhile, so nobody waits for it."""
        if not context.is_coroutine:
            self.capacity.finished(outcome.duration or 0.0)
        with self._lock:
            if not self.running.end(context, outcome.duration):
                return False
            self.outbox.put(outcome)
            return True

    def detach(self, context: Attempt, outcome: Outcome) -> bool:
        """End the claim of a handler that goes on; return False if it has ended meanwhile."""
        with self._lock:
            if not self.running.end(context, outcome.duration):
                return False
            self.outbox.put(outcome)
        self.capacity.free_slot(context.claim)
        context.request_stop(AttemptTimeout)
        return True

    def busy_seconds(self) -> float:
        """Seconds that handlers have filled threads so far, those that still run included."""
        with self._lock:
            return self.running.busy_seconds()

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
        self.running.forget_progress(outcomes)

    def count_attempts(self, count: int, *, errored: int) -> None:
        """Count attempts that ended here and were recorded."""
        self.processed += count
        self.errored += errored

    def round_failed(self) -> None:
        """Count a round that failed: what it was to commit may be committed."""
        self.failed_rounds += 1

    def release_prefetched(self) -> int:
        """Release the claims in the inbox, uncharged; return how many."""
        count = 0
        for claim in self.inbox.take_claims():
            self.capacity.free_slot(claim)
            if self.is_held(claim):
                self.outbox.put(released(claim, UNBEGUN))
                count += 1
        return count

    def close(self) -> int:
        """Release every claim that has not started, now and later; return how many now."""
        with self._lock:
            self.closing = True
            unbegun = self.running.withdraw_all()
            for context in unbegun:
                self.outbox.put(released(context.claim, UNBEGUN))
        for context in unbegun:  # Its slot need not wait for the child any longer.
            context.request_stop(ClaimLost)
        return len(unbegun) + self.release_prefetched()

    def detach_all(self) -> list[Claim]:
        """End the claims of running handlers: jobs are released, results dropped.

        A job that may start only once fails instead.
        """
        with self._lock:
            claims = []
            for context in self.running.end_all():
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
            contexts = [*self.running.attempts.values(), *self.running.withdraw_all()]
        for context in contexts:
            context.request_stop(ClaimLost)
        return count


def released(claim: Claim, reason: str | None) -> Unsuccessful:
    """Return the outcome of a claim that is released uncharged."""
    return Unsuccessful(claim, "released", State.AVAILABLE, refund=True, reason=reason)


def interrupted(claim: Claim) -> Unsuccessful:
    """Return the outcome of a claim whose handler is detached."""
    if claim.once:
        why = "interrupted"
        return Unsuccessful(claim, why, State.FAILED, reason=why, duration=0.0)
    return released(claim, "interrupted")
