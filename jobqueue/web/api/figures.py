"""Operations that read: queues, workers, statistics, errors, findings, and what operators did."""

from collections.abc import Sequence
from typing import Any

from jobqueue import text_parsing
from jobqueue.queue import JobQueue
from jobqueue.store.audit import Audit
from jobqueue.store.doctor import examine
from jobqueue.store.error_groups import GROUPS_MAX, WINDOWS, ErrorGroups
from jobqueue.store.stats import MINUTES as MINUTES_SHOWN
from jobqueue.store.stats import Monitor
from jobqueue.task_list import task_rows
from jobqueue.tasks import Registry
from jobqueue.web.api.jobs import BEFORE, LIMIT, SINCE
from jobqueue.web.api.operation import Asked, Operations, Parameter, get
from jobqueue.web.api.schemas import TEXT, array, one_of, ref
from jobqueue.web.responses import json_response

MINUTES = Parameter(
    "minutes",
    {"type": "integer", "minimum": 0, "maximum": 24 * 60, "default": MINUTES_SHOWN},
    "Of the history of all workers.",
)
ERRORS = (
    Parameter("since", one_of(*WINDOWS) | {"default": "7d"}, "How far back."),
    Parameter("task", TEXT, "Errors of this task."),
    Parameter("limit", LIMIT.schema | {"maximum": GROUPS_MAX}, LIMIT.description),
)


class FigureOperations(Operations):
    """What can be read of one queue, beside its jobs."""

    def __init__(self, queue: JobQueue, registry: Registry, open_names: Sequence[str]) -> None:
        self._store = queue.store
        self._monitor = Monitor(queue.store)
        self._registry = registry
        self._open_names = open_names

    @get("/api/queues", "what `jobqueue queues --json` prints", array(ref("Queue")))
    def _list_queues(self, _: Asked) -> Any:
        return self._monitor.bounded_queues()

    @get(
        "/api/tasks",
        "what `jobqueue tasks --json` prints: figures, and the arguments as JSON Schema",
        array(ref("Task")),
    )
    def _list_tasks(self, _: Asked) -> Any:
        return task_rows(self._monitor, self._registry if len(self._registry) else None)

    @get("/api/workers", "what `jobqueue workers --json` prints", array(ref("Worker")))
    def _list_workers(self, _: Asked) -> Any:
        return self._monitor.workers_json()

    @get(
        "/api/stats",
        "what `jobqueue stats --json` prints; `?minutes=60` is its history",
        ref("Stats"),
        parameters=(MINUTES,),
    )
    def _get_stats(self, asked: Asked) -> Any:
        return self._monitor.stats(asked.whole(MINUTES))

    @get(
        "/api/errors",
        "what `jobqueue errors --json` prints: errors by task, type and place, the most frequent "
        "first",
        array(ref("ErrorGroup")),
        parameters=ERRORS,
    )
    def _list_errors(self, asked: Asked) -> Any:
        since, task, limit = ERRORS
        of_task = text_parsing.a_filter(task=asked.given.get(task.name)).task
        window = asked.given.get(since.name, since.schema["default"])
        groups = ErrorGroups(self._store).find(window, of_task, asked.whole(limit))
        return [group.to_json() for group in groups]

    @get(
        "/api/doctor",
        "what `jobqueue doctor --json` prints, and whether other hosts may do everything here "
        "without a token",
        ref("Diagnosis"),
    )
    def _examine(self, _: Asked) -> Any:
        return examine(self._store, self._open_names).to_json()

    @get(
        "/api/log",
        "what `jobqueue log --json` prints: the actions of operators, newest first, in pages as of "
        "jobs",
        array(ref("Action")),
        parameters=(SINCE, LIMIT, BEFORE),
    )
    def _list_actions(self, asked: Asked) -> Any:
        since, limit = text_parsing.since(asked.given.get(SINCE.name)), asked.whole(LIMIT)
        found = Audit(self._store).find(limit + 1, since, asked.whole(BEFORE))
        rows = found[:limit]
        more = len(found) > limit
        return json_response(rows, headers=asked.next_page(before=rows[-1]["id"]) if more else {})
