"""The completer: writes outcomes to the database, on a connection of its own."""

from collections.abc import Callable

from jobqueue.store.database import Store
from jobqueue.worker.complete.outcome_writer import OutcomeWriter
from jobqueue.worker.service_thread import Service

GATHER = 0.002  # seconds in which other jobs of lanes may end, as they began together


class Completer(Service):
    """Writes outcomes. What arrives during one commit is the next batch.

    No timer, but where other jobs of lanes run here: each claim after a completion locks their key,
    so that few large ones keep its places fuller than many small ones.
    """

    def __init__(self, store: Store, writer: OutcomeWriter, settled: Callable[[], None]) -> None:
        super().__init__("completer")
        self._store = store
        self._writer = writer
        self._settled = settled

    def tick(self) -> float | None:
        """Write one batch."""
        if not self._writer.gather():
            return 0.5
        if self._writer.are_few_of_lanes():
            self._stopping.wait(GATHER)
            self._writer.gather()
        try:
            with self._store.write() as connection:
                self._writer.write(connection)
        except Exception as error:
            if self._writer.is_data_error(error):
                self._writer.one_by_one()
                return 0
            self._writer.inflight.round_failed()
            raise
        self._writer.acknowledge()
        self._settled()  # The claimer may have been waiting for the outbox to get shorter.
        return 0
