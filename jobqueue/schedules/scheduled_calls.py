"""Scheduled calls: what code declares, and the call that a tick enqueues."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from msgspec.structs import replace

from jobqueue.backoff import Backoff
from jobqueue.enqueue_hooks import EnqueueHook, through_hooks
from jobqueue.errors import invalid
from jobqueue.literal_types import CatchUp, Overlap
from jobqueue.new_jobs import NewJob
from jobqueue.options import OF_TASK, Options
from jobqueue.schedules.definition import Definition, ScheduleRecord
from jobqueue.schedules.timing import Cron, Timing
from jobqueue.serialization.json_values import parse_json, shorten
from jobqueue.tasks import Call, Task

_DEFAULTS = Options()
_LEFT_OUT = ("delay", "at", "backoff", *OF_TASK)


def definition_of(
    call: Call[Any], timing: Timing, catch_up: CatchUp = "latest", overlap: Overlap | None = None
) -> Definition:
    """Return the schedule that enqueues this call. Raises InvalidOption.

    `overlap=None` is "allow" with catch_up="all", else "skip".
    """
    if not isinstance(call, Call):
        raise invalid("call", f"{type(call).__name__} is not a call; write task.call(…)")
    if timing is None:
        raise invalid(
            "schedule", "none given; use cron('0 3 * * *', tz='Europe/Zurich') or every(minutes=5)"
        )
    checked = Options().merge({"schedule": timing, "catch_up": catch_up, "overlap": overlap})
    for name in ("delay", "at"):
        if getattr(call.settings, name) is not None:
            raise invalid(name, "its schedule says when a job is due; leave it out")
    if isinstance(timing, Cron):
        kind, expression, tz = "cron", timing.expression, timing.tz
    else:
        kind, expression, tz = "every", str(timing.seconds), None
    options = _stored(call)
    return Definition(
        task=call.task.name,
        kind=kind,
        expression=expression,
        tz=tz,
        args=call.args,
        options=json.dumps(options, sort_keys=True) if options else None,
        catch_up=checked.catch_up,
        overlap=checked.overlap or ("allow" if checked.catch_up == "all" else "skip"),
    )


def _stored(call: Call[Any]) -> dict[str, Any]:
    """Return the options that are not the defaults, as JSON values that `merge` takes."""
    settings = call.settings
    names = [field.name for field in fields(settings) if field.name not in _LEFT_OUT]
    given = {name: getattr(settings, name) for name in names}
    stored = {name: value for name, value in given.items() if value != getattr(_DEFAULTS, name)}
    if "headers" in stored:
        stored["headers"] = call.headers
    if settings.backoff is not None and settings.backoff is not call.task.own_backoff:
        stored["backoff"] = json.loads(settings.backoff.to_text())
    return stored


def declared(tasks: Mapping[str, Task[..., Any]]) -> dict[str, Definition]:
    """Return the schedules that tasks declare, by name: that of the task."""
    return {
        name: declaration(task)
        for name, task in tasks.items()
        if task.settings.schedule is not None
    }


def declaration(task: Task[..., Any]) -> Definition:
    """Return what a task with a schedule declares. Raises InvalidArguments if it needs some."""
    settings = task.settings
    assert settings.schedule is not None
    return definition_of(task.call(), settings.schedule, settings.catch_up, settings.overlap)


def new_job(task: Task[..., Any], record: ScheduleRecord, hooks: Sequence[EnqueueHook]) -> NewJob:
    """Return the job that a schedule enqueues. Raises what a hook raises."""
    call = replace(call_of(task, record.definition), schedule=record)
    return through_hooks(hooks, [call])[0].to_new_job()


def call_of(task: Task[..., Any], definition: Definition) -> Call[Any]:
    """Return the call that a schedule enqueues.

    Raises InvalidOption for unknown options and what are none, InvalidArguments for arguments that
    are not JSON: on SQLite the jobs table would refuse the job, which stops the ticks of all
    schedules.
    """
    parse_json(definition.args, what="args")
    changes = _options_of(definition)
    settings = Options(backoff=task.own_backoff).merge(changes, of_task=True)
    return Call(task, definition.args, settings)


def _options_of(definition: Definition) -> dict[str, Any]:
    text = definition.options or "{}"
    try:
        changes: Any = json.loads(text)
        if isinstance(changes, dict):
            if "backoff" in changes:
                changes["backoff"] = _tried(Backoff(**changes["backoff"]))
            return changes
    except (ValueError, TypeError, ArithmeticError, RecursionError):  # Not JSON, or no backoff.
        pass
    said = f"{shorten(text)} are not options of a task; remove the schedule, and add it again"
    raise invalid("options", said, text)


def _tried(backoff: Backoff) -> Backoff:
    """Return the backoff; raise if the job could not be stored with it, or not be delayed by it."""
    json.dumps([backoff.base, backoff.cap, backoff.jitter], allow_nan=False)
    backoff.delay(1)
    return backoff
