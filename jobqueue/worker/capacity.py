"""How many more claims a worker can start: its threads, and its async jobs beside them."""

import time

from jobqueue.store.dialects.base import Backend

Key = tuple[int, int]
"""(id, fence) of a claim: after a lost lease, two attempts of one job may be here."""

MEAN_WEIGHT = 0.05
"""Weight of one job in the moving average of durations."""
ALL_ASYNC = 0.99
"""The share of async jobs from which on all are taken for async."""
ASYNC_SHARE_WEIGHT = 0.5
"""Weight of one batch in the moving average of the share of async jobs."""


class AsyncCapacity:
    """How many async jobs may run at once, how many do, and how many of the claimed jobs are."""

    def __init__(self) -> None:
        self.limit = 0
        """The most async jobs that run at once; 0 while no task is async."""
        self.open: set[Key] = set()
        """Claims on the event loop that have no outcome yet."""
        self.share = 0.0
        """The share of async jobs among those claimed lately, 0 … 1."""

    def enable(self, limit: int, share: float | None = None) -> None:
        """Allow `limit` async jobs; `share` is the first guess of their share."""
        self.limit = limit
        if share is not None:
            self.share = share

    def free(self) -> int:
        """How many more async jobs could start at once; below 0: that many wait."""
        return self.limit - len(self.open)

    def room(self, thread_room: int, probe: int) -> int:
        """Return how many jobs to claim, where any may turn out to be async.

        A claim is for whatever comes next in its queue. Ask for as many that, by the share of late,
        those for threads just fill `thread_room`; or for `probe` of those where no thread is free.
        """
        room_for_all = max(0, thread_room + self.free())
        if self.share >= ALL_ASYNC:
            return room_for_all
        thread_share = 1 - self.share
        return min(room_for_all, int(max(thread_room, probe) / thread_share))

    def observe(self, asynchronous: int, claimed: int) -> None:
        """Learn from a batch how many of its claims were async."""
        self.share += (asynchronous / claimed - self.share) * ASYNC_SHARE_WEIGHT


class Capacity:
    """The threads of a worker, and which claims fill them."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        """How many jobs run at once in threads."""
        self.asynchronous = AsyncCapacity()
        self.open: set[Key] = set()
        """Claims that were dispatched to threads and have no outcome yet."""
        self.last_start = time.monotonic()
        """Since when no thread has moved that had something to start."""
        self.mean_duration: float | None = None
        """Seconds that a job fills a thread, a moving average; None before the first."""

    def free_slot(self, key: Key) -> None:
        """Count a dispatched claim no longer: it has an outcome, or was released."""
        self.open.discard(key)
        if self.asynchronous.open:
            self.asynchronous.open.discard(key)

    def free(self) -> int:
        """How many more claims could start at once in threads."""
        return max(0, self.threads - len(self.open))

    def free_for_any(self) -> int:
        """How many more claims could start at once, whatever their tasks turn out to be."""
        free = self.free()
        return min(free, max(0, self.asynchronous.free())) if self.asynchronous.limit else free

    def finished(self, duration: float) -> None:
        """Learn from the seconds that a job filled a thread."""
        mean = self.mean_duration
        self.mean_duration = duration if mean is None else mean + (duration - mean) * MEAN_WEIGHT

    def stalled(self, seconds: float) -> None:
        """Learn that every thread has been busy for `seconds`: jobs take at least that long."""
        self.mean_duration = max(self.mean_duration or 0.0, seconds)


class Contention:
    """Who else writes to the database, as far as this worker has seen."""

    def __init__(self) -> None:
        self.only_worker = True
        """No other worker is known to share the database."""
        self.foreign_writer_seen = False
        """A writer that does not take our write lock was met lately."""

    def batch_max(self, backend: Backend) -> int:
        """Return the rows per transaction: fewer where others wait for its end."""
        alone = self.only_worker and not self.foreign_writer_seen
        return backend.batch_max if alone else backend.batch_max_shared
