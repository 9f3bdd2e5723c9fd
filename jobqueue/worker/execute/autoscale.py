"""Autoscale: how many handler threads a worker should have, and the service that sees to it.

The policy is a pure function, so that it can be tested and simulated.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from jobqueue.worker.execute.thread_pool import ThreadPool
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import log
from jobqueue.worker.service_thread import Service
from jobqueue.worker.settings import WorkerSettings

CHECK_INTERVAL = 1.0  # seconds between two checks, at most


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


def decide(rules: WorkerSettings, load: Load, *, since_change: float) -> Decision:
    """Grow while jobs wait and the slots are busy; shrink while they are idle and none waits.

    Growth at most doubles and never outruns what waits. What is left after shrinking would still be
    less than `scale_up_at` busy, so that the next look does not undo it. `since_change` is the time
    since the number last changed, in seconds.
    """
    size, busy = load.size, load.busy
    least, most = rules.min_concurrency, rules.max_concurrency
    assert least is not None, "there is no scaler without bounds"
    assert most is not None, "they come in pairs"
    within = min(max(size, least), most)
    if within != size:
        return Decision(within, f"the bounds are {least} and {most}")
    share = busy / size
    if load.waiting and share >= rules.scale_up_at and size < most:
        if since_change < rules.scale_up_cooldown:
            return Decision(size, "")
        grown = min(most, size + max(1, min(size, load.waiting)))
        return Decision(grown, f"{share:.0%} busy, jobs waiting")
    if not load.waiting and share <= rules.scale_down_at and size > least:
        if since_change < rules.scale_down_cooldown:
            return Decision(size, "")
        middle = (rules.scale_up_at + rules.scale_down_at) / 2
        shrunk = max(least, math.ceil(busy / middle))
        if shrunk < size:
            return Decision(shrunk, f"{share:.0%} busy, none waiting")
    return Decision(size, "")


class Scaler(Service):
    """Asks the policy, and does what it says."""

    def __init__(
        self,
        inflight: InFlight,
        thread_pool: ThreadPool,
        rules: WorkerSettings,
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
        halves = (rules.scale_up_cooldown / 2, rules.scale_down_cooldown / 2)
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
