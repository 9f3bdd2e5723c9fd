"""Turns an exception into an error that can be stored, whatever the exception does."""

import os
import sysconfig
import traceback
from pathlib import Path

from jobqueue.records import AttemptError
from jobqueue.worker.handler.context import clean

MESSAGE_MAX = 16_384  # characters, of each of the two texts
TRACEBACK_MAX = 65_536
FRAMES_MAX = 100
_PACKAGE = Path(__file__).parents[2]
_SEAM = str(_PACKAGE / "worker" / "handler" / "run.py")
_OURS = (str(_PACKAGE) + os.sep, "<frozen ")
_LIBRARY = (*_OURS, sysconfig.get_path("stdlib") + os.sep)
_PACKAGES = ("site-packages", "dist-packages")


class RecordedError:
    """Mixed into an exception that chooses what is recorded beside its message."""

    details: str | None = None
    """Recorded instead of a traceback, which would show this package's code."""

    final = False
    """True: another attempt would fail in the same way, so the job fails at once."""


def describe(error: BaseException) -> AttemptError:
    """Return type, message, and the traceback from the user's code on. Never raises."""
    try:
        message = str(error)
        assert isinstance(message, str)
    except BaseException as worse:  # noqa: BLE001 - a __str__ may do anything.
        message = f"<its message cannot be had: str() raised {type(worse).__name__}>"
    if isinstance(error, RecordedError):
        details = None if error.details is None else clean(error.details)
    else:
        details = clean(cap(_traceback(error), TRACEBACK_MAX))
    return AttemptError(
        clean(type(error).__qualname__)[:200], clean(cap(message, MESSAGE_MAX)), details
    )


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
    theirs = [
        number
        for number, name in enumerate(names)
        if not name.startswith(_LIBRARY) or any(part in name for part in _PACKAGES)
    ]
    # A handler may be a function of the library, with no code of the user's around it.
    other = [number for number, name in enumerate(names) if not name.startswith(_OURS)]
    first = next(iter(theirs or other), 0)
    return [frame for frame in frames[first:] if frame.filename != _SEAM] or frames


def cap(text: str, most: int) -> str:
    """Return a text of at most `most` characters: the head and the tail of a longer one."""
    if len(text) <= most:
        return text
    half = most // 2 - 32
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
