"""The jobs table and notifier in a test, where no worker runs jobs meanwhile."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from jobqueue.errors import ResultTimeout
from jobqueue.new_jobs import Inserted, NewJob
from jobqueue.states import FINAL, State
from jobqueue.store.jobs import Jobs
from jobqueue.store.notify.notifier import NotificationSender, Notifier
from jobqueue.store.testing import BorrowingStore, has_worker
from jobqueue.testing.inline_worker import NAME
from jobqueue.worker.handler.context import running_attempt

WORKER_WAIT_MAX = 10.0
"""Seconds to wait for a result without a worker: one may be starting."""


class WorkerlessJobs(Jobs):
    """The jobs table in a test: waits that only a worker could end raise instead."""

    def __init__(self, store: BorrowingStore) -> None:
        super().__init__(store)
        self._workerless_since: float | None = None

    def insert(
        self,
        new: Sequence[NewJob],
        connection: Any = None,
        *,
        wait: bool = True,  # noqa: ARG002
        notifier: Notifier | None = None,
    ) -> list[Inserted]:
        """See `Jobs.insert`. A full queue raises QueueFull at once, also with when_full="wait"."""
        return super().insert(new, connection, wait=False, notifier=notifier)

    def states(self, ids: Sequence[int]) -> dict[int, State]:
        """See `Jobs.states`. Raises ResultTimeout if no worker runs the jobs."""
        found = super().states(ids)
        ended = all(state in FINAL for state in found.values())
        if ended or has_worker(self.store, besides=NAME):
            self._workerless_since = None
            return found
        present = time.monotonic()
        self._workerless_since = self._workerless_since or present
        if running_attempt() is not None or present - self._workerless_since >= WORKER_WAIT_MAX:
            self._workerless_since = None
            raise ResultTimeout(
                f"job {ids[0]} waits, and nothing runs it meanwhile in this test: call run(job) or "
                "drain() first, use inline(), or start a worker"
            )
        return found


class ObservedNotifier(Notifier):
    """A notifier that a test hears too."""

    def __init__(self, sender: NotificationSender, heard: Callable[[], object]) -> None:
        super().__init__(sender)
        self._heard = heard

    def is_quiet(self) -> bool:
        """See `Notifier.is_quiet`: no listener can receive what an enqueue carries."""
        return False

    def notify(self) -> None:
        """See `Notifier.notify`."""
        super().notify()
        self._heard()
