"""Operations on schedules, by the rules of the command line."""

from collections.abc import Callable, Iterator
from typing import Any

from starlette.responses import Response

from jobqueue.job import Job
from jobqueue.queue import JobQueue
from jobqueue.redaction import Redaction
from jobqueue.web.api.operation import Asked, Operation
from jobqueue.web.api.schemas import array, ref
from jobqueue.web.responses import json_response

SWITCHES: dict[str, str] = {
    "pause": "what was changed: it makes no more jobs",
    "resume": "what was changed",
    "reset": "what was changed: it is as the code declares it",
    "remove": "what was changed: it is deleted, its jobs stay",
}


class ScheduleOperations:
    """What can be done with the schedules of one queue. `written` gives a job that was made."""

    def __init__(
        self,
        queue: JobQueue,
        redaction: Redaction,
        written: Callable[[Job[Any]], dict[str, Any]],
    ) -> None:
        self._schedules = queue.schedules
        self._redaction = redaction
        self._written = written

    def operations(self) -> Iterator[Operation]:
        """Yield them."""
        yield Operation(
            "list_schedules",
            "GET",
            "/api/schedules",
            "what `jobqueue schedules --json` prints",
            self._list,
            array(ref("Schedule")),
        )
        for verb, summary in SWITCHES.items():
            yield Operation(
                f"{verb}_schedule",
                "POST",
                f"/api/schedules/{{name}}/{verb}",
                summary,
                getattr(self, f"_{verb}"),
                ref("Changed"),
                refusals=(404,),
                verb=verb,
            )
        yield Operation(
            "run_schedule",
            "POST",
            "/api/schedules/{name}/run",
            "the enqueued job",
            self._run,
            ref("EnqueuedJob"),
            status=202,
            refusals=(404, 503),
            verb="run",
        )

    def _list(self, _asked: Asked) -> list[dict[str, Any]]:
        return [self._redaction.schedule(each.to_json()) for each in self._schedules]

    def _pause(self, asked: Asked) -> dict[str, int]:
        return _changed(self._schedules.of(asked.by).pause(asked.given["name"], by=asked.by))

    def _resume(self, asked: Asked) -> dict[str, int]:
        return _changed(self._schedules.of(asked.by).resume(asked.given["name"]))

    def _reset(self, asked: Asked) -> dict[str, int]:
        return _changed(self._schedules.of(asked.by).reset(asked.given["name"]))

    def _remove(self, asked: Asked) -> dict[str, int]:
        self._schedules.of(asked.by).remove(asked.given["name"])
        return _changed(True)

    def _run(self, asked: Asked) -> Response:
        """Enqueue the job of a schedule now."""
        job = self._schedules.of(asked.by).run(asked.given["name"])
        return json_response(self._written(job), 202, asked.location(f"/api/jobs/{job.id}"))


def _changed(changed: bool) -> dict[str, int]:  # noqa: FBT001 - what a verb returns.
    return {"changed": int(changed)}
