"""Queues: how much waits and runs in each, its limits, and its switches."""

from functools import partial
from typing import Any

from jobqueue import options
from jobqueue.errors import JobNotFound, invalid
from jobqueue.known_names import all_names, known_name
from jobqueue.overview import HOUR, paused_by, queue_rows
from jobqueue.queue import JobQueue
from jobqueue.queue_switches import Rate, check_limit, rate_of
from jobqueue.records import counted
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.stats import Monitor
from jobqueue.web.pages.view import Done, Query


def queues_page(queue: JobQueue, _query: Query) -> tuple[str, dict[str, Any]]:
    """Show all queues, with their limits."""
    rows = [row | {"rate": rate_of(row)} for row in queue_rows(Monitor(queue.store))]
    return "queues.html", {"queues": rows, "paused_by": paused_by(queue.store, rows)}


def queue_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show one queue and its switches. Raises InvalidOption or JobNotFound."""
    name = options.name(query["name"], "queue")
    monitor = Monitor(queue.store)
    rows = queue_rows(monitor)
    row = next((row for row in rows if row["queue"] == name), None)
    if row is None:
        said = f"there is no queue {name!r}: it has no jobs and no switches"
        raise JobNotFound(said, field="queue", value=name)
    return "queue.html", {
        "row": row | {"rate": _rate_text(row)},
        "lately": monitor.recent_queue(name, HOUR),
        "paused_by": paused_by(queue.store, [row]),
        "top": max((point.done + point.failed for point in row["hour"]), default=0),
    }


def purge_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show how many jobs a purge would delete; delete none."""
    name = _known(queue, query)
    rows = [row for row in Monitor(queue.store).bounded_queues() if row["queue"] == name]
    waiting = counted(sum(row["scheduled"] + row["available"] for row in rows), "job")
    if any(row["scheduled_more"] or row["available_more"] for row in rows):
        waiting = f"at least {waiting}"
    return "sure.html", {
        "title": f"Purge queue {name}?",
        "sentence": f"{waiting[0].upper()}{waiting[1:]} that wait in queue {name} will be deleted. "
        "This cannot be undone. Jobs that run go on.",
        "path": f"/queues/{name}/purge",
        "button": f"Delete {waiting}",
        "verb": "purge",
        "back": f"/queues/{name}",
    }


def limit(queue: JobQueue, form: Query, actor: str) -> Done:
    """Set how many of its jobs may run at once; an empty field takes the limit back."""
    name, text = _known(queue, form), form.get("limit", "").strip()
    most = check_limit(options.integer(text)) if text else None
    is_new = QueueControl(queue.store, actor).limit(name, most)
    said = "has no limit" if most is None else f"runs at most {counted(most, 'job')} at once"
    return _done(queue, name, said, is_new=is_new)


def rate(queue: JobQueue, form: Query, actor: str) -> Done:
    """Set how often its jobs may start; an empty field takes the rate back."""
    name = _known(queue, form)
    text, burst = form.get("rate", "").strip(), form.get("burst", "").strip()
    if burst and not text:
        raise invalid("burst", "there is no rate to run ahead of")
    new = Rate.of(text, options.integer(burst) if burst else None) if text else None
    is_new = QueueControl(queue.store, actor).rate(name, new)
    return _done(queue, name, f"starts {new}" if new else "has no rate", is_new=is_new)


def fair(queue: JobQueue, form: Query, actor: str) -> Done:
    """Let its concurrency keys take turns, or not."""
    name, on = _known(queue, form), form.get("fair") == "yes"
    is_new = QueueControl(queue.store, actor).fair(name, fair=on)
    said = "shares fairly" if on else "takes jobs as they come"
    return _done(queue, name, said, is_new=is_new)


def purge(queue: JobQueue, form: Query, actor: str) -> Done:
    """Delete the jobs of a queue that wait."""
    name = _known(queue, form)
    gone = QueueControl(queue.store, actor).purge(name)
    return Done(f"Deleted {counted(gone, 'job')} of queue {name}.", f"/queues/{name}")


def _done(queue: JobQueue, name: str, said: str, *, is_new: bool) -> Done:
    if is_new:
        queue.wake_workers()
    return Done(f"Queue {name} {said}{'' if is_new else ' already'}.")


def _known(queue: JobQueue, query: Query) -> str:
    return known_name("queue", query["name"], partial(all_names, queue.registry, queue.store))


def _rate_text(row: dict[str, Any]) -> str | None:
    rate = rate_of(row)
    return None if rate is None else rate.to_text()
