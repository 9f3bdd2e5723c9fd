"""A worker's connections to the database: which there are, and who may use them when."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock

from sqlalchemy import URL

from jobqueue.loggers import get_logger
from jobqueue.store.claims import WorkerRef
from jobqueue.store.database import Store
from jobqueue.store.leases import Leases
from jobqueue.store.pool import IDLE, Patience

log = get_logger("jobqueue.worker")

LINE_CONNECTIONS = 2
"""Connections for claims and outcomes, so that neither waits for the other, and for upkeep."""
LINE_CONNECTIONS_IN_FILE = 6  # An open file costs nobody else anything.
TURN_TIMEOUT = 0.25  # seconds to wait for one connection before another one is used


class Connections:
    """The stores of a worker, all on one database.

    On a server there are, beside the listener's connection: one of the heartbeat's, which is kept,
    and two for the line and upkeep. While no job is in hand, one of those does for all: who needs
    it waits a while for who has it, and the other one, unused, is closed. Upkeep takes turns too,
    and fails rather than wait long for somebody's lock, so that one is left for outcomes. What
    handlers open comes on top, and has a bound of its own.
    """

    def __init__(
        self,
        url: str | URL,
        handlers: Store | None,
        *,
        at_work: Callable[[], bool],
        gives_up: Callable[[], bool],
    ) -> None:
        self._at_work = at_work
        self._turn = Lock()
        self._given = handlers is not None
        self.patience = Patience(math.inf, gives_up)
        self.handlers = Store(url) if handlers is None else handlers
        """For what handlers do by themselves."""
        self.pulse = Store(url, connections=1, patience=self.patience, idle=math.inf)
        """For the heartbeat: no claim and no upkeep can hold it up, and no full server."""
        self.line = Store(
            url,
            named=handlers is None or handlers.named,
            connections=LINE_CONNECTIONS_IN_FILE
            if self.pulse.backend.single_writer
            else LINE_CONNECTIONS,
            patience=self.patience,
            idle=IDLE,
        )
        """For claims and outcomes."""
        self.upkeep = self.line
        if not self.line.backend.single_writer:  # There writers take turns already.
            self.upkeep = self.line.through(self._in_turn)

    def close(self) -> None:
        """Close them; those that handlers use are the program's, unless they were made here."""
        self.line.close()
        self.pulse.close()
        if not self._given:
            self.handlers.close()

    def leave(self, worker: WorkerRef | None) -> None:
        """Give the worker's lease back, if it has one, and close them."""
        if worker is not None:
            try:
                Leases(self.pulse).deregister(worker.id)
            except Exception as error:  # noqa: BLE001 - a lease that is not given back runs out.
                log.warning("the lease could not be given back: %s", type(error).__name__)
        self.close()

    def claiming(self) -> AbstractContextManager[None]:
        """To be held while the claimer uses the line's connections."""
        return nullcontext() if self._at_work() else self._in_turn()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        # Not for ever: the holder may be waiting for another client's lock on a table.
        taken = self._turn.acquire(timeout=TURN_TIMEOUT)
        try:
            yield
        finally:
            if taken:
                self._turn.release()
