"""The verbs of queues."""

from collections.abc import Callable

from jobqueue import options
from jobqueue.queue import JobQueue
from jobqueue.store.audit import Action
from jobqueue.store.stats import Monitor
from jobqueue.web.pages.view import Done, Query


def pause(queue: JobQueue, form: Query, actor: str) -> Done:
    """Pause a queue."""
    return _switch(form, actor, Monitor(queue.store).pause)


def resume(queue: JobQueue, form: Query, actor: str) -> Done:
    """Resume a queue."""
    done = _switch(form, actor, Monitor(queue.store).resume)
    queue.wake_workers()
    return done


def _switch(form: Query, actor: str, change: Callable[[str, Action], bool]) -> Done:
    name = options.name(form["name"], "queue", longest=options.QUEUE_LENGTH_MAX)
    changed = change(name, Action(actor, form["verb"], {"queue": name}))
    return Done(f"Queue {name} {'is' if changed else 'was already'} {form['verb']}d.")
