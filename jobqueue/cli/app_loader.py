"""Load the app: the module that registers the user's tasks."""

import contextlib
import importlib
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from jobqueue import paths
from jobqueue.cli.streams import STDERR
from jobqueue.errors import ConfigurationError, type_of
from jobqueue.printable_text import escape_controls
from jobqueue.queue import JobQueue

APP_EXAMPLE = "for example, app:jobs is `jobs = JobQueue()` in app.py"
APP_NEEDED = (
    "no app is named, so there are no tasks to run: give --app module:attribute or set "
    "$JOBQUEUE_APP, for example --app app:jobs for `jobs = JobQueue()` in app.py"
)


def load(name: str, folder: str | None = None) -> JobQueue:
    """Import `module:attribute`. Raises ConfigurationError, which shows the user's own error.

    `folder` is that of the pyproject.toml that names the app, or None: relative paths in the app's
    code begin there too, as from the project's folder.
    """
    module_name, colon, attribute = name.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        parts = [part for part in Path(module_name).with_suffix("").parts if part.isidentifier()]
        raise _error(
            f"app: {name[:80]!r} names a file; name the module as in an import: "
            f"{'.'.join(parts)}:{attribute or 'jobs'}",
            name,
        )
    if not colon or not all(part.isidentifier() for part in module_name.split(".")):
        raise _error(f"app: {name[:80]!r} is not of the form module:attribute; {APP_EXAMPLE}", name)
    make_importable(folder)
    with paths.meant_from(folder):
        module = _import(module_name, name, folder)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None) if part else None
    if not isinstance(found, JobQueue):
        what = f"is {type_of(found)}, not a JobQueue" if found is not None else "is not there"
        queues = [key for key, value in vars(module).items() if isinstance(value, JobQueue)]
        defined = ", ".join(queues) if queues else "no JobQueue"
        raise _error(f"app: {attribute!r} {what}; module {module_name} defines {defined}", name)
    found.registry.app = name
    return found


def make_importable(folder: str | None) -> None:
    """Let modules be imported from `folder`, then from the current folder, as with `python -m`."""
    for each in filter(None, (str(Path.cwd()), folder)):
        if each not in sys.path:
            sys.path.insert(0, each)


def _import(module_name: str, name: str, folder: str | None) -> Any:
    searched = " nor in ".join(dict.fromkeys(filter(None, (folder, str(Path.cwd())))))
    try:
        # What the app prints may not become part of this command's answer.
        with contextlib.redirect_stdout(STDERR):
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            reason = f"there is no module {missing!r}, neither in {searched} nor on Python's path"
            raise _error(f"app {name!r}: {reason}", name) from error
        raise _error(_own_error(name, error), name) from error
    except KeyboardInterrupt:
        raise
    except SystemExit as error:
        raise _error(f"{_own_error(name, error)} (it must not exit on import)", name) from error
    except BaseException as error:
        raise _error(_own_error(name, error), name) from error


def _own_error(name: str, error: BaseException) -> str:
    """The user's error in one line: type, message, file and line."""
    try:
        message = str(error).partition("\n")[0]
    except Exception:  # noqa: BLE001 - it is the user's own exception class.
        message = ""
    if isinstance(error, SyntaxError) and error.filename:
        message, place = error.msg, f"{error.filename}:{error.lineno}"
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<frozen") and frame.filename != __file__
        ]
        # The last frame of the user's own: an error raised by us is about their line.
        ours = str(Path(__file__).parents[1])
        own = [frame for frame in frames if not frame.filename.startswith(ours)] or frames
        place = f"{own[-1].filename}:{own[-1].lineno}" if own else "?"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    said = text[:300]
    # An error about two places names both.
    at = "" if re.search(rf"{re.escape(place)}(?!\d)", said) else f" ({place})"
    return escape_controls(f"importing app {name!r} failed: {said}{at}")


def _error(message: str, value: str) -> ConfigurationError:
    return ConfigurationError(message, field="app", value=value)
