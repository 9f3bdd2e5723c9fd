"""Claim cursors: how far into each (queue, priority) this worker has claimed.

Without a cursor, a long transaction anywhere in the database makes each claim walk over every dead
entry at the head of the index: quadratic. With it, claims go on where the last one ended; a rescan
at most a second apart starts again from the head, for late commits, promoted jobs and new levels.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from itertools import chain
from operator import attrgetter

from sqlalchemy import Connection

from jobqueue.records import Claim
from jobqueue.store.claims import (
    PRIORITY_AFTER_ALL,
    PRIORITY_BEFORE_ALL,
    START,
    ClaimBatch,
    Claims,
    PriorityLevel,
    WorkerRef,
)

_SOLO = attrgetter("immediate_only")
_QUEUE = attrgetter("queue")
RESCAN_INTERVAL = 1.0  # seconds
RESCAN_SHARE = 0.02  # of the time, where jobs may exist
HEAD_START = 0.002  # seconds for handlers to start before a rescan competes with them
LEVELS_MAX = 1000
LEVELS_PER_QUEUE = 10
"""Priorities of one queue that one rescan finds, the best first; the next one finds the next."""
SHARE_MIN = 8
"""Jobs that a queue is given at once where there are more queues than can be claimed."""


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
    """One worker's position in each level (queue, priority). Used by the thread that claims."""

    def __init__(self, claims: Claims, queues: Mapping[str, int | None] | None) -> None:
        self._claims = claims
        self._queues = queues
        self._cursors: dict[PriorityLevel, tuple[datetime, int]] = {}
        self._rescanned_at = float("-inf")
        self._rescan_cost = 0.0
        self._immediate_only: set[PriorityLevel] = set()
        """Levels whose next jobs may not wait in an inbox: claim only what can start at once."""
        self._rescan_not_before = 0.0
        self._turn = 0
        self._resume = ""
        self._may_have_more = False
        """The last rescan found as many levels as it may: there are probably more."""
        self._has_claimed = False
        """The levels of the last rescan gave jobs: they were not all paused, or claimed before."""
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
        if self.empty and self._may_have_more and self._has_claimed:
            return 0.0
        rest = (
            self._rescan_cost * (1 / RESCAN_SHARE - 1)
            if self.hint >= WorkHint.MAYBE
            else RESCAN_INTERVAL
        )
        return self._rescanned_at + min(rest, RESCAN_INTERVAL) - time.monotonic()

    @property
    def empty(self) -> bool:
        """True when no level is known to have more jobs."""
        return not self._cursors

    @property
    def is_announced(self) -> bool:
        """True when jobs were announced and none are known: claim, and rescan if that gets none."""
        return self.hint is WorkHint.ANNOUNCED and self.empty

    def rescan(self, connection: Connection) -> None:
        """Find the levels that have available jobs, and start each from its head."""
        began = time.monotonic()
        self.hint = WorkHint.NONE  # Before looking: who raises it now may know of more.
        self._cursors = {}
        self._may_have_more = self._has_claimed = False
        if self._queues is not None:
            for name in self._queues:
                self._find(connection, PriorityLevel(name, PRIORITY_BEFORE_ALL), only=name)
        else:
            # Of more queues than LEVELS_MAX one rescan takes some, the next goes on behind them.
            resumed, self._resume = self._resume, ""
            if resumed:
                self._find(connection, PriorityLevel(resumed, PRIORITY_AFTER_ALL))
            if len(self._cursors) < LEVELS_MAX:  # Else there it goes on, not from the head again.
                self._find(connection, PriorityLevel("", PRIORITY_BEFORE_ALL))
        self._rescanned_at = time.monotonic()
        self._rescan_cost = self._rescanned_at - began

    def _find(self, connection: Connection, after: PriorityLevel, only: str | None = None) -> None:
        """Add the levels after a given one, of each queue only the best few."""
        room = LEVELS_MAX - len(self._cursors)
        limit = room if only is None else min(room, LEVELS_PER_QUEUE)
        levels = self._claims.next_levels(
            connection, after, limit=limit, per_queue=LEVELS_PER_QUEUE
        )
        if only is None and len(levels) == limit:
            self._resume = levels[-1].queue
        found = [level for level in levels if only in (None, level.queue)]
        counts = Counter(map(_QUEUE, found))
        self._may_have_more |= bool(self._resume) or LEVELS_PER_QUEUE in counts.values()
        self._cursors.update(dict.fromkeys(found, START))

    def claim(
        self,
        connection: Connection,
        worker: WorkerRef,
        *,
        limit: int,
        free: int,
        held: Mapping[int, Claim],
    ) -> list[Claim]:
        """Claim up to `limit` jobs: each queue its share, better priorities first in each.

        Queues take turns at being first. A level that has no more jobs is forgotten until a rescan.
        """
        if self.is_announced:
            self.rescan(connection)
        taken = self._claim_shares(connection, worker, limit=limit, free=free, held=held)
        if taken:
            self._last_queue = taken[0].queue if len(set(map(_QUEUE, taken))) == 1 else None
        return taken

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

    def _claim_shares(
        self,
        connection: Connection,
        worker: WorkerRef,
        *,
        limit: int,
        free: int,
        held: Mapping[int, Claim],
    ) -> list[Claim]:
        groups: dict[str, list[PriorityLevel]] = {}
        for level in sorted(self._cursors, reverse=True):
            groups.setdefault(level.queue, []).append(level)
        queues = sorted(groups)
        turn = self._turn % len(queues) if queues else 0
        order = queues[turn:] + queues[:turn]
        least = 1 if limit >= len(order) else max(1, min(SHARE_MIN, limit // SHARE_MIN))
        # Those without a share are first the next time; else the queues take turns.
        self._turn = turn + (limit // least if limit < len(order) else 1)
        taken: list[Claim] = []
        while order and (room := limit - len(taken)) > 0:  # Shares, then what others left over.
            share = max(min(least, room), room // len(order))
            served = order[: room // share]
            rest = dict.fromkeys(served, share)
            while asked := self._asked(groups, rest, held, taken, free - len(taken)):
                before = len(taken)
                for wanted, levels in asked.items():
                    idle = max(0, free - len(taken))
                    taken += self._claim_levels(connection, worker, levels, wanted, idle)
                counts = Counter(map(_QUEUE, taken[before:]))
                for queue in rest:
                    rest[queue] -= counts[queue]
                    groups[queue] = [level for level in groups[queue] if level in self._cursors]
            # A queue that got less than its share has no more, or may not have more now.
            order = order[len(served) :] + [
                name for name in served if groups[name] and not rest[name]
            ]
        return taken

    def _asked(
        self,
        groups: Mapping[str, list[PriorityLevel]],
        rest: Mapping[str, int],
        held: Mapping[int, Claim],
        taken: list[Claim],
        free: int,
    ) -> dict[int, list[PriorityLevel]]:
        """Return how many jobs to claim of which levels: of each queue only the best one."""
        asked: dict[int, list[PriorityLevel]] = {}
        for queue, share in rest.items():
            if share <= 0 or not groups[queue]:
                continue
            level = groups[queue][-1]
            wanted = min(share, self.room(queue, held, taken))
            if level in self._immediate_only:  # It waits for a slot, and the worse ones with it.
                wanted = min(wanted, max(0, free))
            if wanted > 0:
                asked.setdefault(wanted, []).append(level)
                free -= wanted
        return asked

    def _claim_levels(
        self,
        connection: Connection,
        worker: WorkerRef,
        levels: list[PriorityLevel],
        wanted: int,
        free: int,
    ) -> list[Claim]:
        """Claim up to `wanted` jobs of each level, and move or forget its cursor."""
        cursors = {level: self._cursors[level] for level in levels}
        if len(levels) == 1:
            (level, cursor) = cursors.popitem()
            one = self._claims.claim(connection, worker, level, cursor, limit=wanted, free=free)
            batches = {level: one}
        else:
            batches = self._claims.claim_levels(
                connection, worker, cursors, limit=wanted, free=free
            )
        for level, claims in batches.items():
            self._move_cursor(level, claims, wanted)
        return list(chain.from_iterable(batches.values()))

    def _move_cursor(self, level: PriorityLevel, claims: ClaimBatch, wanted: int) -> None:
        if claims:
            self._cursors[level] = (claims[-1].run_at, claims[-1].id)
            self._has_claimed = True
        if claims.stopped_at_immediate or any(map(_SOLO, claims)):
            self._immediate_only.add(level)
        else:
            self._immediate_only.discard(level)
        if len(claims) < wanted and not claims.stopped_at_immediate:
            del self._cursors[level]
            if claims:
                self.raise_hint(WorkHint.MAYBE)

    def room(self, queue: str, held: Mapping[int, Claim], taken: list[Claim]) -> int:
        """Return how many more jobs of a queue this worker may hold, besides those just taken."""
        limit = None if self._queues is None else self._queues.get(queue)
        if limit is None:
            return 2**31
        mine = sum(claim.queue == queue for claim in list(held.values()))
        return max(0, limit - mine - sum(claim.queue == queue for claim in taken))
