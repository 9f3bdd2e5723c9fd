"""Operations on schedules, by the rules of the command line."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from jobqueue import options
from jobqueue.errors import invalid
from jobqueue.job import Job
from jobqueue.json_calls import call_of_line
from jobqueue.redaction import Redaction
from jobqueue.schedules.api import DAY, DAYS_MAX, Schedules
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.schedules.timing import Timing, cron, every
from jobqueue.tasks import Registry
from jobqueue.web.api import schemas
from jobqueue.web.api.operation import Asked, Operations, Parameter, Work, get, post
from jobqueue.web.api.schemas import FLAG, TEXT, a_body, array, ref
from jobqueue.web.requests import object_of, required
from jobqueue.web.responses import json_response

DAYS = Parameter(
    "days",
    {"type": "integer", "minimum": 1, "maximum": DAYS_MAX, "default": 7},
    "How far ahead.",
)
RUNS = Parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "How many at most."
)
CALL = {key: schema for key, schema in schemas.CALL.items() if key not in ("delay", "at")}
BODY = a_body("name", "task", name=TEXT, **CALL, **schemas.TIMING, replace=FLAG)


def _switch(verb: str, summary: str) -> Callable[[Work], Work]:
    path = f"/api/schedules/{{name}}/{verb}"
    return post(path, f"what was changed{summary}", ref("Changed"), refusals=(404,), verb=verb)


@dataclass(eq=False)
class ScheduleOperations(Operations):
    """What can be done with the schedules of one queue."""

    _schedules: Schedules
    _redaction: Redaction
    _registry: Registry
    _written: Callable[[Job[Any]], dict[str, Any]]
    """Gives a job that was made."""

    @get("/api/schedules", "what `jobqueue schedules --json` prints", array(ref("Schedule")))
    def _list_schedules(self, _: Asked) -> list[dict[str, Any]]:
        return [self._shown(each) for each in self._schedules]

    @post(
        "/api/schedules",
        'the schedule; another one of that name is 400, or changed with `{"replace": true}`',
        ref("Schedule"),
        body=BODY,
        verb="add",
    )
    def _add_schedule(self, asked: Asked) -> dict[str, Any]:
        """Add a schedule: a call as for an enqueue, and when it runs."""
        given = object_of(asked.body, *BODY["properties"])
        name = options.name(required(given, "name"), "name")
        line = {key: given[key] for key in given if key in CALL}
        added = self._schedules.of(asked.by).add(
            name,
            call_of_line(self._registry, line, "body"),
            _timing(given),
            catch_up=given.get("catch_up", "latest"),
            overlap=given.get("overlap"),
            replace=options.flag(given.get("replace", False), "replace"),
        )
        return self._shown(added)

    @get("/api/schedules/{name}", "one schedule", ref("Schedule"), refusals=(404,))
    def _get_schedule(self, asked: Asked) -> dict[str, Any]:
        return self._shown(self._schedules.get(asked.given["name"]))

    @get(
        "/api/schedules/{name}/preview",
        "its next runs, and what clock changes do to them",
        array(ref("Run")),
        parameters=(DAYS, RUNS),
        refusals=(404,),
    )
    def _preview_schedule(self, asked: Asked) -> list[dict[str, Any]]:
        runs = self._schedules.preview(asked.given["name"], asked.whole(DAYS) * DAY)
        some = itertools.islice(runs, asked.whole(RUNS))
        return [{"at": run.at.isoformat(), "note": run.note} for run in some]

    @_switch("pause", ": it makes no more jobs")
    def _pause_schedule(self, asked: Asked) -> dict[str, int]:
        return _changed(self._schedules.of(asked.by).pause(asked.given["name"], by=asked.by))

    @_switch("resume", "")
    def _resume_schedule(self, asked: Asked) -> dict[str, int]:
        return _changed(self._schedules.of(asked.by).resume(asked.given["name"]))

    @_switch("reset", ": it is as the code declares it")
    def _reset_schedule(self, asked: Asked) -> dict[str, int]:
        return _changed(self._schedules.of(asked.by).reset(asked.given["name"]))

    @_switch("remove", ": it is deleted, its jobs stay")
    def _remove_schedule(self, asked: Asked) -> dict[str, int]:
        self._schedules.of(asked.by).remove(asked.given["name"])
        return _changed(True)

    @post(
        "/api/schedules/{name}/run",
        "the enqueued job",
        {"anyOf": [ref("EnqueuedJob"), ref("EnqueuedId")]},
        status=202,
        refusals=(404, 503),
        verb="run",
    )
    def _run_schedule(self, asked: Asked) -> Response:
        """Enqueue the job of a schedule now."""
        job = self._schedules.of(asked.by).run(asked.given["name"])
        return json_response(self._written(job), 202, asked.location(f"/api/jobs/{job.id}"))

    def _shown(self, schedule: ScheduleRecord) -> dict[str, Any]:
        return self._redaction.schedule(schedule.to_json())


def _changed(changed: bool) -> dict[str, int]:  # noqa: FBT001 - what a verb returns.
    return {"changed": int(changed)}


def _timing(given: Mapping[str, Any]) -> Timing:
    expression, interval, zone = (given.get(name) for name in ("cron", "every", "tz"))
    if (expression is None) == (interval is None):
        raise invalid("cron", 'give either "cron": "0 3 * * *" or "every": "5m"', expression)
    if interval is not None and zone is not None:
        raise invalid("tz", "only with cron; an interval counts in UTC", zone)
    if interval is not None:
        return every(seconds=options.seconds(interval, "every", least=1))
    return cron(given["cron"], tz="UTC" if zone is None else zone)
