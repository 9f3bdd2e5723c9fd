"""The verbs that change jobs: one by its id, or many by ids or a filter, with a dry run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.responses import Response

from jobqueue import options, text_parsing
from jobqueue.bulk_verbs import (
    CANCEL,
    DELETE,
    RETRY,
    RETRY_ALL,
    DryRun,
    Verb,
    change_jobs,
    left_out,
    parts_of,
    require_state,
    updating,
)
from jobqueue.errors import invalid
from jobqueue.job_changes import JobChanges
from jobqueue.printable_text import not_one
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter
from jobqueue.redaction import ShownJobs
from jobqueue.store.job_pages import JobPages
from jobqueue.store.jobs import Jobs
from jobqueue.store.names import Names
from jobqueue.web.api.jobs import notice, searched
from jobqueue.web.api.operation import Asked, Operation
from jobqueue.web.api.schemas import (
    CALL_OPTIONS,
    FILTER,
    FLAG,
    JOB_ID,
    Schema,
    a_body,
    array,
    ref,
)
from jobqueue.web.requests import object_of
from jobqueue.web.responses import HTTPError, json_response

IDS_MAX = 10_000
ASK = '{"succeeded": true}'
"""How to ask for jobs that have succeeded."""
VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        CANCEL,
        replace(RETRY, act=partial(Jobs.retry, ask=ASK)),
        updating(JobChanges()),
        DELETE,
    )
}
CHANGES = a_body(**{name: CALL_OPTIONS[name] for name in JobChanges._fields})
OF_MANY: dict[str, Schema] = {
    "ids": array(JOB_ID) | {"maxItems": IDS_MAX},
    "filter": FILTER,
    "all": FLAG | {"description": "True: all jobs that the verb changes."},
    "dry_run": FLAG,
}
MORE: Mapping[str, dict[str, Schema]] = {"retry": {"succeeded": FLAG}, "update": {"set": CHANGES}}
"""What a verb takes beside the jobs that it is about."""
ONE = {
    "retry": f"what was changed; a job that has succeeded only with `{ASK}`",
    "delete": "what was deleted: the job, unless it runs, and its attempts",
}
MANY = {
    name: f'how many jobs were {verb.done}; `{{"dry_run": true}}` answers how many would be, '
    "and the newest ten, and changes none"
    for name, verb in VERBS.items()
}


class JobVerbs:
    """What changes jobs of one queue."""

    def __init__(self, queue: JobQueue, jobs: ShownJobs, names: Callable[[], Names]) -> None:
        self._wake = queue.wake_workers
        self._jobs = jobs
        self._pages = JobPages(jobs)
        self._names = names

    def operations(self) -> Iterator[Operation]:
        """Yield them."""
        for name in VERBS:
            body = CHANGES if name == "update" else a_body(**MORE.get(name, {}))
            yield Operation(
                f"{name}_job",
                "DELETE" if name == "delete" else "POST",
                "/api/jobs/{id}" if name == "delete" else f"/api/jobs/{{id}}/{name}",
                ONE.get(name, "what was changed"),
                partial(self._change_one, name),
                ref("Changes"),
                body=body if name in MORE else None,
                needs_body=name == "update",
                refusals=(404, 409),
                verb=name,
            )
        for name in VERBS:
            required = ("set",) if name == "update" else ()
            yield Operation(
                f"{name}_jobs",
                "POST",
                f"/api/jobs/{name}",
                MANY[name],
                partial(self._change_many, name),
                {"anyOf": [ref("Changes"), ref("DryRun")]},
                body=a_body(*required, **OF_MANY, **MORE.get(name, {})),
                verb=name,
                is_bulk=True,
                notes=True,
            )

    def _change_one(self, name: str, asked: Asked) -> dict[str, Any]:
        """Change a job. One that needs no change is right, one in another state a conflict."""
        id_ = text_parsing.job_id(asked.given["id"])
        given = object_of(asked.body, *MORE.get(name, {})) if name == "retry" else {}
        new = object_of(asked.body, *JobChanges._fields) if name == "update" else {}
        verb, wanted = _verb(name, given, new), JobFilter(ids=(id_,))
        done = change_jobs(verb, self._jobs, wanted, asked.by, self._wake)
        answer = done.to_json()
        for refusal in done.refused:
            status = 404 if refusal.state is None else 409
            raise HTTPError(
                status, f"job {id_}: {refusal.reason}", field="id", value=id_, more=answer
            )
        return answer

    def _change_many(self, name: str, asked: Asked) -> Response:
        """Change jobs by their ids, or all that match a filter; or count them, with a sample."""
        given = object_of(asked.body, *OF_MANY, *MORE.get(name, {}))
        verb, wanted = _verb(name, given, given.get("set", {})), self._wanted(given)
        left = {}
        if wanted.ids is None:
            count = left_out(verb, self._jobs, wanted, ASK)
            left = {"left_out": count} if count else {}
        require_state(verb, wanted)
        if options.flag(given.get("dry_run", False), "dry_run"):
            found = DryRun.of(self._jobs, parts_of(wanted), verb.states)
            return json_response(found.to_json() | left)
        done = change_jobs(verb, self._jobs, wanted, asked.by, self._wake)
        headers = {} if done.changed else notice(wanted, self._names)
        return json_response(done.to_json() | left, headers=headers)

    def _wanted(self, given: Mapping[str, Any]) -> JobFilter:
        """Take exactly one of ids, a filter and all. Raises HTTPError or InvalidOption."""
        named = [name for name in ("ids", "filter", "all") if given.get(name) is not None]
        if len(named) != 1:
            said = 'give {"ids": […]}, or {"filter": {…}}, or {"all": true}: one of the three'
            raise invalid("ids", said)
        if named == ["ids"]:
            return JobFilter(ids=_ids_of(given["ids"]))
        if named == ["all"]:
            if given["all"] is not True:
                raise invalid("all", "not true", given["all"])
            return JobFilter()
        return searched(_texts_of(given["filter"]), self._names, self._pages)


def _verb(name: str, given: Mapping[str, Any], new: Any) -> Verb:
    if name == "update":
        if not isinstance(new, dict):
            raise invalid("set", 'not an object like {"priority": 1}')
        return updating(JobChanges.of(new))
    again = options.flag(given.get("succeeded", False), "succeeded")
    return RETRY_ALL if again else VERBS[name]


def _ids_of(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or not given:
        raise invalid("ids", "not a list of ids, such as [7, 8]")
    if len(given) > IDS_MAX:
        message = f"ids: {len(given):,}; give at most {IDS_MAX:,} at once, or a filter"
        raise HTTPError(413, message, field="ids", value=len(given))
    checked = (options.whole(each, "ids", 1, JOB_ID["maximum"]) for each in given)
    return tuple(dict.fromkeys(checked))


def _texts_of(given: Any) -> dict[str, str]:
    known = FILTER["properties"]
    if not isinstance(given, dict) or not given:
        raise invalid("filter", f"not an object with some of {', '.join(known)}")
    for name, value in given.items():
        if name not in known:
            raise invalid("filter", not_one(name, "a key of it", known))
        if not isinstance(value, str) or not value.strip():
            raise invalid(name, "not a text", value)
    return given
