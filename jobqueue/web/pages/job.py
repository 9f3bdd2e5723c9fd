"""Job: what has happened to one job, why it is where it is, and its verbs."""

import json
import keyword
import shlex
from typing import Any, NamedTuple

from jobqueue import json_forms, text_parsing
from jobqueue.errors import JobNotFound
from jobqueue.options import Options
from jobqueue.queue import JobQueue
from jobqueue.records import JobRecord, headers_of
from jobqueue.redaction import HIDDEN, ShownJobs
from jobqueue.states import MOVES
from jobqueue.store.audit import Audit
from jobqueue.store.why import explain
from jobqueue.timeline import steps_of
from jobqueue.web.pages.view import Query

TREE_MAX = 50_000
"""Characters of arguments or a result that are shown as a tree; of longer ones the beginning."""
DEPTH_MAX = 60
ATTEMPTS_SHOWN = 50
"""The newest, of those that are recorded."""
ACTIONS = 500
"""Newest actions of operators among which those on this job are looked for."""


class Value(NamedTuple):
    """Arguments or a result: as a tree where `is_tree`, else as text."""

    tree: Any
    is_tree: bool
    text: str
    more: int
    """Characters of the text that are left out."""


def job_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show all that is known of one job. Raises JobNotFound."""
    id_ = text_parsing.job_id(query["id"])
    jobs = ShownJobs(queue.store, queue.registry)
    job, why = jobs.get(id_), explain(jobs, id_)
    if job is None or why is None:
        raise JobNotFound(f"there is no job {id_} (any more)", field="id", value=id_)
    attempts = jobs.attempts(job, ATTEMPTS_SHOWN)
    earlier = max(0, jobs.count_attempts(id_) - ATTEMPTS_SHOWN)
    shows_call = not _hides(job)
    return "job.html", {
        "job": job,
        "why": why,
        "steps": list(steps_of(job, attempts, earlier)),
        "next": sorted({move.after.value for move in MOVES.values() if job.state in move.before}),
        "attempts": attempts[::-1],
        "earlier": earlier,
        "args": _value(job.args),
        "result": None if job.result is None else _value(job.result),
        "headers": headers_of(job.headers),
        "shows_call": shows_call,
        "command": _as_command(job) if shows_call else None,
        "python": _as_python(job) if shows_call else None,
        "actions": _actions(queue, id_),
    }


def _value(text: str) -> Value:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree, fits = None, False
    else:
        fits = len(text) <= TREE_MAX and _depth(tree) <= DEPTH_MAX
    return Value(tree, fits, text[:TREE_MAX], max(0, len(text) - TREE_MAX))


def _depth(tree: Any) -> int:
    depth, level = 0, [tree]
    while level:
        depth += 1
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict | list):
                inner += value.values() if isinstance(value, dict) else value
        level = inner
    return depth


def _call(job: JobRecord) -> tuple[list[Any], dict[str, Any]] | None:
    """Return a job's arguments; None where plain SQL has written something else."""
    found = json_forms.job_json(job)
    if found["args"] is None or found["kwargs"] is None:
        return None
    return found["args"], found["kwargs"]


def _hides(job: JobRecord) -> bool:
    """Return whether an argument is hidden: who copied the call would enqueue that word."""
    args, named = _call(job) or ([], {})
    return HIDDEN in args or HIDDEN in named.values()


def _options(job: JobRecord) -> dict[str, Any]:
    """Return the options of a call that would make the same job, but for its times and its key."""
    default = Options()
    given = {
        "queue": None if job.queue == default.queue else job.queue,
        "priority": job.priority or None,
        "max_attempts": None if job.max_attempts == default.max_attempts else job.max_attempts,
        "timeout": job.timeout,
        "tags": list(job.tags) or None,
        "concurrency_key": job.lane,
        "headers": headers_of(job.headers) or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _as_command(job: JobRecord) -> str | None:
    call = _call(job)
    if call is None:
        return None
    # What begins with a dash is taken for an option, but for what comes after `--`.
    is_dashed = job.task.startswith("-")
    words = ["jobqueue", "enqueue"] + ([] if is_dashed else [job.task])
    for name, given in zip(("--args", "--kwargs"), call, strict=True):
        if given:
            words += [name, json.dumps(given, ensure_ascii=False)]
    for name, value in _options(job).items():
        if name == "tags":
            words += [word for tag in value for word in ("--tag", tag)]
        elif name == "headers":
            words += [word for pair in value.items() for word in ("--header", "=".join(pair))]
        else:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words + (["--", job.task] if is_dashed else []))


def _as_python(job: JobRecord) -> str | None:
    call = _call(job)
    if call is None:
        return None
    task = (
        job.task
        if job.task.isidentifier() and not keyword.iskeyword(job.task)
        else f"jobs.registry[{job.task!r}]"
    )
    options = ", ".join(f"{name}={value!r}" for name, value in _options(job).items())
    args = [repr(value) for value in call[0]]
    named = call[1]
    if all(name.isidentifier() and not keyword.iskeyword(name) for name in named):
        args += [f"{name}={value!r}" for name, value in named.items()]
    else:
        args.append(f"**{named!r}")
    return f"{task}{f'.options({options})' if options else ''}.enqueue({', '.join(args)})"


def _actions(queue: JobQueue, id_: int) -> list[dict[str, Any]]:
    """Return what operators did to this job by its id, newest first."""
    recent = Audit(queue.store).find(ACTIONS)
    return [action for action in recent if id_ in action["target"].get("ids", ())]
