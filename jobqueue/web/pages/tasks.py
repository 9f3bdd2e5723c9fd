"""Tasks: how long they wait and take, what of them fails, and which no worker knows."""

from functools import partial
from typing import Any

from jobqueue.known_names import all_names, known_name
from jobqueue.overview import HOUR
from jobqueue.queue import JobQueue
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_figures import TASKS_MAX
from jobqueue.store.schema import PauseKind
from jobqueue.store.stats import Monitor
from jobqueue.web.pages.view import Done, Query


def tasks_page(queue: JobQueue, _query: Query) -> tuple[str, dict[str, Any]]:
    """Show all tasks."""
    monitor = Monitor(queue.store)
    lately = {row["task"]: row for row in monitor.recent_tasks(HOUR)}
    none = dict.fromkeys(("p50_duration", "p95_duration", "p50_wait", "p95_wait"))
    rows = [
        row | {f"hour_{name}": lately.get(row["task"], none)[name] for name in none}
        for row in monitor.tasks()
    ]
    pauses = {(row["kind"], row["name"]): row["paused_by"] for row in monitor.pauses()}
    return "tasks.html", {
        "tasks": rows,
        "waiting_max": TASKS_MAX,
        "paused_by": {name: by for (kind, name), by in pauses.items() if kind == PauseKind.TASK},
        "tags": {name: by for (kind, name), by in pauses.items() if kind == PauseKind.TAG},
    }


def switch(kind: PauseKind, verb: str, queue: JobQueue, form: Query, actor: str) -> Done:
    """Pause or resume a queue, a task or a tag."""
    name = known_name(kind, form["name"], partial(all_names, queue.registry, queue.store))
    changed = getattr(Pauses(queue.store, actor), verb)(kind, name)
    queue.wake_workers()
    return Done(f"{kind.capitalize()} {name} {'is' if changed else 'was already'} {verb}d.")
