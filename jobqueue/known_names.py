"""Check names against the known tasks, queues and tags, to detect typing mistakes."""

from collections.abc import Collection, Iterable

from jobqueue.errors import InvalidOption, invalid
from jobqueue.options import Options
from jobqueue.records import JobFilter
from jobqueue.store.names import Names
from jobqueue.tasks import Registry
from jobqueue.text import listed
from jobqueue.wire import did_you_mean
from jobqueue.worker.execute.exec_task import NAME as EXEC


def names_of(registry: Registry) -> Names:
    """Return the names of an app: its tasks, their queues and tags, and its bounded queues."""
    settings = [task.settings for task in registry.values()]
    return Names(
        frozenset([Options().queue, *registry.queues, *(each.queue for each in settings)]),
        frozenset([EXEC, *registry]),
        frozenset(tag for each in settings for tag in each.tags),
    )


def unknown(
    kind: str, names: Iterable[str], known: Collection[str], hint: str = ""
) -> InvalidOption | None:
    """Return the error for the first unknown name, or None."""
    name = next((name for name in names if name not in known), None)
    if name is None:
        return None
    near = did_you_mean(name, known)
    if not near and known:
        near = f"; known are {listed(sorted(known))}"
    return invalid(kind, f"{name!r} is not known{near}{hint}", name)


def unknown_in(wanted: JobFilter, known: Names, hint: str = "") -> InvalidOption | None:
    """Return the error for the first unknown name in a filter, or None."""
    named = (
        ("task", wanted.task, known.tasks),
        ("queue", wanted.queue, known.queues),
        ("tag", wanted.tag, known.tags),
    )
    said = (unknown(kind, [name], names, hint) for kind, name, names in named if name is not None)
    return next(filter(None, said), None)
