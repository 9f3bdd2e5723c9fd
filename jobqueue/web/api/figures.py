"""Operations that read: queues, workers, statistics, errors, findings, and what operators did."""

from collections.abc import Iterator, Sequence
from typing import Any

from starlette.responses import Response

from jobqueue import wire
from jobqueue.queue import JobQueue
from jobqueue.store.audit import Audit
from jobqueue.store.doctor import examine
from jobqueue.store.error_groups import GROUPS_MAX, WINDOWS, ErrorGroups
from jobqueue.store.stats import MINUTES as MINUTES_SHOWN
from jobqueue.store.stats import Monitor
from jobqueue.task_list import task_rows
from jobqueue.tasks import Registry
from jobqueue.web.api.jobs import BEFORE, LIMIT, SINCE
from jobqueue.web.api.operation import Asked, Operation, Parameter
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


class FigureOperations:
    """What can be read of one queue, beside its jobs."""

    def __init__(self, queue: JobQueue, registry: Registry, open_names: Sequence[str]) -> None:
        self._store = queue.store
        self._monitor = Monitor(queue.store)
        self._registry = registry
        self._open_names = open_names

    def operations(self) -> Iterator[Operation]:
        """Yield them."""
        yield Operation(
            "list_queues",
            "GET",
            "/api/queues",
            "what `jobqueue queues --json` prints",
            lambda _: self._monitor.bounded_queues(),
            array(ref("Queue")),
        )
        yield Operation(
            "list_tasks",
            "GET",
            "/api/tasks",
            "what `jobqueue tasks --json` prints: figures, and the arguments as JSON Schema",
            lambda _: task_rows(self._monitor, self._registry if len(self._registry) else None),
            array(ref("Task")),
        )
        yield Operation(
            "list_workers",
            "GET",
            "/api/workers",
            "what `jobqueue workers --json` prints",
            lambda _: self._monitor.workers_json(),
            array(ref("Worker")),
        )
        yield Operation(
            "get_stats",
            "GET",
            "/api/stats",
            "what `jobqueue stats --json` prints; `?minutes=60` is its history",
            lambda asked: self._monitor.stats(asked.whole(MINUTES)),
            ref("Stats"),
            (MINUTES,),
        )
        yield from self._findings()

    def _findings(self) -> Iterator[Operation]:
        yield Operation(
            "list_errors",
            "GET",
            "/api/errors",
            "what `jobqueue errors --json` prints: errors by task, type and place, the most "
            "frequent first",
            self._errors,
            array(ref("ErrorGroup")),
            ERRORS,
        )
        yield Operation(
            "examine",
            "GET",
            "/api/doctor",
            "what `jobqueue doctor --json` prints, and whether other hosts may do everything here "
            "without a token",
            lambda _: examine(self._store, self._open_names).to_json(),
            ref("Diagnosis"),
        )
        yield Operation(
            "list_actions",
            "GET",
            "/api/log",
            "what `jobqueue log --json` prints: the actions of operators, newest first, in pages "
            "as of jobs",
            self._log,
            array(ref("Action")),
            (SINCE, LIMIT, BEFORE),
        )

    def _errors(self, asked: Asked) -> list[dict[str, Any]]:
        since, task, limit = ERRORS
        of_task = wire.a_filter(None, asked.given.get(task.name), None, None).task
        window = asked.given.get(since.name, since.schema["default"])
        groups = ErrorGroups(self._store).find(window, of_task, asked.whole(limit))
        return [group.to_json() for group in groups]

    def _log(self, asked: Asked) -> Response:
        since, limit = wire.since(asked.given.get(SINCE.name)), asked.whole(LIMIT)
        found = Audit(self._store).find(limit + 1, since, asked.whole(BEFORE))
        rows = found[:limit]
        more = len(found) > limit
        return json_response(rows, headers=asked.next_page(before=rows[-1]["id"]) if more else {})
