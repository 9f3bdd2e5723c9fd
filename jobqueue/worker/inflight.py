"""What a worker holds: claims in its inbox, running handlers, outcomes on their way out."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import NamedTuple

from jobqueue.errors import AttemptTimeout, ClaimLost
from jobqueue.records import Claim, Ended, Outcome
from jobqueue.states import State
from jobqueue.store.claims import Holder
from jobqueue.store.dialects.base import Backend
from jobqueue.store.sql.rows import Progress
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.process_identity import boottime

UNBEGUN = "given back before it began"
"""Why a claim was released."""


_CLAIMED_AT = attrgetter("started_at")
_job_of = attrgetter("task", "args", "run_at")


class Unbegun(NamedTuple):
    """A claim was handed out, and its handler was not entered."""

    outcome: Ended | None
    """None: the claim is not this worker's any more, or its outcome is written already."""


class LeaseClock:
    """Whether this worker may still believe in its claims, by a clock that no one steps."""

    def __init__(self, length: float) -> None:
        self.length = length
        self._confirmed = -math.inf
        self._verdict = threading.Condition()

    def confirm(self, sent_at: float) -> None:
        """A heartbeat that was sent then has landed."""
        with self._verdict:
            self._confirmed = sent_at
            self._verdict.notify_all()

    def good(self) -> bool:
        """True while a lease has not passed since the last confirmed heartbeat was sent."""
        return boottime() - self._confirmed < self.length

    def wait(self, timeout: float) -> bool:
        """Wait for a heartbeat to land; True when the lease is good."""
        with self._verdict:
            return self._verdict.wait_for(self.good, timeout)


class InFlight:
    """The claims of one worker, from the commit of the claim to the commit of the outcome.

    Its plain dicts and queues are safe between threads by themselves: every step is one operation.
    """

    def __init__(self, concurrency: int, lease: float, async_concurrency: int = 0) -> None:
        self.concurrency = concurrency
        self.async_concurrency = async_concurrency
        """How many async jobs may run at once; 0 where no task is async."""
        self.lease = LeaseClock(lease)
        self.holder: Holder | None = None
        self.inbox: SimpleQueue[Claim | None] = SimpleQueue()
        self.outbox: SimpleQueue[Outcome] = SimpleQueue()
        self.held: dict[int, Claim] = {}
        self.running: dict[tuple[int, int], Attempt] = {}
        """By (id, fence): after a lost lease, two attempts of one job may run here."""
        self.starting: dict[tuple[int, int], Attempt] = {}
        """The same for jobs that have not begun: their child process is not ready for them."""
        self.open: set[tuple[int, int]] = set()
        """(id, fence) of claims that were handed out and have no outcome yet: they fill slots."""
        self.open_async: set[tuple[int, int]] = set()
        """The same for claims of async tasks, which fill none."""
        self.async_share = 0.0
        """How much of what was claimed lately was async."""
        self.divert: Callable[[Claim], bool] | None = None
        """Takes a claim of an async task to the event loop, and says so."""
        self.unwanted: set[tuple[int, int]] = set()
        """(id, fence) of held claims that are to be cancelled and have not begun."""
        self.alone = True
        """No other worker is known to share the database; the reaper looks."""
        self.company = False
        """A writer that knows nothing of turns was met lately."""
        self.last_progress: dict[tuple[int, int], Progress] = {}
        """By (id, fence): what handlers reported last and no heartbeat has written."""
        self.disowned: dict[int, Claim] = {}
        """By `id()`: held claims of jobs that the server has lost; their ids are of others now."""
        self.lost_a_lease = False
        """Outcomes of claims under an earlier lease may still be on their way."""
        self.failed_rounds = 0
        """Of claiming, completing and the heartbeat: what they were to commit may be committed."""
        self.last_claimed_at: datetime | None = None
        """When the latest of the claims that were handed out was made, by the database's clock."""
        self.begun = 0
        self.processed = 0
        self.errored = 0
        self.last_begun = time.monotonic()
        """Since when no slot has moved that had something to begin."""
        self.mean_duration: float | None = None  # seconds
        self._busy = 0.0
        self.closing = False
        """Nothing begins any more."""
        self._gate = threading.Lock()

    def batch_max(self, backend: Backend) -> int:
        """Rows per transaction: fewer where others wait for its end."""
        alone = self.alone and not self.company
        return backend.batch_max if alone else backend.batch_shared

    def hand_out(self, claims: list[Claim], holder: Holder | None) -> None:
        """Give claims to the executors; after the claim's commit only.

        Claims of a lease that is gone are dropped, and those of a worker that stops go back.
        """
        with self._gate:
            if self.holder is not holder:
                return
            diverted = 0
            if claims:
                latest = max(map(_CLAIMED_AT, claims))
                self.last_claimed_at = max(latest, self.last_claimed_at or latest)
            if claims and self.free():
                self.last_begun = time.monotonic()  # A slot is about to: it had nothing to begin.
            try:
                for claim in claims:
                    known = self.held.setdefault(claim.id, claim)
                    if known is not claim and self._is_repeated(known, claim):
                        continue
                    if self.closing:
                        self.outbox.put(released(claim, UNBEGUN))
                    elif self.divert is not None and self.divert(claim):
                        diverted += 1
                    else:
                        self.open.add((claim.id, claim.fence))
                        self.inbox.put(claim)
            except BaseException:  # Such as: there is no thread for the event loop.
                del self.held[claim.id]
                raise
            if claims and self.divert is not None:
                self.async_share += (diverted / len(claims) - self.async_share) * 0.5

    def _is_repeated(self, known: Claim, claim: Claim) -> bool:
        """True if the server has lost the commit of a held claim, and it is made once more.

        Or if it has lost the job, and given its id to another one, whose first claim has the same
        fence: what the first one still has to say is not written, and the other goes back.
        """
        same_fence = known.fence == claim.fence
        if same_fence and _job_of(known) == _job_of(claim):
            return True
        self.held[claim.id] = claim
        if same_fence:
            self.disowned[id(known)] = known
            self.outbox.put(released(claim, UNBEGUN))
            running = self.running.get((known.id, known.fence))
            if running is not None:
                running.tell(ClaimLost)
        return same_fence

    def owned(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Those that are not of a job whose id is another one's by now."""
        kept = []
        for outcome in outcomes:
            claim = self.disowned.pop(id(outcome.claim), None)
            if claim is None:
                kept.append(outcome)
            else:
                self.last_progress.pop((claim.id, claim.fence), None)
        return kept

    def give_back_unknown(self, claims: list[Claim], holder: Holder) -> bool:
        """Put claims into the outbox that only the database knows of; False if the lease is lost.

        One that is later than all that were handed out has not begun. Of others nobody knows.
        """
        with self._gate:
            if self.holder is not holder:
                return False
            for claim in claims:
                self.held[claim.id] = claim
                begun = self.last_claimed_at and claim.started_at <= self.last_claimed_at
                self.outbox.put(interrupted(claim) if begun else released(claim, UNBEGUN))
            return True

    def is_held(self, claim: Claim) -> bool:
        """False once the claim was given back or abandoned."""
        return self.held.get(claim.id) is claim

    def refusal(self, claim: Claim) -> Unbegun | None:
        """Why a claim that was handed out may not begin; None: it may, while the lease is good."""
        if self.held.get(claim.id) is not claim:
            self.disowned.pop(id(claim), None)  # It will have no outcome.
            return Unbegun(None)
        if self.unwanted and (claim.id, claim.fence) in self.unwanted:
            return Unbegun(Ended(claim, "cancelled", State.CANCELLED, refund=True))
        return Unbegun(released(claim, UNBEGUN)) if self.closing else None

    def begin(self, context: Attempt) -> None:
        """A handler is about to be entered."""
        self.running[context.key] = context
        self.begun += 1
        self.last_begun = time.monotonic()

    def start(self, context: Attempt) -> None:
        """A child process is about to be made ready for a job."""
        self.starting[context.key] = context
        self.last_begun = time.monotonic()

    def begin_started(self, context: Attempt) -> bool:
        """Begin a job whose child process is ready, unless it may not: ask `refusal()` why.

        One step with the question: a stop either gives the job back, or waits for it.
        """
        with self._gate:
            if self.refusal(context.claim) is not None:
                return False
            self.begin(context)
            self.starting.pop(context.key)
            return True

    def withdraw(self, context: Attempt, outcome: Outcome | None) -> None:
        """A job whose child process was made ready does not begin; None: nothing is to be said."""
        with self._gate:
            if self.starting.pop(context.key, None) is not None and outcome is not None:
                self.outbox.put(outcome)

    def end(self, context: Attempt, outcome: Outcome) -> bool:
        """A handler was left. False: its claim was given up meanwhile, so nobody waits for it."""
        duration = outcome.duration or 0.0
        in_slot = not context.is_coroutine
        if in_slot:
            mean = self.mean_duration
            self.mean_duration = duration if mean is None else mean + (duration - mean) * 0.05
        with self._gate:
            if self.running.pop(context.key, None) is None:
                return False
            self._busy += duration if in_slot else 0.0
            if context.reported is not None:
                self._keep_progress(context)
            self.outbox.put(outcome)
            return True

    def _keep_progress(self, context: Attempt) -> None:
        said = context.unwritten_progress()
        if said is not None:
            self.last_progress[context.key] = said

    def progress_of(self, outcomes: Sequence[Outcome]) -> list[Progress]:
        """What the handlers of these jobs reported last."""
        if not self.last_progress:
            return []
        keys = [(outcome.claim.id, outcome.claim.fence) for outcome in outcomes]
        return [self.last_progress[key] for key in keys if key in self.last_progress]

    def give_up(self, context: Attempt, outcome: Outcome) -> bool:
        """The handler still runs and is not waited for; False if it has ended meanwhile."""
        with self._gate:
            if self.running.pop(context.key, None) is None:
                return False
            self._busy += 0.0 if context.is_coroutine else outcome.duration or 0.0
            self._keep_progress(context)
            self.outbox.put(outcome)
        self.let_go(context.claim)
        context.tell(AttemptTimeout)
        return True

    def busy_seconds(self) -> float:
        """Seconds that handlers have filled slots so far, those that still run included."""
        with self._gate:
            return self._busy + _busy(list(self.running.values()))

    def snapshot(self) -> tuple[Holder | None, dict[int, Claim]]:
        """In whose name claims are held, and which, at one moment."""
        with self._gate:
            return self.holder, dict(self.held)

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """The database has answered about outcomes."""
        held = self.held
        for outcome in outcomes:
            claim = outcome.claim
            if held.get(claim.id) is claim:
                del held[claim.id]
            if self.unwanted:
                self.unwanted.discard((claim.id, claim.fence))
            if self.last_progress:
                self.last_progress.pop((claim.id, claim.fence), None)

    def free(self) -> int:
        """How many more claims could begin at once."""
        return max(0, self.concurrency - len(self.open))

    def free_async(self) -> int:
        """How many more claims of async tasks could begin at once; below 0: so many wait."""
        return self.async_concurrency - len(self.open_async)

    def sure(self) -> int:
        """How many more claims could begin at once, whatever their tasks turn out to be."""
        free = self.free()
        return min(free, max(0, self.free_async())) if self.async_concurrency else free

    def let_go(self, claim: Claim) -> None:
        """A claim that was handed out fills no slot any longer."""
        self.open.discard((claim.id, claim.fence))
        if self.open_async:
            self.open_async.discard((claim.id, claim.fence))

    def give_back(self) -> int:
        """Turn claims that have not begun into releases, uncharged; returns how many."""
        count = endings = 0
        while True:
            try:
                claim = self.inbox.get_nowait()
            except Empty:
                for _ in range(endings):
                    self.inbox.put(None)
                return count
            if claim is None:
                endings += 1
                continue
            self.let_go(claim)
            if self.is_held(claim):
                self.outbox.put(released(claim, UNBEGUN))
                count += 1

    def close(self) -> int:
        """From now on, what was claimed and has not begun goes back; returns how many did now."""
        with self._gate:
            self.closing = True
            unbegun = list(self.starting.values())
            self.starting.clear()
            for context in unbegun:
                self.outbox.put(released(context.claim, UNBEGUN))
        for context in unbegun:  # Its slot need not wait for the child any longer.
            context.tell(ClaimLost)
        return len(unbegun) + self.give_back()

    def interrupt(self) -> list[Claim]:
        """Give up handlers that still run: their jobs go back, and what they end with is dropped.

        A job that may begin only once fails instead.
        """
        with self._gate:
            contexts = list(self.running.values())
            self.running.clear()
            self._busy += _busy(contexts)
            claims = []
            for context in contexts:
                context.tell(ClaimLost)
                self._keep_progress(context)
                claim = self.held.get(context.claim.id)
                if claim is not None and claim.fence == context.claim.fence:
                    claims.append(claim)
                    self.outbox.put(interrupted(claim))
            return claims

    def abandon(self) -> int:
        """The lease was taken away: nothing that was claimed is ours. Returns how many claims."""
        with self._gate:
            self.holder = None
            self.lost_a_lease = True
            count = len(self.held)
            self.held.clear()
            self.unwanted.clear()
            contexts = [*self.running.values(), *self.starting.values()]
            self.starting.clear()
        for context in contexts:
            context.tell(ClaimLost)
        return count


def _busy(running: list[Attempt]) -> float:
    """Seconds that these handlers have filled slots."""
    present = time.perf_counter()
    return sum(present - context.began for context in running if not context.is_coroutine)


def released(claim: Claim, reason: str | None) -> Ended:
    """The outcome of a claim that goes back uncharged."""
    return Ended(claim, "released", State.AVAILABLE, refund=True, reason=reason)


def interrupted(claim: Claim) -> Ended:
    """The outcome of a claim whose handler is not waited for any longer."""
    if claim.once:
        why = "interrupted"
        return Ended(claim, why, State.FAILED, reason=why, duration=0.0)
    return released(claim, "interrupted")
