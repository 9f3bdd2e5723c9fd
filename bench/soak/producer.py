"""The producer: enqueues a mix of jobs at a steady rate, and remembers what it got an answer for."""

import random
import threading
import time
from collections import Counter
from typing import Any

from bench.soak import tasks
from bench.soak.evidence import Enqueued, boottime
from jobqueue import JobQueueError

BACKLOG_MAX = 400
"""Live jobs beyond which it waits: the soak is about faults, not about load."""
KEYS = 12


class Producer(threading.Thread):
    """A thread, so that what it knows is not lost by any of the faults."""

    def __init__(self, rate: float, seed: str) -> None:
        super().__init__(name="producer", daemon=True)
        self._rng = random.Random(seed)
        self._rate = rate
        self._ended = threading.Event()
        self.enough = threading.Event()
        """Set by who counts the backlog."""
        self.enqueued: list[Enqueued] = []
        self.existing = 0
        self.refused: Counter[str] = Counter()
        self.answered_at = boottime()

    def run(self) -> None:
        number = 0
        due = time.monotonic()
        while not self._ended.is_set():
            if self.enough.is_set():
                due = time.monotonic()
                self.answered_at = boottime()
                self._ended.wait(0.1)
                continue
            number += 1
            self._enqueue(number)
            due = max(due + 1 / self._rate, time.monotonic() - 1)
            self._ended.wait(max(0.0, due - time.monotonic()))

    def _enqueue(self, number: int) -> None:
        task, argument = self._draw()
        try:
            job = task.enqueue(number, argument)
        except JobQueueError as error:
            self.refused[type(error).__name__] += 1
            self._ended.wait(0.1)
            return
        except Exception as error:  # The driver's own errors are counted, and shown at the end.
            self.refused[f"{type(error).__module__}.{type(error).__name__}"] += 1
            self._ended.wait(0.1)
            return
        self.answered_at = boottime()
        if job.created:
            self.enqueued.append(Enqueued(number, job.id, task.name, self.answered_at))
        else:
            self.existing += 1

    def _draw(self) -> tuple[Any, Any]:
        rng = self._rng
        quick, slow = rng.uniform(0, 0.02), rng.uniform(0.1, rng.choice((0.5, 1, 3)))
        finished = {"unique_key": f"finished-{rng.randrange(KEYS)}"}
        started = {"unique_key": f"started-{rng.randrange(KEYS)}", "unique_until": "started"}
        mix = {
            "quick": (35, lambda: (tasks.work, quick)),
            "slow": (14, lambda: (tasks.work, slow)),
            "longer than a lease": (1, lambda: (tasks.work, rng.uniform(4, 7))),
            "one attempt": (10, lambda: (tasks.once, slow)),
            "errors": (8, lambda: (tasks.flaky, rng.randint(1, 2))),
            "own process": (4, lambda: (tasks.apart, slow)),
            "own effect": (8, lambda: (tasks.pay, rng.choice((quick, slow)))),
            "async": (8, lambda: (tasks.fetch, slow)),
            "key until finished": (4, lambda: (tasks.work.options(**finished), slow)),
            "key until started": (4, lambda: (tasks.work.options(**started), slow)),
            "delayed": (4, lambda: (tasks.work.options(delay=rng.uniform(0.2, 5)), quick)),
        }
        shares = [share for share, _ in mix.values()]
        return rng.choices([make for _, make in mix.values()], shares)[0]()

    def stop(self) -> None:
        self._ended.set()
        self.join(60)
