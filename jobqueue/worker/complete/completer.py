"""The completer: writes outcomes to the database, on a connection of its own."""

from collections.abc import Callable

from jobqueue.store.database import Store
from jobqueue.worker.complete.outcome_writer import Exit
from jobqueue.worker.service import Service


class Completer(Service):
    """Writes outcomes down. The commit under way is the batching window: no timer."""

    def __init__(self, store: Store, exit_: Exit, settled: Callable[[], None]) -> None:
        super().__init__("completer")
        self._store = store
        self._exit = exit_
        self._settled = settled

    def tick(self) -> float | None:
        """Write one batch."""
        batch = self._exit.gather()
        if not batch:
            return 0.5
        try:
            with self._store.write() as connection:
                states = self._exit.finish(connection, batch)
        except Exception as error:
            if self._exit.is_content(error):
                self._exit.one_by_one()
                return 0
            self._exit.inflight.round_failed()
            raise
        self._exit.settle(states)
        self._settled()  # The claimer may have been waiting for the outbox to get shorter.
        return 0
