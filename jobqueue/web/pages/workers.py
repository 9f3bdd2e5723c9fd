"""Workers: who runs what, and whether a job is stuck."""

from typing import Any

from jobqueue.overview import worker_rows
from jobqueue.queue import JobQueue
from jobqueue.store.stats import MINUTES, Monitor
from jobqueue.web.pages.view import Query

SLOTS_SHOWN = 40
"""Slots of a worker that are drawn, one square each."""
STUCK_SHOWN = 20


def workers_page(queue: JobQueue, _query: Query) -> tuple[str, dict[str, Any]]:
    """Show all workers, with their slots and their longest job."""
    monitor = Monitor(queue.store)
    rows, used = worker_rows(monitor), monitor.utilisation(MINUTES)
    stuck = {job.id: job for row in rows for job in row["jobs"] if job.stuck}
    return "workers.html", {
        "workers": [_drawn(row) | {"used": used.get(row["worker"])} for row in rows],
        "minutes": MINUTES,
        "stuck": list(stuck.values())[:STUCK_SHOWN],
    }


def _drawn(row: dict[str, Any]) -> dict[str, Any]:
    """Return a worker with a square for each slot, and only its longest job."""
    more = max(0, len(row["slots"]) - SLOTS_SHOWN)
    return row | {"jobs": row["jobs"][:1], "slots": row["slots"][:SLOTS_SHOWN], "more": more}
