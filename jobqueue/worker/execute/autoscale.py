"""Autoscale: how many handler threads a worker should have, and the service that sees to it.

The policy is a pure function, so that it can be tested and simulated.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jobqueue.worker.execute.thread_pool import ThreadPool
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import log
from jobqueue.worker.service import Service

CHECK_INTERVAL = 1.0  # seconds between two checks, at most


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """Bounds, thresholds and cooldowns. Times are seconds, thresholds shares of the slots."""

    least: int
    most: int
    up_at: float = 0.8
    down_at: float = 0.3
    up_cooldown: float = 5.0
    down_cooldown: float = 10.0


class Load(NamedTuple):
    """What the pool has seen since the last look."""

    size: int
    """Slots."""
    busy: float
    """How many of them ran a handler, on average."""
    waiting: int
    """Jobs that could begin at once if there were more slots; not counted beyond `size`."""


class Decision(NamedTuple):
    """How many slots there should be, and why; the reason is empty where nothing changes."""

    size: int
    reason: str


def decide(rules: ScalingRules, load: Load, *, since_change: float) -> Decision:
    """Grow while jobs wait and the slots are busy; shrink while they are idle and none waits.

    Growth at most doubles and never outruns what waits. What is left after shrinking would still be
    less than `up_at` busy, so that the next look does not undo it. `since_change` is the time since
    the number last changed, in seconds.
    """
    size, busy = load.size, load.busy
    within = min(max(size, rules.least), rules.most)
    if within != size:
        return Decision(within, f"the bounds are {rules.least} and {rules.most}")
    share = busy / size
    if load.waiting and share >= rules.up_at and size < rules.most:
        if since_change < rules.up_cooldown:
            return Decision(size, "")
        grown = min(rules.most, size + max(1, min(size, load.waiting)))
        return Decision(grown, f"{share:.0%} busy, jobs waiting")
    if not load.waiting and share <= rules.down_at and size > rules.least:
        if since_change < rules.down_cooldown:
            return Decision(size, "")
        middle = (rules.up_at + rules.down_at) / 2
        shrunk = max(rules.least, math.ceil(busy / middle))
        if shrunk < size:
            return Decision(shrunk, f"{share:.0%} busy, none waiting")
    return Decision(size, "")


class Scaler(Service):
    """Asks the policy, and does what it says."""

    def __init__(
        self,
        inflight: InFlight,
        thread_pool: ThreadPool,
        rules: ScalingRules,
        *,
        waiting: Callable[[int], int],
        changed: Callable[[], None],
    ) -> None:
        super().__init__("scaler")
        self._inflight = inflight
        self._thread_pool = thread_pool
        self._rules = rules
        self._waiting = waiting
        self._changed = changed
        self._changed_at = float("-inf")
        self._checked = (time.monotonic(), inflight.busy_seconds())
        halves = (rules.up_cooldown / 2, rules.down_cooldown / 2)
        self._interval = min(CHECK_INTERVAL, *filter(None, halves))

    def tick(self) -> float:
        """One look at the time since the last one."""
        inflight = self._inflight
        present, busy = time.monotonic(), inflight.busy_seconds()
        then, before = self._checked
        if present - then < self._interval / 2:  # Too short to be an average.
            return self._interval
        self._checked = (present, busy)
        size = inflight.capacity.threads
        waiting = inflight.inbox.qsize()
        if waiting < size:
            waiting += self._waiting(size - waiting)
        load = Load(size, (busy - before) / (present - then), waiting)
        decision = decide(self._rules, load, since_change=present - self._changed_at)
        if decision.size != size:
            said = {"event": "scaled", "slots": decision.size}
            log.info("slots: %d -> %d: %s", size, decision.size, decision.reason, extra=said)
            self._changed_at = present
            self._thread_pool.resize(decision.size)
            if decision.size > size:
                self._changed()
        return self._interval
