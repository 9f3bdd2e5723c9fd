"""The pruner: deletes old final jobs and old actions, and compacts old counters."""

from jobqueue.states import State
from jobqueue.store.maintenance import BATCH, Maintenance
from jobqueue.worker.service_thread import Service

PRUNE_INTERVAL = 60.0
COMPACTED_MANY = 1000  # compacted rows from which the next round follows at once


class Pruner(Service):
    """Deletes old final jobs and actions, and compacts old counters, one batch at a time."""

    def __init__(self, maintenance: Maintenance, keep: dict[State, float | None]) -> None:
        super().__init__("pruner")
        self._maintenance = maintenance
        self._keep = keep

    def tick(self) -> float:
        """Prune one batch per state, and compact; repeat soon while batches are full."""
        full = False
        for state, keep in self._keep.items():
            if keep is not None:
                full |= self._maintenance.prune(state, keep) >= BATCH
        self._maintenance.forget_actions()
        full |= self._maintenance.compact() >= COMPACTED_MANY
        return 0.05 if full else PRUNE_INTERVAL
