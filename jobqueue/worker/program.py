"""The user's program as a child process sees it: imported once more, and a task found in it.

Nothing here comes from a row of the database: addresses are those of tasks that the worker's own
app has registered.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

from jobqueue.errors import ConfigurationError
from jobqueue.tasks import Registry, Task

MAIN = "__main__"
MAIN_AGAIN = "__mp_main__"
"""What a program's main module is called when it is run again in a child, as multiprocessing does:
`if __name__ == "__main__"` is false then."""


class Address(NamedTuple):
    """Where a task is found after an import."""

    task: str
    app: str | None  # module:attribute of its JobQueue, where the worker was told
    module: str
    qualname: str


class Main(NamedTuple):
    """The program's main module: its file, its package for relative imports, its arguments."""

    path: str
    package: str | None


class Import:
    """Whether this process is a child that imports the program at this moment."""

    under_way = False
    main: Any = None
    """The program's main module, once it was run again."""

    @classmethod
    def refuse(cls, what: str) -> None:
        """Raise ConfigurationError while it is: the program would do all that it does once more."""
        if cls.under_way:
            raise ConfigurationError(
                f"{what} while a child process imports the program: put what the program does "
                'under `if __name__ == "__main__":`'
            )


def address_of(task: Task[..., Any], app: str | None) -> Address:
    """Where a child is to look."""
    function = task.function
    module = str(getattr(function, "__module__", None))
    return Address(task.name, app, module, str(getattr(function, "__qualname__", "")))


def why_not(address: Address) -> str | None:
    """Why a child could not find this task, as the end of a sentence; None: it can."""
    if address.app is not None:
        return None
    module = sys.modules.get(address.module)
    if module is None:
        return f"there is no module {address.module!r}"
    if address.module == MAIN and main() is None:
        return "it is defined in a session, not in a file"
    if "<" in address.qualname.rpartition(".")[2]:
        return "it has no name of its own"
    if _search(module, address) is None:
        return f"no name at the top level of {address.module!r} leads to it"
    return None


def find(address: Address, main_module: Main | None) -> Task[..., Any]:
    """Import what an address names, and return the task. Raises whatever the import raises."""
    module: Any = None
    if address.app is not None:
        module_name, _, attribute = address.app.partition(":")
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        registry = getattr(found, "registry", None)
        if isinstance(registry, Registry) and (task := registry.find(address.task)) is not None:
            return task
    if address.module == MAIN:
        module = Import.main = Import.main or _run_again(main_module)
    else:
        module = importlib.import_module(address.module)
    task = _search(module, address)
    if task is None:
        raise ConfigurationError(f"{address.module} has no task {address.task!r} once imported")
    return task


def main() -> Main | None:
    """This process's main module, if it can be run again in a child."""
    module = sys.modules[MAIN]
    path = getattr(module, "__file__", None)
    if path is None or not Path(path).is_file():
        return None
    return Main(str(Path(path).resolve()), getattr(module, "__package__", None) or None)


def _run_again(again: Main | None) -> Any:
    if again is None:
        raise ConfigurationError("the program's main module is no file that could be run again")
    loader = SourceFileLoader(MAIN_AGAIN, again.path)
    spec = importlib.util.spec_from_loader(MAIN_AGAIN, loader)
    assert spec is not None, "a loader of a file makes one"
    module = importlib.util.module_from_spec(spec)
    if again.package is not None:
        module.__package__ = again.package
    sys.modules[MAIN] = sys.modules[MAIN_AGAIN] = module
    loader.exec_module(module)
    return module


def _search(module: Any, address: Address) -> Task[..., Any] | None:
    """The task by its function's name, else under any name at the top level of its module."""
    found = module
    for part in address.qualname.split("."):
        found = getattr(found, part, None)
    for candidate in (found, *list(vars(module).values())):
        if isinstance(candidate, Task) and candidate.name == address.task:
            return candidate
    return None
