"""The user's program as a child process sees it: modules imported by name, and a task in them.

A main module is never run again: what it does at its top level would happen twice. Nothing here
comes from a row of the database: addresses are those of tasks that the worker's own app has
registered.
"""

import importlib
import sys
from typing import Any, NamedTuple

from jobqueue.errors import ConfigurationError
from jobqueue.tasks import Registry, Task

MAINS = ("__main__", "__mp_main__")
"""The main module, and what a process that multiprocessing has spawned calls it."""
IN_MAIN = "it is defined in the program's main module, which is not run a second time"


class TaskRef(NamedTuple):
    """The name of a task, and where to import it from."""

    task: str
    app: str | None  # module:attribute of its JobQueue, if the worker was given one
    module: str
    qualname: str


class ImportGuard:
    """Refuses to enqueue jobs and start workers while a child process imports the program."""

    active = False

    @classmethod
    def refuse(cls, what: str) -> None:
        """Raise ConfigurationError during the import: the program would run a second time."""
        if cls.active:
            raise ConfigurationError(
                f"{what} while a child process imports the program: put what the program does "
                'under `if __name__ == "__main__":`'
            )


def task_ref(task: Task[..., Any], app: str | None) -> TaskRef:
    """Return where a child process can import the task from."""
    function = task.function
    module = str(getattr(function, "__module__", None))
    return TaskRef(task.name, app, module, str(getattr(function, "__qualname__", "")))


def unreachable_reason(ref: TaskRef) -> str | None:
    """Return why a child could not import this task, as the end of a sentence; None: it can."""
    if ref.app is not None:
        return None
    if ref.module in MAINS:
        return IN_MAIN
    module = sys.modules.get(ref.module)
    if module is None:
        return f"module {ref.module!r} does not exist"
    if "<" in ref.qualname.rpartition(".")[2]:
        return "it has no name of its own"
    if _search(module, ref) is None:
        return f"no name at the top level of {ref.module!r} leads to it"
    return None


def import_task(ref: TaskRef) -> Task[..., Any]:
    """Import the module of a task, and return the task. Raises whatever the import raises."""
    if ref.app is not None:
        module_name, _, attribute = ref.app.partition(":")
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        registry = getattr(found, "registry", None)
        if isinstance(registry, Registry) and (task := registry.find(ref.task)) is not None:
            return task
    if ref.module in MAINS:
        raise ConfigurationError(f"no task {ref.task!r} can be imported: {IN_MAIN}")
    task = _search(importlib.import_module(ref.module), ref)
    if task is None:
        raise ConfigurationError(f"{ref.module} has no task {ref.task!r} once imported")
    return task


def _search(module: Any, ref: TaskRef) -> Task[..., Any] | None:
    """Return the task by its function's name, else by any name at the top level of its module."""
    found = module
    for part in ref.qualname.split("."):
        found = getattr(found, part, None)
    for candidate in (found, *list(vars(module).values())):
        if isinstance(candidate, Task) and candidate.name == ref.task:
            return candidate
    return None
