"""Hides what a task names in `redact` from all who look at its jobs: the row keeps it."""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, Transaction
from sqlalchemy.exc import DBAPIError

from jobqueue.errors import InvalidOption
from jobqueue.loggers import get_logger
from jobqueue.printable_text import listed
from jobqueue.records import JobFilter, JobRecord, arguments_of
from jobqueue.store.database import Store
from jobqueue.store.jobs import PAGE, Jobs
from jobqueue.store.redactions import parts_of, read_redactions, write_redactions
from jobqueue.tasks import Registry, Task

log = get_logger("jobqueue")

HIDDEN = "‹hidden›"
OTHERS = "*"
"""Stands for all that `**kwargs` takes."""
_Kind = inspect.Parameter
_BY_POSITION = (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD, _Kind.VAR_POSITIONAL)


class Hidden(NamedTuple):
    """What is hidden of a task's arguments."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    """Of those that are given by position, from 0."""
    rest: int | None = None
    """The place from which on all are hidden: those of `*args`."""

    @classmethod
    def of(cls, function: Callable[..., Any], names: tuple[str, ...]) -> "Hidden":
        """Find the places of parameters. Raises InvalidOption for one that there is not."""
        parameters = list(inspect.signature(function).parameters.values())
        kinds = {parameter.name: parameter.kind for parameter in parameters}
        for name in names:
            if name not in kinds and _Kind.VAR_KEYWORD not in kinds.values():
                raise InvalidOption(
                    f"redact: {name!r} is not a parameter; there are {listed([*kinds]) or 'none'}",
                    field="redact",
                    value=name,
                )
        ordered = [name for name, kind in kinds.items() if kind in _BY_POSITION]
        places = tuple(place for place, name in enumerate(ordered) if name in names)
        last = next((name for name in names if kinds.get(name) is _Kind.VAR_POSITIONAL), None)
        others = any(kinds.get(name) is _Kind.VAR_KEYWORD for name in names)
        rest = None if last is None else ordered.index(last)
        return cls((*names, OTHERS) if others else names, places, rest)

    def __or__(self, other: "Hidden") -> "Hidden":
        """Return what either hides: of an older version of the task, and of this one."""
        rests = [each.rest for each in (self, other) if each.rest is not None]
        return Hidden(
            tuple(dict.fromkeys(self.names + other.names)),
            tuple(sorted({*self.places, *other.places})),
            min(rests, default=None),
        )

    def apply(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return arguments without what is hidden."""
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            return [HIDDEN], {}  # Plain SQL has written something else.
        from_here = len(args) if self.rest is None else self.rest
        shown = [
            HIDDEN if place in self.places or place >= from_here else value
            for place, value in enumerate(args)
        ]
        named = {
            name: HIDDEN if name in self.names or OTHERS in self.names else value
            for name, value in kwargs.items()
        }
        return shown, named


EVERYTHING = Hidden((OTHERS,), (), 0)
"""Of a task of which the database no longer says what it hides."""
_warned: WeakKeyDictionary[Store, set[str]] = WeakKeyDictionary()
"""Such tasks of which a warning was logged."""


class Redaction:
    """Hides arguments of the tasks of an app, and of those that its workers have written down."""

    def __init__(self, store: Store, registry: Registry | None = None) -> None:
        self._store = store
        self._registry = registry

    def __call__(self, job: JobRecord) -> JobRecord:
        """Return a job without what is hidden of its arguments."""
        return hide(job, self.read())

    def read(self) -> Mapping[str, Hidden]:
        """Return what is hidden now, by task."""
        written = {task: _read(text) for task, text in read_redactions(self._store).items()}
        _warn(self._store, {task for task, hidden in written.items() if hidden is EVERYTHING})
        declared = {} if self._registry is None else _of(self._registry.values())
        both = {task: written.get(task, hidden) | hidden for task, hidden in declared.items()}
        return {**written, **both}

    def schedule(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON object of a schedule without what is hidden of its arguments."""
        of_task = self.read().get(shown["task"])
        if of_task is None:
            return shown
        args, kwargs = of_task.apply(shown["args"], shown["kwargs"])
        return shown | {"args": args, "kwargs": kwargs}


def hide(job: JobRecord, hidden: Mapping[str, Hidden]) -> JobRecord:
    """Return a job without what its task hides."""
    of_task = hidden.get(job.task)
    if of_task is None:
        return job
    args, kwargs = of_task.apply(*arguments_of(job.args))
    text = json.dumps({"args": args, "kwargs": kwargs}, ensure_ascii=False)
    return replace(job, args=text)


class ShownJobs(Jobs):
    """The jobs as operators see them."""

    def __init__(self, store: Store, registry: Registry | None = None) -> None:
        super().__init__(store)
        self.redaction = Redaction(store, registry)

    def find(
        self, wanted: JobFilter, limit: int | None = None, page: int = PAGE
    ) -> Iterator[JobRecord]:
        """Yield jobs as `Jobs.find`, without what is hidden of their arguments."""
        hidden: Mapping[str, Hidden] | None = None
        for job in super().find(wanted, limit, page):
            hidden = self.redaction.read() if hidden is None else hidden
            yield hide(job, hidden)


def shown_signature(task: Task[..., Any]) -> inspect.Signature:
    """Return the signature of a task without the defaults of what it hides."""
    signature = inspect.signature(task.function)
    parameters = [
        each.replace(default=HIDDEN)
        if each.name in task.settings.redact and each.default is not each.empty
        else each
        for each in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


class Declarations:
    """Writes what a task hides before its first job, once in each process. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: set[str] = set()
        """Tasks of which it is committed, or may not be written by this process."""
        self._open: dict[str, ref[Transaction]] = {}
        """The caller's transaction that has written it last, and may still roll back."""

    def write(self, tasks: Iterable[Task[..., Any]], connection: Connection | None = None) -> None:
        """Write what these tasks hide; `connection` is the caller's, if it has a transaction.

        Only where the database has one writer at a time it is written in that transaction: others
        cannot then commit beside it. Elsewhere a caller's transaction would keep the row locked
        until it ends. A role that may not write it logs that once.
        """
        new = {
            task.name: task
            for task in tasks
            if task.settings.redact and task.name not in self._written
        }
        if not new:
            return
        if connection is None:
            self._store.require_schema()
        elif not self._store.backend.single_writer:
            connection = None
        try:
            changed = _add(self._store, _of(new.values()), connection)
        except DBAPIError as error:
            if not self._store.backend.is_forbidden(error):
                raise
            log.warning(
                "%s: what it hides may be shown until a worker of this code has started: this "
                "role may not write jobqueue_redactions; see docs/roles.md",
                listed(sorted(new)),
            )
            changed = set()
        current = None if connection is None else connection.get_transaction()
        for name in new:
            if current is not None and name in changed:
                self._open[name] = ref(current)
            elif current is None or name not in self._open or self._open[name]() is not current:
                self._written.add(name)


def declare(store: Store, registry: Registry) -> None:
    """Add what an app hides to what is written, for commands and servers without it.

    Workers do at their start. They take nothing back: one of an older version would uncover what a
    newer one hides, and the rows of a parameter's old name are still there.
    """
    _add(store, _of(registry.values()))


def _of(tasks: Iterable[Task[..., Any]]) -> dict[str, Hidden]:
    """Return what tasks hide, by name."""
    return {
        task.name: Hidden.of(task.function, task.settings.redact)
        for task in tasks
        if task.settings.redact
    }


def _add(
    store: Store, hidden: Mapping[str, Hidden], connection: Connection | None = None
) -> set[str]:
    """Add to what is written, and return the tasks of which something was added."""
    before = read_redactions(store, connection)
    changes = {}
    for task, of_code in hidden.items():
        text = json.dumps(of_code)
        if task not in before or _added(before[task], text) != before[task]:
            changes[task] = text
    if changes:
        write_redactions(store, changes, _added, connection)
    return set(changes)


def _added(there: str, new: str) -> str:
    """Return the JSON of a row with what is new; one that SQL has broken as it is.

    What that hid is not known: with the new names alone it would be shown.
    """
    before = _read(there)
    return there if before is EVERYTHING else json.dumps(before | _read(new))


def _read(text: str) -> Hidden:
    parts = parts_of(text)
    return EVERYTHING if parts is None else Hidden(tuple(parts[0]), tuple(parts[1]), parts[2])


def _warn(store: Store, tasks: set[str]) -> None:
    """Log once which tasks have a row that SQL has broken."""
    known = _warned.setdefault(store, set())
    if new := sorted(map(str, tasks - known)):
        known |= tasks
        log.warning(
            "%s: all arguments are hidden, since jobqueue_redactions does not say which; "
            "jobqueue doctor says what to do",
            listed(new),
        )
