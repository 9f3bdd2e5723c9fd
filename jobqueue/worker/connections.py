"""A worker's connections to the database: which there are, and what each is used for."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock

from jobqueue.store.claims import WorkerRef
from jobqueue.store.database import Store
from jobqueue.store.leases import Leases
from jobqueue.store.pool import IDLE_SECONDS, WaitPolicy
from jobqueue.worker.log_context import log

MAIN_CONNECTIONS = 2
"""Connections for claims and outcomes, so that neither waits for the other; upkeep shares them."""
MAIN_CONNECTIONS_IN_FILE = 6  # An open file takes nothing away from other clients.
TURN_SECONDS = 0.25  # seconds to wait for the shared connection before another one is used


class Connections:
    """The stores of a worker, all on one database.

    On a server a worker has, beside the listener's connection, one for the heartbeat, which stays
    open, and two for claims, outcomes and upkeep. While the worker is idle, its claimer and upkeep
    share one of the two (for up to TURN_SECONDS they wait for each other), and the unused one is
    closed. Upkeep always uses one at a time, with a short lock timeout, so that outcomes find the
    other free. Connections of handlers are extra, with their own maximum.
    """

    def __init__(
        self, handlers: Store, *, at_work: Callable[[], bool], gives_up: Callable[[], bool]
    ) -> None:
        self._at_work = at_work
        self._turn = Lock()
        self.wait_policy = WaitPolicy(math.inf, gives_up)
        self.handlers = handlers
        """For handlers that use the queue: the program's own, which it closes."""
        self.heartbeat = Store(
            handlers.url, connections=1, wait_policy=self.wait_policy, idle=math.inf
        )
        """For the heartbeat, which neither claims nor upkeep nor a full server can delay."""
        self.main = Store(
            handlers.url,
            named=handlers.named,
            connections=MAIN_CONNECTIONS_IN_FILE
            if self.heartbeat.backend.single_writer
            else MAIN_CONNECTIONS,
            wait_policy=self.wait_policy,
            idle=IDLE_SECONDS,
        )
        """For claims and outcomes."""
        self.upkeep = self.main
        if not self.main.backend.single_writer:  # SQLite has the write lock for that.
            self.upkeep = self.main.through(self._in_turn)

    def close(self) -> None:
        """Close the stores, but for that of the handlers."""
        self.main.close()
        self.heartbeat.close()

    def leave(self, worker: WorkerRef | None) -> None:
        """Delete the worker's lease, if it has one, and close the stores."""
        if worker is not None:
            try:
                Leases(self.heartbeat).deregister(worker.id)
            except Exception as error:  # noqa: BLE001 - a lease that is not deleted expires.
                log.warning("the lease could not be given back: %s", type(error).__name__)
        self.close()

    def claiming(self) -> AbstractContextManager[None]:
        """Return the context in which the claimer uses a connection."""
        return nullcontext() if self._at_work() else self._in_turn()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        # With a timeout: the holder may be waiting for another client's table lock.
        taken = self._turn.acquire(timeout=TURN_SECONDS)
        try:
            yield
        finally:
            if taken:
                self._turn.release()
