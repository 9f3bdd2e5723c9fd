"""The completer: writes outcomes to the database, on a connection of its own."""

from collections.abc import Callable

from jobqueue.store.database import Store
from jobqueue.worker.complete.outcome_writer import OutcomeWriter
from jobqueue.worker.service_thread import Service

GATHER = 0.002  # seconds in which other jobs of the same claim may end


class Completer(Service):
    """Writes outcomes. What arrives during one commit is the next batch.

    A round waits for `GATHER` only where jobs are in hand that one claim took from lanes together
    with these: the next claim locks their keys, and few large ones keep their places fuller.
    """

    def __init__(self, store: Store, writer: OutcomeWriter, settled: Callable[[], None]) -> None:
        super().__init__("completer")
        self._store = store
        self._writer = writer
        self._settled = settled

    def tick(self) -> float | None:
        """Write one batch."""
        gathered = self._writer.gather()
        if gathered and self._writer.may_gather_more():
            self._stopping.wait(GATHER)
            gathered = self._writer.gather()
        if not gathered:
            return 0.5
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
