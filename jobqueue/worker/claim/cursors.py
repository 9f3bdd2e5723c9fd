"""Claim cursors: how far into each queue this worker has claimed.

Without a cursor, a long transaction anywhere in the database makes each claim walk over every dead
entry at the head of the index: quadratic. With it, claims go on where the last one ended; a rescan
at most a second apart starts again from the head, for late commits, promoted jobs, better
priorities and new queues.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import IntEnum
from operator import attrgetter

from sqlalchemy import Connection

from jobqueue.records import Claim
from jobqueue.store.claims import START, ClaimBatch, Claims, Cursor, QueueHead, WorkerRef
from jobqueue.store.paused_search import PausedSearch

_SOLO = attrgetter("immediate_only")
_QUEUE = attrgetter("queue")
RESCAN_INTERVAL = 1.0  # seconds
RESCAN_SHARE = 0.02  # of the time, where jobs may exist
HEAD_START = 0.002  # seconds for handlers to start before a rescan competes with them
QUEUES_MAX = 1000
"""Queues that one rescan finds; the next one goes on behind them."""
SHARE_MIN = 8
"""Jobs that a queue is given at once where there are more queues than can be claimed."""
REST = 64
"""Jobs per one that a claim may leave to the next claim: less than a statement costs."""


class WorkHint(IntEnum):
    """How sure the claimer is that there are jobs to which no cursor leads."""

    NONE = 0
    MAYBE = 1
    """Jobs may exist: rescan within the rescans' share of the time."""
    LIKELY = 2
    """Jobs may exist and this worker is idle: rescan now."""
    ANNOUNCED = 3
    """Jobs were enqueued and this worker is idle: claim now."""


class ClaimCursors:
    """One worker's position in each queue. Used by the thread that claims."""

    def __init__(
        self,
        claims: Claims,
        queues: Mapping[str, int | None] | None,
        behind_paused: PausedSearch,
    ) -> None:
        self._claims = claims
        self._queues = queues
        self._behind_paused = behind_paused
        self._cursors: dict[str, Cursor] = {}
        self._ends: dict[str, Cursor] = {}
        """While something is paused: the places up to which the last rescan looked."""
        self._rescanned_at = float("-inf")
        self._rescan_cost = 0.0
        self._immediate_only: set[str] = set()
        """Queues whose next jobs may not wait in an inbox: claim only what can start at once."""
        self._rescan_not_before = 0.0
        self._turn = ""
        """The queue that is first the next time, or that would stand before those that are."""
        self._resume = ""
        """Where the queues begin that were too many for the last rescan; else ''."""
        self._is_partway = False
        """The last rescan has not come to the end of the queues: it goes on from `_resume`."""
        self._served: set[str] = set()
        """The queues that had a turn since the last rescan."""
        self._has_claimed = False
        """The queues of the last rescan gave jobs: they were not all paused, or claimed before."""
        self.hint = WorkHint.NONE
        self._hint_lock = threading.Lock()
        self._last_queue: str | None = None
        """The queue of the last claims, if they were all from one: the likeliest for the next."""

    def raise_hint(self, hint: WorkHint) -> None:
        """Be at least as sure as `hint` until the next rescan. May be called from any thread."""
        with self._hint_lock:  # Or a weaker hint of one thread could undo that of another.
            self.hint = max(self.hint, hint)

    def rescan_in(self) -> float:
        """Return the seconds until a rescan is due."""
        if self.hint >= WorkHint.LIKELY:
            return max(0.0, self._rescan_not_before - time.monotonic())
        if self.empty and self._resume and (self._has_claimed or self._is_passing_over):
            return 0.0
        rest = (
            self._rescan_cost * (1 / RESCAN_SHARE - 1)
            if self.hint >= WorkHint.MAYBE
            else RESCAN_INTERVAL
        )
        rescan_at = self._rescanned_at + min(rest, RESCAN_INTERVAL)
        return min(rescan_at, self._behind_paused.next_at) - time.monotonic()

    @property
    def empty(self) -> bool:
        """True when no queue is known to have more jobs."""
        return not self._cursors

    @property
    def _is_passing_over(self) -> bool:
        """True while rescans go on to the end of the queues, as those seen may be all paused."""
        return self._is_partway and self._behind_paused.is_active

    @property
    def is_announced(self) -> bool:
        """True when jobs were announced and none are known: claim, and rescan if that gets none.

        While something is paused, the rescan is first: it is what passes paused jobs over.
        """
        is_paused = self._behind_paused.is_active
        return self.hint is WorkHint.ANNOUNCED and self.empty and not is_paused

    def rescan(self, connection: Connection) -> None:
        """Find the queues that have available jobs, and start each from its head."""
        began = time.monotonic()
        self.hint = WorkHint.NONE  # Before looking: who raises it now may know of more.
        self._has_claimed = False
        if self._queues is None:
            found = self._find(connection)
        else:
            found = self._claims.heads(connection, self._queues)
        queues = [head.queue for head in found]
        self._cursors, self._ends = dict.fromkeys(queues, START), {}
        if any(head.is_any_paused for head in found):
            self._cursors, self._ends = self._behind_paused.look(connection, queues)
        else:
            self._behind_paused.forget()
        self._rescanned_at = time.monotonic()
        self._rescan_cost = self._rescanned_at - began

    def _find(self, connection: Connection) -> list[QueueHead]:
        """Return the queues with available jobs: of too many, from the first without a turn on."""
        start = ""
        if self._resume:
            unserved = (queue for queue in self._in_turn() if queue not in self._served)
            self._turn = start = next(unserved, self._resume)
        self._served, self._resume, self._is_partway = set(), "", False
        found: list[QueueHead] = []
        for first in dict.fromkeys((start, "")):
            most = QUEUES_MAX + 1 - len(found)
            found += self._claims.next_queues(connection, first, limit=most)
            if len(found) > QUEUES_MAX:  # There it goes on, not from the head again.
                self._resume, self._is_partway = found.pop().queue, first == start
                break
        return found

    def announced_queue(self, free: int, held: Mapping[int, Claim]) -> tuple[str, int] | None:
        """Return the likeliest queue of the announced jobs, and how many to claim there.

        For half of the free threads: the rescan that follows shares the others among all queues.
        """
        if not self.is_announced or self._last_queue is None:
            return None
        limit = min(-(-free // 2), self.room(self._last_queue, held, []))
        return (self._last_queue, limit) if limit > 0 else None

    def claimed_announced(self) -> None:
        """Note that the announced jobs were claimed; rescan once their handlers have started."""
        self.hint = WorkHint.LIKELY
        self._rescan_not_before = time.monotonic() + HEAD_START

    def claim(
        self,
        connection: Connection,
        worker: WorkerRef,
        *,
        limit: int,
        free: int,
        held: Mapping[int, Claim],
    ) -> list[Claim]:
        """Claim up to `limit` jobs: of each queue its share, then what others left over of theirs.

        Better priorities are first in each queue, and queues take turns at being first. One that
        has no more jobs is forgotten until a rescan.
        """
        if self.is_announced:
            self.rescan(connection)
        order = self._in_turn()
        least = 1 if limit >= len(order) else max(1, min(SHARE_MIN, limit // SHARE_MIN))
        taken: list[Claim] = []
        waiting, had_turn = order, set[str]()
        while waiting and (room := limit - len(taken)) > limit // REST:
            share = max(min(least, room), room // len(waiting))
            count = room // share
            if not self._immediate_only:  # Else who waits for a slot would lose its turn.
                count *= 2  # Some have less than a share.
            asked, waiting = waiting[:count], waiting[count:]
            had_turn.update(asked)
            for wanted, queues in self._wanted(asked, share, held, taken, free).items():
                left, idle = limit - len(taken), max(0, free - len(taken))
                batches = self._claim_queues(
                    connection, worker, queues, wanted, limit=left, free=idle
                )
                had_turn.difference_update(set(queues).difference(batches))
                for queue, batch in batches.items():
                    taken += batch
                    if len(batch) == share:
                        waiting.append(queue)
        # Those without a turn are first the next time; else the queues take turns.
        without = (queue for queue in order if queue not in had_turn)
        self._turn = next(without, order[1] if len(order) > 1 else "")
        self._served |= had_turn
        if taken:
            self._last_queue = taken[0].queue if len(set(map(_QUEUE, taken))) == 1 else None
        return taken

    def _in_turn(self) -> list[str]:
        """Return the queues that have a cursor, from the one on whose turn it is."""
        order = sorted(self._cursors)
        first = bisect_left(order, self._turn)
        return order[first:] + order[:first]

    def _wanted(
        self,
        asked: Sequence[str],
        share: int,
        held: Mapping[int, Claim],
        taken: list[Claim],
        free: int,
    ) -> dict[int, list[str]]:
        """Return how many jobs to claim of which queues."""
        wanted: dict[int, list[str]] = {}
        idle = free - len(taken)
        for queue in asked:
            most = min(share, self.room(queue, held, taken))
            if queue in self._immediate_only:  # It waits for a slot, and those behind it too.
                most = min(most, max(0, idle))
            if most > 0:
                wanted.setdefault(most, []).append(queue)
                idle -= most
        return wanted

    def _claim_queues(
        self,
        connection: Connection,
        worker: WorkerRef,
        queues: Sequence[str],
        share: int,
        *,
        limit: int,
        free: int,
    ) -> dict[str, ClaimBatch]:
        """Claim up to `share` jobs of each queue, `limit` in all; move or forget its cursor."""
        batches: dict[str, ClaimBatch] = {}
        if (len(queues) > 1 or self._ends) and limit:
            cursors = {queue: self._cursors[queue] for queue in queues}
            batches = self._claims.claim_queues(
                connection, worker, cursors, self._ends, share=share, limit=limit, free=free
            )
        elif limit:
            (queue,) = queues
            most = min(share, limit)
            batch = self._claims.claim(
                connection, worker, queue, self._cursors[queue], limit=most, free=free
            )
            batch.cut_short = most < share
            batches = {queue: batch}
        for queue, batch in batches.items():
            self._move_cursor(queue, batch, share)
        return batches

    def _move_cursor(self, queue: str, batch: ClaimBatch, wanted: int) -> None:
        if batch:
            self._cursors[queue] = batch.cursor
            self._has_claimed = True
        if batch.stopped_at_immediate or any(map(_SOLO, batch)):
            self._immediate_only.add(queue)
        else:
            self._immediate_only.discard(queue)
        if len(batch) < wanted and not (batch.stopped_at_immediate or batch.cut_short):
            cursor = self._cursors.pop(queue)
            if queue in self._ends:  # There may be jobs behind it.
                if not batch:
                    self._behind_paused.gave_nothing(cursor)
                self.raise_hint(WorkHint.LIKELY if self._has_claimed else WorkHint.MAYBE)
            elif batch:
                self.raise_hint(WorkHint.MAYBE)

    def room(self, queue: str, held: Mapping[int, Claim], taken: list[Claim]) -> int:
        """Return how many more jobs of a queue this worker may hold, besides those just taken."""
        limit = None if self._queues is None else self._queues.get(queue)
        if limit is None:
            return 2**31
        mine = sum(claim.queue == queue for claim in list(held.values()))
        return max(0, limit - mine - sum(claim.queue == queue for claim in taken))
