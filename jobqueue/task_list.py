"""The tasks of an app and of its database, with their figures, for command line and API."""

from typing import Any

from jobqueue.redaction import shown_signature
from jobqueue.serialization.argument_schemas import arguments_schema
from jobqueue.states import FINAL
from jobqueue.store.stats import Monitor
from jobqueue.tasks import Registry, Task


def task_rows(monitor: Monitor, registry: Registry | None) -> list[dict[str, Any]]:
    """Return a row for each task, by name, as JSON values.

    `registered` says whether the app has it; None, without an app. `signature` and `arguments`, a
    JSON Schema of all arguments by name, are None for a task that the app does not have.
    """
    known = {row["task"]: row for row in monitor.tasks()}
    known_by = monitor.known_by()
    tasks = {} if registry is None else dict(registry)
    return [
        (known.get(name) or _unseen(name, known_by[name]))
        | {"registered": None if registry is None else name in tasks}
        | _of_app(tasks.get(name))
        for name in sorted(known.keys() | tasks.keys())
    ]


def _of_app(task: Task[..., Any] | None) -> dict[str, Any]:
    if task is None:
        return dict.fromkeys(("queue", "signature", "arguments"))
    return {
        "queue": task.settings.queue,
        "signature": str(shown_signature(task)),
        "arguments": arguments_schema(task.function, task.name),
    }


def _unseen(name: str, known_by: int) -> dict[str, Any]:
    counts = dict.fromkeys([*(state.value for state in FINAL), "errored_attempts"], 0)
    times = dict.fromkeys(["avg_duration", "max_duration", "avg_wait", "max_wait"])
    waiting = {"waiting": 0, "waiting_more": False}
    return {"task": name, **counts, **times, **waiting, "known_by": known_by, "paused": False}
