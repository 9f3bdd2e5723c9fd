"""A process that a handler has forked, and that comes back from the handler: it ends there.

It is a copy of the worker with one thread. It may not go on as one: the claims, the connections and
the event loop that it has are its parent's.
"""

import contextlib
import os
import sys
import traceback
from typing import NoReturn


def end(error: BaseException | None) -> NoReturn:
    """End this process at once, as a program of its own would have ended."""
    code = 1
    try:
        code = _said(error)
    finally:
        # Not sys.exit(): what is registered for the end of a process is its parent's to do.
        os._exit(code)


def _said(error: BaseException | None) -> int:
    """Say on stderr what there is to say, and flush; returns the exit code."""
    code = 0 if error is None else 1
    # A closed stream may not keep it alive.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if isinstance(error, SystemExit):
            code = _code(error)
        elif error is not None:
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    return code


def _code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1
