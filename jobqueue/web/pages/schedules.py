"""Schedules: when each runs next, what became of its last job, and its switches."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from cronsim import CronSim, CronSimError

from jobqueue import options
from jobqueue.queue import JobQueue
from jobqueue.schedules.definition import Definition, ScheduleRecord
from jobqueue.states import State
from jobqueue.store.jobs import Jobs
from jobqueue.store.schedule_runs import Run, last_runs
from jobqueue.web.pages.view import Done, Query


class ScheduleRow(NamedTuple):
    """A schedule in the list."""

    record: ScheduleRecord
    words: str
    last_state: State | None
    """Of its last job; None if that is gone, or there is none."""
    runs: list[Run]
    """Its last jobs, the oldest first."""


def schedules_page(queue: JobQueue, _query: Query) -> tuple[str, dict[str, Any]]:
    """Show all schedules."""
    records = list(queue.schedules)
    ids = [each.last_job_id for each in records if each.last_job_id is not None]
    states = Jobs(queue.store).states(ids)
    runs = last_runs(queue.store, records)
    rows = [
        ScheduleRow(
            each, in_words(each.definition), states.get(each.last_job_id or 0), runs[each.name]
        )
        for each in records
    ]
    return "schedules.html", {"schedules": rows}


def in_words(definition: Definition) -> str:
    """Return when a schedule runs, in English, also for a row that plain SQL has written."""
    if definition.kind != "cron":
        return definition.describe()
    try:
        return str(CronSim(definition.expression, datetime(2026, 1, 1)).explain())  # noqa: DTZ001
    except CronSimError:
        return definition.describe()


def remove_page(_queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Ask whether a schedule shall be removed."""
    name = _name(query)
    return "sure.html", {
        "title": f"Remove schedule {name}?",
        "sentence": f"Schedule {name} will make no more jobs; those that it has made stay. "
        "What the code declares, the next worker that starts adds again.",
        "path": f"/schedules/{name}/remove",
        "button": "Remove it",
        "verb": "remove",
        "back": "/schedules",
    }


def run(queue: JobQueue, form: Query, actor: str) -> Done:
    """Enqueue the job of a schedule now."""
    name = _name(form)
    job = queue.schedules.of(actor).run(name)
    made = "has made" if job.created else "still has"
    return Done(f"Schedule {name} {made} job {job.id}.", f"/jobs/{job.id}")


def pause(queue: JobQueue, form: Query, actor: str) -> Done:
    """Pause a schedule."""
    return _switch(form, lambda name: queue.schedules.of(actor).pause(name, by=actor))


def resume(queue: JobQueue, form: Query, actor: str) -> Done:
    """Resume a schedule."""
    return _switch(form, queue.schedules.of(actor).resume)


def reset(queue: JobQueue, form: Query, actor: str) -> Done:
    """Undo what was changed of a schedule that the code declares."""
    name = _name(form)
    changed = queue.schedules.of(actor).reset(name)
    return Done(f"Schedule {name} is {'again ' if changed else ''}as the code declares it.")


def remove(queue: JobQueue, form: Query, actor: str) -> Done:
    """Delete a schedule."""
    name = _name(form)
    queue.schedules.of(actor).remove(name)
    return Done(f"Schedule {name} is removed.", "/schedules")


def _switch(form: Query, change: Callable[[str], bool]) -> Done:
    name = _name(form)
    is_new = change(name)
    return Done(f"Schedule {name} {'is' if is_new else 'was already'} {form['verb']}d.")


def _name(query: Query) -> str:
    return options.name(query["name"], "name")
