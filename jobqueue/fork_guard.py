"""A process that a handler has forked: its signals are its own, and it ends with the handler.

It is a copy of the worker with one thread. It may not go on as one: the claims, the connections and
the event loop that it has are its parent's. Nor may it hear signals as one: it would not heed a
SIGTERM, and with a wake-up descriptor of its parent it would pass each of its signals on to it.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

forks = 0
"""The forks between the program's first process and this one: a change shows that code came back
from a fork in the child. Compared for each job, for which `os.getpid()`, a system call, is slow."""

_undoings: dict[Callable[[], None], tuple[int, ...]] = {}
_masks = threading.local()


def watch(undo: Callable[[], None], *numbers: int) -> None:
    """Call `undo()` in every child that is forked from now on, in its only thread.

    It gives back the handlers of those signals. The signals wait meanwhile, so that none that is
    meant for the child meets a handler of its parent.
    """
    _undoings[undo] = numbers


def forget(undo: Callable[[], None]) -> None:
    """Undo `watch()`."""
    _undoings.pop(undo, None)


def _before() -> None:
    if _undoings:
        numbers = {number for group in [*_undoings.values()] for number in group}
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _after() -> None:
    before = _masks.__dict__.pop("before", None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_child() -> None:
    global forks  # noqa: PLW0603 - it is about the process.
    forks += 1
    try:
        for undo in reversed([*_undoings]):  # Each gives back the handlers of the one before.
            undo()
    finally:
        _undoings.clear()
        _let_in()


def _let_in() -> None:
    """Unblock the signals that are pending in this child."""
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:  # A KeyboardInterrupt raised in this hook would be ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _after()
    if interrupts:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)


def end(error: BaseException | None) -> NoReturn:
    """End this process at once, with the code of a SystemExit, or 1 after a traceback, else 0."""
    code = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit) and isinstance(error.code, int | None):
            code = (error.code or 0) & 0xFF
        elif error is not None:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Even if a stream is closed; not sys.exit(), which runs the atexit functions of the parent.
        os._exit(code)
