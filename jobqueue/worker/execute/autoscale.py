"""The scaler: grows and shrinks the slots by what it measures; the policy is in `scaling`."""

import time
from collections.abc import Callable

from jobqueue.loggers import get_logger
from jobqueue.worker.execute.scaling import Load, ScalingRules, decide
from jobqueue.worker.execute.thread_pool import Slots
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.service import Service

log = get_logger("jobqueue.worker")

LOOK = 1.0  # seconds between looks, at most


class Scaler(Service):
    """Asks the policy, and does what it says."""

    def __init__(
        self,
        inflight: InFlight,
        slots: Slots,
        rules: ScalingRules,
        *,
        waiting: Callable[[int], int],
        changed: Callable[[], None],
    ) -> None:
        super().__init__("scaler")
        self._inflight = inflight
        self._slots = slots
        self._rules = rules
        self._waiting = waiting
        self._changed = changed
        self._changed_at = float("-inf")
        self._looked = (time.monotonic(), inflight.busy_seconds())
        self._look = min(LOOK, rules.up_cooldown / 2 or LOOK, rules.down_cooldown / 2 or LOOK)

    def tick(self) -> float:
        """One look at the time since the last one."""
        inflight = self._inflight
        present, busy = time.monotonic(), inflight.busy_seconds()
        then, before = self._looked
        if present - then < self._look / 2:  # Too short to be an average.
            return self._look
        self._looked = (present, busy)
        size = inflight.concurrency
        waiting = inflight.inbox.qsize()
        if waiting < size:
            waiting += self._waiting(size - waiting)
        load = Load(size, (busy - before) / (present - then), waiting)
        decision = decide(self._rules, load, since_change=present - self._changed_at)
        if decision.size != size:
            said = {"event": "scaled", "slots": decision.size}
            log.info("slots: %d -> %d: %s", size, decision.size, decision.reason, extra=said)
            self._changed_at = present
            self._slots.resize(decision.size)
            if decision.size > size:
                self._changed()
        return self._look
