"""The claimer: takes jobs out of the database, on a connection of its own."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from jobqueue.store.database import Store
from jobqueue.worker.claim.planner import Intake
from jobqueue.worker.service import Service


class Claimer(Service):
    """Claims jobs, on a connection that the completer does not need. Takes it within `turn()`."""

    def __init__(
        self, store: Store, intake: Intake, turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__("claimer")
        self._store = store
        self._intake = intake
        self._turn = turn

    def tick(self) -> float:
        """Claim as much as there is room for."""
        with self._turn():
            self._claim()
        return self._intake.rest()

    def _claim(self) -> None:
        intake = self._intake
        intake.began = time.monotonic()
        intake.reconcile()
        intake.give_back_hoard()
        wanted = intake.wanted()
        if wanted and not intake.guess(wanted) and intake.look():
            with self._store.write() as connection:
                claims = intake.claim(connection, wanted)
            intake.hand_out(claims)
