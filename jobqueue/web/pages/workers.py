"""Workers: who runs what, and whether a job is stuck."""

from collections import defaultdict
from datetime import datetime
from typing import Any, NamedTuple

from jobqueue.queue import JobQueue
from jobqueue.store.stats import Monitor
from jobqueue.web.pages.view import Query

RUNNING_MAX = 5000
"""Running jobs that are read."""
SLOTS_SHOWN = 40
"""Slots of a worker that are drawn, one square each."""
PATIENCE = 5.0
"""Seconds beyond its time, or after it was asked to stop, from which on a job is stuck."""


class Running(NamedTuple):
    """A job that runs."""

    id: int
    task: str
    seconds: float
    stuck: str
    """Why it is stuck; empty if it is not."""


def workers_page(queue: JobQueue, _query: Query) -> tuple[str, dict[str, Any]]:
    """Show all workers, with their slots and their longest job."""
    monitor = Monitor(queue.store)
    present = monitor.present()
    by_worker: dict[str, list[Running]] = defaultdict(list)
    for row in monitor.running(RUNNING_MAX):
        by_worker[row["worker"] or ""].append(_running(row, present))
    rows = []
    for row in monitor.workers():
        jobs = sorted(by_worker[row["worker"]], key=lambda job: -job.seconds)
        stuck = sum(bool(job.stuck) for job in jobs)
        free = max(0, row["concurrency"] - len(jobs))
        kinds = ["stuck"] * stuck + ["busy"] * (len(jobs) - stuck) + ["free"] * free
        rows.append(
            row
            | {
                "jobs": jobs[:1],
                "busy": len(jobs),
                "slots": kinds[:SLOTS_SHOWN],
                "more": max(0, len(kinds) - SLOTS_SHOWN),
                "alive": row["heartbeat_age_seconds"] <= row["lease"],
            }
        )
    stuck_jobs = [job for jobs in by_worker.values() for job in jobs if job.stuck]
    return "workers.html", {"workers": rows, "stuck": stuck_jobs[:20]}


def _running(row: dict[str, Any], present: datetime) -> Running:
    seconds = (present - row["started_at"]).total_seconds()
    stuck, asked = "", row["cancel_requested_at"]
    if row["timeout"] is not None and seconds > row["timeout"] + PATIENCE:
        stuck = "beyond its time"
    elif asked is not None and (present - asked).total_seconds() > PATIENCE:
        stuck = "asked to stop, and goes on"
    return Running(row["id"], row["task"], max(0.0, seconds), stuck)
