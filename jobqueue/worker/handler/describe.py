"""Turns an exception into an error that can be stored, whatever the exception does."""

import os
import sysconfig
import traceback
from pathlib import Path, PurePath
from types import FrameType

from jobqueue.errors import JobQueueError
from jobqueue.records import AttemptError
from jobqueue.worker.handler.context import clean

MESSAGE_MAX = 16_384  # characters, of each of the two texts
TRACEBACK_MAX = 65_536
NAME_MAX = 200  # characters of a type, and of a place
FRAMES_MAX = 100
_PACKAGE = Path(__file__).parents[2]
_SEAM = str(_PACKAGE / "worker" / "handler" / "run.py")
_OURS = (str(_PACKAGE) + os.sep, "<frozen ")
_LIBRARY = (*_OURS, sysconfig.get_path("stdlib") + os.sep)
_PACKAGES = ("site-packages", "dist-packages")


class RecordedError(JobQueueError):
    """Chooses what is recorded beside its message."""

    def __init__(self, message: str, *, details: str | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.details = details
        """Recorded instead of a traceback, which would show this package's code."""
        self.final = final
        """True: another attempt would fail in the same way, so the job fails at once."""


def describe(error: BaseException) -> AttemptError:
    """Return type, message, place, and the traceback from the user's code on. Never raises."""
    try:
        message = str(error)
        assert isinstance(message, str)
    except BaseException as worse:  # noqa: BLE001 - a __str__ may do anything.
        message = f"<its message cannot be had: str() raised {type(worse).__name__}>"
    if isinstance(error, RecordedError):
        details = None if error.details is None else clean(error.details)
    else:
        details = clean(cap(_traceback(error), TRACEBACK_MAX))
    message = clean(cap(message, MESSAGE_MAX))
    return AttemptError(type_name(type(error)), message, details, _place(error))


def type_name(kind: type[BaseException]) -> str:
    """Return `module.qualname`; of a builtin exception its bare name."""
    module: object = kind.__module__  # A class may have anything there.
    prefix = f"{module}." if isinstance(module, str) and module != "builtins" else ""
    return clean(prefix + kind.__qualname__)[:NAME_MAX]


def _place(error: BaseException) -> str | None:
    """Return file and function of the innermost frame that is the user's own; None without one.

    Without the line, so that errors of one cause stay together when the file changes elsewhere.
    """
    users: FrameType | None = None
    try:
        trace = error.__traceback__
        while trace is not None:
            if _is_users(trace.tb_frame.f_code.co_filename):
                users = trace.tb_frame
            trace = trace.tb_next
    except Exception:  # noqa: BLE001 - an exception's own attributes may do anything.
        return None
    if users is None:
        return None
    return clean(f"{_file_of(users)}:{users.f_code.co_qualname}")[:NAME_MAX]


def _is_users(file: str) -> bool:
    packaged = any(part in PurePath(file).parts for part in _PACKAGES)
    return not (packaged or file.startswith(("<", *_LIBRARY)))


def _file_of(frame: FrameType) -> str:
    """Return the file relative to the folder that its module was imported from."""
    file = PurePath(frame.f_code.co_filename)
    spec = frame.f_globals.get("__spec__")
    module = getattr(spec, "name", None) or frame.f_globals.get("__name__")
    names = str(module).split(".")
    if file.stem == "__init__":
        names.append(file.stem)
    parts = file.parts[-len(names) :]
    is_its_module = [*parts[:-1], file.stem] == names
    return "/".join(parts) if is_its_module else file.name


def _traceback(error: BaseException) -> str:
    try:
        whole = traceback.TracebackException(
            type(error),
            error,
            error.__traceback__,
            limit=-FRAMES_MAX,
            compact=True,
            max_group_width=5,
            max_group_depth=3,
        )
        parts = [whole]
        while parts:  # A chain may be longer than recursion is deep.
            part = parts.pop()
            part.stack[:] = _of_the_user(part.stack)
            parts += filter(None, [part.__cause__, part.__context__, *(part.exceptions or ())])
        return "".join(whole.format())
    except BaseException as worse:  # noqa: BLE001
        return f"<the traceback cannot be had: {type(worse).__name__}>"


def _of_the_user(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Without the frames of ours, and of the library, that lead to the user's code.

    Those behind it stay, but for the seam between a middleware and what it wraps.
    """
    names = [frame.filename for frame in frames]
    # Ours are in site-packages too, once they are installed.
    other = [number for number, name in enumerate(names) if not name.startswith(_OURS)]
    theirs = [
        number
        for number in other
        if not names[number].startswith(_LIBRARY)
        or any(part in names[number] for part in _PACKAGES)
    ]
    # A handler may be a function of the library, with no code of the user's around it.
    first = next(iter(theirs or other), 0)
    return [frame for frame in frames[first:] if frame.filename != _SEAM] or frames


def cap(text: str, most: int) -> str:
    """Return a text of at most `most` characters: the head and the tail of a longer one."""
    if len(text) <= most:
        return text
    half = most // 2 - 32
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
