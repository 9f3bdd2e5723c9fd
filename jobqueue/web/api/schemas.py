"""The objects of the API as JSON Schemas: what `--json` prints, what requests send, and errors."""

from collections.abc import Iterable
from typing import Any, get_args

from jobqueue.literal_types import CatchUp, OnConflict, Overlap, UniqueUntil, WhyCode
from jobqueue.states import State

Schema = dict[str, Any]
"""A JSON Schema of the draft 2020-12, as in OpenAPI 3.1."""

ANYTHING: Schema = {}
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
INSTANT: Schema = {"type": "string", "format": "date-time"}
DURATION: Schema = {
    "type": ["number", "string"],
    "description": "Seconds, or a text such as `90s`, `5m`, `1h`, `7d`.",
    "examples": [90, "5m"],
}
ID_MAX = 2**63 - 1
JOB_ID: Schema = {"type": "integer", "minimum": 1, "maximum": ID_MAX}


def an_object(_optional: Iterable[str] = (), /, **properties: Schema) -> Schema:
    """Return the schema of an object that has all these, but for the optional ones."""
    required = [name for name in properties if name not in set(_optional)]
    more = {"required": required} if required else {}
    return {"type": "object", "properties": properties} | more


def a_body(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object that a request sends: no other keys are taken."""
    optional = set(properties) - set(required)
    return an_object(optional, **properties) | {"additionalProperties": False}


def array(of: Schema) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": of}


def one_of(*words: str) -> Schema:
    """Return the schema of a text that is one of these."""
    return {"type": "string", "enum": [*map(str, words)]}


def or_null(of: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    if "enum" not in of and isinstance(of.get("type"), str):
        return of | {"type": [of["type"], "null"]}
    return {"anyOf": [of, {"type": "null"}]}


def ref(name: str) -> Schema:
    """Return a reference to one of COMPONENTS."""
    return {"$ref": f"#/components/schemas/{name}"}


def _counts(*names: str) -> dict[str, Schema]:
    return dict.fromkeys(names, WHOLE)


def _nulls(of: Schema, *names: str) -> dict[str, Schema]:
    return dict.fromkeys(names, or_null(of))


_STATE = one_of(*State)
_FINAL = ("succeeded", "failed", "cancelled")
_NAMES = array(TEXT)
_HEADERS: Schema = {"type": "object", "additionalProperties": TEXT}
_ARGUMENTS = {
    "args": or_null(array(ANYTHING)),
    "kwargs": or_null({"type": "object"}),
}

_JOB = an_object(
    ["args_text"],
    id=JOB_ID,
    task=TEXT,
    queue=TEXT,
    state=_STATE,
    priority=WHOLE,
    **_ARGUMENTS,
    args_text=TEXT | {"description": "Only where the row has something else than arguments."},
    tags=_NAMES,
    attempt=WHOLE,
    max_attempts=WHOLE,
    run_at=INSTANT,
    created_at=INSTANT,
    **_nulls(INSTANT, "started_at", "finished_at", "deadline_at", "scheduled_for", "expires_at"),
    **_nulls(TEXT, "lane", "worker", "unique_key"),
    headers=or_null(_HEADERS),
    fence=WHOLE,
    timeout=or_null(NUMBER),
    progress=or_null(an_object(fraction=or_null(NUMBER), message=or_null(TEXT))),
    result=ANYTHING,
    error=or_null(an_object(type=TEXT, message=TEXT, at=or_null(INSTANT))),
    reason=or_null(TEXT),
    cancel_requested_at=or_null(INSTANT),
)
_ATTEMPT = an_object(
    attempt=WHOLE,
    fence=WHOLE,
    worker=or_null(TEXT),
    started_at=or_null(INSTANT),
    finished_at=or_null(INSTANT),
    outcome=TEXT,
    error=or_null(an_object(type=TEXT, message=TEXT, traceback=or_null(TEXT))),
    exit_signal=or_null(TEXT),
    peak_memory=or_null(WHOLE),
)
CALL_OPTIONS: dict[str, Schema] = {
    "queue": TEXT,
    "priority": WHOLE,
    "delay": or_null(DURATION),
    "at": or_null(INSTANT),
    "max_attempts": WHOLE,
    "timeout": or_null(DURATION),
    "deadline": or_null(DURATION),
    "expires": or_null(DURATION),
    "unique_key": or_null(TEXT),
    "unique_until": one_of(*get_args(UniqueUntil)),
    "on_conflict": one_of(*get_args(OnConflict)),
    "debounce": or_null(DURATION),
    "max_wait": or_null(DURATION),
    "rerun": FLAG,
    "tags": _NAMES,
    "headers": _HEADERS,
    "concurrency_key": or_null(TEXT),
    "concurrency_limit": or_null(WHOLE),
    "strict": FLAG,
    "weight": NUMBER,
}
CALL: dict[str, Schema] = {
    "task": TEXT,
    "args": array(ANYTHING),
    "kwargs": {"type": "object"},
    **CALL_OPTIONS,
}
TIMING: dict[str, Schema] = {
    "cron": TEXT | {"description": "Five fields, or such as @daily.", "examples": ["0 3 * * *"]},
    "tz": TEXT | {"description": "The time zone of `cron`; UTC unless given."},
    "every": DURATION,
    "catch_up": one_of(*get_args(CatchUp)),
    "overlap": one_of(*get_args(Overlap)),
}
FILTER = a_body(
    state=_STATE,
    task=TEXT,
    queue=TEXT,
    tag=TEXT,
    error=TEXT | {"description": "The id of an error group, its beginning, or its signature."},
    q=TEXT | {"description": "An id, a unique key, or the beginning of a task's name."},
)
_MORE = FLAG | {"description": "As many were counted as are at most: there may be more."}
_TASK_COUNTS = {
    "task": TEXT,
    **_counts(*_FINAL, "errored_attempts"),
    **_nulls(NUMBER, "avg_duration", "max_duration", "avg_wait", "max_wait"),
    **_counts("waiting", "known_by"),
    "waiting_more": _MORE,
    "paused": FLAG,
}
_PAUSE = an_object(
    kind=one_of("task", "tag"), name=TEXT, paused_at=INSTANT, paused_by=or_null(TEXT)
)
_QUEUE = an_object(
    queue=TEXT,
    **_counts(*State),
    available_more=_MORE,
    scheduled_more=_MORE,
    paused=FLAG,
    oldest_available_seconds=or_null(NUMBER),
    **_nulls(WHOLE, "max_pending", "max_running", "rate_count", "rate_burst"),
    rate_period=or_null(NUMBER),
    fair=or_null(FLAG),
)
_MINUTE = an_object(
    minute=INSTANT,
    **_counts("workers", "processed", "errored", "failed", "snoozed"),
    **_nulls(NUMBER, "avg_duration", "p50_duration", "p95_duration"),
    **_nulls(NUMBER, "avg_wait", "p50_wait", "p95_wait", "utilisation"),
    waiting=or_null(WHOLE | {"description": "Jobs of all queues, counted up to 100,000."}),
)
_SCHEDULE = an_object(
    name=TEXT,
    task=TEXT,
    **_ARGUMENTS,
    options={"type": "object"},
    **_nulls(TEXT, "cron", "tz"),
    every=or_null(WHOLE | {"description": "Seconds."}),
    catch_up=TEXT,
    overlap=TEXT,
    source=TEXT,
    differs=FLAG | {"description": "An operator has changed what the code declares."},
    orphaned=FLAG | {"description": "No live worker declares it, so that it has no ticks."},
    **_nulls(INSTANT, "paused_at", "next_at", "last_at"),
    paused_by=or_null(TEXT),
    last_job_id=or_null(JOB_ID),
)
_REFUSALS = array(an_object(id=WHOLE, state=or_null(_STATE), reason=TEXT))
_REFUSED = {
    "message": TEXT | {"description": "What is wrong, with which value, and what to do."},
    "field": or_null(TEXT | {"description": "The parameter, header or key it is about."}),
    "value": ANYTHING,
}

COMPONENTS: dict[str, Schema] = {
    "Error": an_object(
        ["errors", "changed", "refused", "status"],
        error=an_object(**_REFUSED),
        errors=array(an_object(index=WHOLE, **_REFUSED))
        | {"description": "Of a list of jobs: each that is wrong, up to 100."},
        changed=WHOLE | {"description": "Of a verb for one job: 0."},
        refused=_REFUSALS,
        status=TEXT | {"description": "Of /readyz."},
    ),
    "Job": _JOB,
    "EnqueuedJob": {"allOf": [ref("Job"), an_object(created=FLAG)]},
    "EnqueuedId": an_object(id=JOB_ID, created=FLAG)
    | {"description": "It is enqueued; reading it failed."},
    "JobWithAttempts": {"allOf": [ref("Job"), an_object(attempts=array(_ATTEMPT))]},
    "Call": a_body("task", **CALL),
    "EnqueuedBatch": an_object(enqueued=WHOLE, existing=WHOLE, ids=array(JOB_ID)),
    "Explanation": an_object(
        id=JOB_ID,
        code=one_of(*get_args(WhyCode)),
        sentence=TEXT,
        advice=TEXT,
        jobs=array(JOB_ID),
        names=_NAMES,
    ),
    "Changes": an_object(
        ["left_out", "unchanged"],
        changed=WHOLE,
        refused=_REFUSALS,
        unchanged=WHOLE | {"description": "Jobs that were left as they are."},
        left_out=WHOLE | {"description": "Jobs that match and have succeeded."},
    ),
    "DryRun": an_object(
        ["left_out"],
        dry_run=FLAG,
        would_change=WHOLE,
        sample=array(an_object(id=JOB_ID, task=TEXT)),
        left_out=WHOLE,
    ),
    "Changed": an_object(changed=WHOLE),
    "Queue": _QUEUE,
    "Task": an_object(
        **_TASK_COUNTS,
        registered=or_null(FLAG),
        queue=or_null(TEXT),
        signature=or_null(TEXT),
        arguments=or_null({"type": "object", "description": "A JSON Schema of its `kwargs`."}),
    ),
    "Worker": an_object(
        worker=TEXT,
        host=TEXT,
        pid=WHOLE,
        queues=or_null(_NAMES),
        **_counts("concurrency", "running", "processed", "errored"),
        heartbeat_age_seconds=NUMBER,
        started_at=INSTANT,
        lease=NUMBER,
        stopping_at=or_null(
            INSTANT | {"description": "Since when it only ends what it runs: it was asked to stop."}
        ),
    ),
    "Stats": an_object(
        queues=array(ref("Queue")),
        tasks=array(an_object(**_TASK_COUNTS)),
        workers=WHOLE,
        throughput_per_second=NUMBER,
        minutes=array(_MINUTE),
        pauses=array(_PAUSE),
    ),
    "Schedule": _SCHEDULE,
    "Run": an_object(at=INSTANT, note=or_null(TEXT)),
    "ErrorGroup": an_object(
        **dict.fromkeys(("id", "task", "type", "signature", "message"), TEXT),
        place=or_null(TEXT),
        attempts=an_object(**_counts("1h", "24h", "7d")),
        failed=WHOLE,
        first_seen=INSTANT,
        last_seen=INSTANT,
    ),
    "Action": an_object(
        id=WHOLE,
        at=INSTANT,
        actor=TEXT,
        verb=TEXT,
        target={"type": "object"},
        changed=WHOLE,
        before=or_null({"type": "object", "description": "What it replaced."}),
        about=TEXT | {"description": "That in words: `queue mail, limit 4 → 10`."},
    ),
    "Diagnosis": an_object(
        checks=WHOLE,
        findings=array(an_object(check=TEXT, sentence=TEXT, remedy=TEXT, names=_NAMES)),
    ),
}
"""By the name that generated clients give them."""
