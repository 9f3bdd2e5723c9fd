"""Tasks: how long they wait and take, what of them fails, and which no worker knows."""

from typing import Any

from jobqueue.queue import JobQueue
from jobqueue.store.stats import Monitor
from jobqueue.web.pages.now import HOUR
from jobqueue.web.pages.view import Query

WAITING_MAX = 50_000
"""Waiting jobs of each state that are counted by task: no index has the task."""


def tasks_page(queue: JobQueue, _query: Query) -> tuple[str, dict[str, Any]]:
    """Show all tasks."""
    monitor = Monitor(queue.store)
    lately = {row["task"]: row for row in monitor.recent_tasks(HOUR)}
    none = dict.fromkeys(("p95_duration", "p95_wait", "processed"))
    rows = [
        row | {f"hour_{name}": lately.get(row["task"], none)[name] for name in none}
        for row in monitor.tasks(WAITING_MAX)
    ]
    return "tasks.html", {"tasks": rows, "waiting_max": WAITING_MAX}
