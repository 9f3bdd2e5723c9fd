"""Check names against the known tasks, queues and tags, to detect typing mistakes."""

from collections.abc import Callable, Collection, Iterable

from jobqueue import options
from jobqueue.errors import InvalidOption, JobNotFound, invalid
from jobqueue.printable_text import did_you_mean, listed
from jobqueue.records import JobFilter
from jobqueue.store.database import Store
from jobqueue.store.names import Names, names_in_use
from jobqueue.tasks import Registry
from jobqueue.worker.execute.exec_task import NAME as EXEC


def names_of(registry: Registry) -> Names:
    """Return the names of an app: its tasks, their queues and tags, and its bounded queues."""
    settings = [task.settings for task in registry.values()]
    return Names(
        frozenset([options.Options().queue, *registry.queues, *(each.queue for each in settings)]),
        frozenset([EXEC, *registry]),
        frozenset(tag for each in settings for tag in each.tags),
    )


def all_names(registry: Registry, store: Store) -> Names:
    """Return the names of an app, and those in use in its database."""
    return names_of(registry) | names_in_use(store)


def known_name(kind: str, value: object, names: Callable[[], Names]) -> str:
    """Check the name of a queue, task or tag. Raises JobNotFound for an unknown: maybe a typo."""
    name = options.name(value, kind)
    error = unknown(kind, [name], getattr(names(), f"{kind}s"))
    if error is not None:
        raise JobNotFound(str(error), field=kind, value=name)
    return name


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
    said = (
        unknown(kind, [name], getattr(known, f"{kind}s"), hint)
        for kind, name in wanted.named().items()
        if kind in ("task", "queue", "tag")
    )
    return next(filter(None, said), None)
