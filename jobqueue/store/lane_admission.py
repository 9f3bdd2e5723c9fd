"""Which jobs of locked lanes may start now: limits, rates, fair shares. Without I/O.

Rates follow GCRA, the generic cell rate algorithm (ITU-T I.371): one instant is kept, when the next
start would be due if all starts were evenly spaced; a burst is how far starts may run ahead of it.
Fair shares follow start-time fair queueing (Goyal, Vin, Cheng 1996): every start moves its lane's
virtual time on by 1 / weight, and the lane that is furthest behind is next. The virtual time of the
queue is that of its last start; a lane that was idle begins there, so that it saves nothing up.
"""

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple

from jobqueue import options

place_of = attrgetter("priority", "run_at", "id")
"""The place of a job in the order of all."""
_ROUNDING = 1e-6  # seconds; instants are sums of floats
_FIRST = datetime.min.replace(tzinfo=UTC)


class Head(NamedTuple):
    """A job that is among the first available ones of its lane."""

    id: int
    lane: str | None
    priority: int
    run_at: datetime
    lane_limit: int | None = None
    lane_weight: float | None = None
    lane_strict: int | None = None
    is_paused: bool = False
    """Its task or a tag of it is paused."""

    @property
    def is_in_line(self) -> bool:
        """Return whether the job may start at its turn, or holds up those behind it, as strict."""
        is_strict = self.lane is not None and self.lane_strict == 1
        has_limit_0 = self.lane_limit is not None and self.lane_limit <= 0
        return is_strict or not (self.is_paused or has_limit_0)


class Places(NamedTuple):
    """What runs in a lane. A strict job that awaits its next attempt keeps its place."""

    running: int = 0
    places: int = 0
    next_id: int | None = None
    """A strict job that is due again: no other job of the lane goes before it."""
    next_limit: int | None = None


class Switches(NamedTuple):
    """A queue's switches. Times are seconds; `present` is the database's time."""

    paused_at: datetime | None = None
    max_running: int | None = None
    rate_count: int | None = None
    rate_period: float | None = None
    rate_burst: int | None = None
    fair: int | None = None
    present: float = 0.0
    is_any_paused: bool = False
    """Some task or tag is paused, in this queue or another one."""

    @property
    def is_limited(self) -> bool:
        """Return whether the queue's jobs are claimed under the lock of its lane."""
        return self.max_running is not None or self.rate_count is not None or self.fair == 1

    @property
    def is_held_back(self) -> bool:
        """Return whether no key of the queue is locked before the switches are known."""
        return self.is_limited or self.paused_at is not None


@dataclass
class QueueLane:
    """The lane of a queue with switches. `turn` is the queue's virtual time."""

    switches: Switches
    turn: float = 0.0
    plain_turn: float = 0.0
    """The virtual time of the queue's jobs that have no concurrency key."""
    next_start: float = 0.0
    """Seconds since 1970: when the next start would be due if all were evenly spaced."""
    running: int = 0
    rest: float | None = None
    """See `Lane.rest`: of its jobs without a key."""
    are_others: bool = False
    """There may be jobs to claim besides those that were looked at."""

    @property
    def _interval(self) -> float:
        count = self.switches.rate_count
        return (self.switches.rate_period or 1.0) / count if count else 0.0

    @property
    def _latest(self) -> float:
        return self.switches.present + self._interval * (self.switches.rate_burst or 1)

    def room(self) -> int:
        """Return how many jobs may start now."""
        # At most a burst ahead of the clock, which may have been turned back.
        self.next_start = min(max(self.next_start, self.switches.present), self._latest)
        room = 2**31
        if self.switches.max_running is not None:
            room = self.switches.max_running - self.running
        if self.switches.rate_count is not None:
            ahead = self._latest - self.next_start + _ROUNDING
            room = int(min(room, ahead / self._interval)) if self._interval else 0
        return max(room, 0)

    def started(self, count: int) -> None:
        """Count jobs that start now."""
        self.running += count
        self.next_start += count * self._interval

    def wait(self, others: int = 0) -> float | None:
        """Return the seconds until the rate allows one more start than those of `others`.

        None if no rate holds it back.
        """
        if not self._interval:
            return None
        wait = (others + 1) * self._interval - (self._latest - self.next_start)
        return wait if wait > _ROUNDING else None


@dataclass
class Lane:
    """The lane of one key, or (`key` None) the jobs of a limited queue that have none."""

    key: str | None
    turn: float
    heads: Sequence[Head]
    """Its first jobs in order: one more than may be claimed, to know whether there are more."""
    places: Places = field(default_factory=Places)
    taken: int = 0
    rest: float | None = None
    """Seconds to pass it over where none of these is left, as there are paused ones; None: none."""
    last: tuple[int, datetime, int] | None = None
    """The place of the last job that was looked at, if there may be more behind it."""
    has_more: bool = False
    """There may be more jobs behind these."""
    missed: Collection[int] = ()
    """Jobs that were taken and are not claimed: another transaction holds or has changed them."""

    def __post_init__(self) -> None:
        self.heads = sorted(self.heads, key=place_of)
        self.allowed = self._allowed()

    def _allowed(self) -> list[Head]:
        """Return the jobs that may start now, in order: each is held to its own limit.

        A strict job overtakes none that is in line, and none overtakes it.
        """
        places = self.places
        if places.next_id is not None:
            if places.next_limit is not None and places.running >= places.next_limit:
                return []
            return [Head(places.next_id, self.key, -(2**31), _FIRST)]
        allowed: list[Head] = []
        for place, head in enumerate(head for head in self.heads if head.is_in_line):
            taken = places.places + len(allowed)
            is_full = head.lane_limit is not None and taken >= head.lane_limit
            waits = is_full or head.is_paused
            if head.lane_strict and (waits or len(allowed) < place):
                break
            if not waits:
                allowed.append(head)
        return allowed

    @property
    def next(self) -> Head | None:
        """Return the next job that may start, if any."""
        return self.allowed[self.taken] if self.taken < len(self.allowed) else None

    @property
    def may_hide_others(self) -> bool:
        """Return whether limits of 0 may hide a job that may start, as these are all that was seen.

        Not if one of these may start, or a strict one has to wait: no other goes before it.
        """
        return (
            self.has_more
            and self.places.next_id is None
            and not self.allowed
            and not all(head.is_in_line for head in self.heads)
            and not any(head.lane_strict == 1 for head in self.heads)
        )

    def missed_all_but(self, claimed: Collection[int]) -> None:
        """Note which of the taken jobs are not claimed, and which may not be claimed therefore.

        Behind one that is missed: a strict job, and if it is strict itself, every other.
        """
        missed: list[Head] = []
        for head in self.allowed[: self.taken]:
            is_held_up = missed and (head.lane_strict or any(one.lane_strict for one in missed))
            if head.id not in claimed or is_held_up:
                missed.append(head)
        self.missed = {head.id for head in missed}

    @property
    def is_locked(self) -> bool:
        """Return whether all jobs that were taken are missed."""
        return 0 < self.taken == len(self.missed)

    @property
    def may_give_more(self) -> bool:
        """Return whether another job may start, as far as is known."""
        if self.next is not None or self.missed:
            return True
        if not self.taken:
            return False
        # Behind the jobs that were seen there may be one with another limit.
        are_alike = len({head.lane_limit for head in self.heads}) == 1
        return self.places.next_id is not None or (self.has_more and not are_alike)

    @property
    def first_left(self) -> Head | None:
        """Return the first job that stays behind, if any is known."""
        return next(iter(self._left), None)

    @property
    def _left(self) -> Sequence[Head]:
        taken = {head.id for head in self.allowed[: self.taken]}.difference(self.missed)
        return [head for head in self.heads if head.id not in taken]

    @property
    def next_place(self) -> tuple[int, datetime | None]:
        """Return where its next job is in the order of all: priority and due time.

        Of one that is in line, if any is: a job that is passed over for long must not bring its key
        in front of others.
        """
        in_line = [head for head in self._left if head.is_in_line]
        if first := next(iter(in_line or self._left), None):
            return first.priority, first.run_at
        return (0, None) if self.last is None else self.last[:2]


def choose_in_order(lanes: Sequence[Lane], room: int) -> dict[int, str | None]:
    """Take up to `room` jobs of the lanes, in the order of all jobs; return their keys by id."""
    chosen: dict[int, str | None] = {}
    waiting = [(place_of(head), place) for place, lane in enumerate(lanes) if (head := lane.next)]
    heapq.heapify(waiting)
    while waiting and len(chosen) < room:
        _, place = heapq.heappop(waiting)
        head = _take(lanes[place])
        chosen[head.id] = head.lane
        if head := lanes[place].next:
            heapq.heappush(waiting, (place_of(head), place))
    return chosen


def choose_fairly(lanes: Sequence[Lane], room: int, queue: QueueLane) -> dict[int, str | None]:
    """Take up to `room` jobs, each from the lane that is furthest behind; return the same."""
    chosen: dict[int, str | None] = {}
    for lane in lanes:
        lane.turn = max(lane.turn, queue.turn)
    waiting = [(lane.turn, place) for place, lane in enumerate(lanes) if lane.next]
    heapq.heapify(waiting)
    while waiting and len(chosen) < room:
        queue.turn, place = heapq.heappop(waiting)
        lane = lanes[place]
        head = _take(lane)
        chosen[head.id] = head.lane
        lane.turn = queue.turn + 1 / _weight(head)
        if lane.next:
            heapq.heappush(waiting, (lane.turn, place))
    return chosen


def _weight(head: Head) -> float:
    weight = head.lane_weight or 1.0
    # Plain SQL may have written another one: that counts as 1.
    return weight if options.WEIGHT_LEAST <= weight <= options.WEIGHT_MAX else 1.0


def _take(lane: Lane) -> Head:
    head = lane.allowed[lane.taken]
    lane.taken += 1
    return head
