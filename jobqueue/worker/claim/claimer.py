"""The claimer: takes jobs out of the database, on a connection of its own."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy.exc import DBAPIError

from jobqueue.store.database import Store
from jobqueue.worker.claim.planner import ClaimPlanner
from jobqueue.worker.service_thread import Service


class Claimer(Service):
    """Claims jobs, on a connection that the completer does not need. Takes it within `turn()`."""

    def __init__(
        self, store: Store, planner: ClaimPlanner, turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__("claimer")
        self._store = store
        self._planner = planner
        self._turn = turn

    def tick(self) -> float:
        """Claim as much as there is room for."""
        with self._turn():
            try:
                self._claim()
            except DBAPIError as error:
                if not self._planner.lanes.skip(error):
                    raise
                return 0.0  # Without lanes.
        return self._planner.delay()

    def _claim(self) -> None:
        planner = self._planner
        planner.began = time.monotonic()
        planner.reconcile()
        planner.release_stale_prefetch()
        wanted = planner.wanted()
        if wanted and not planner.claim_announced(wanted) and planner.refresh():
            with self._store.write() as connection:
                planner.claim(connection, wanted)
            planner.dispatch()
        elif not wanted:
            planner.unpark_lanes()
