"""A process that a handler has forked: its signals are its own, and it ends with the handler.

It is a copy of the worker with one thread. It may not go on as one: the claims, the connections and
the event loop that it has are its parent's. Nor may it hear signals as one: it would not heed a
SIGTERM, and with a wake-up descriptor of its parent it would pass each of its signals on to it.

The hooks of all modules at forks are called from here, so that no Ctrl-C breaks one off.
"""

import _signal  # type: ignore[import-not-found]  # Its `signal` is not Python code.
import _thread
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, NoReturn


class Hooks(NamedTuple):
    """What a module does at every fork, in the thread that forks."""

    before: Callable[[], object]
    in_parent: Callable[[], object]
    """Called also where an interrupt has broken off `before`, and again where it did this one."""
    in_child: Callable[[], object]


forks = 0
"""The forks between the program's first process and this one: a change shows that code came back
from a fork in the child. Compared for each job, for which `os.getpid()`, a system call, is slow."""

_undoings: dict[Callable[[], None], tuple[int, ...]] = {}
_hooks: list[Hooks] = []
_late: list[int] = []
"""The signals that have waited for the hooks in the parent."""
_interrupt_handlers: list[Callable[..., object]] = []
"""The handler of SIGINT that a child gets back behind its hooks."""


class _Fork(threading.local):
    """The fork that a thread is at."""

    mask: set[int] | None = None
    """The signals that were blocked before it, until it has unblocked the others."""
    is_unfinished = False
    """The hooks in the parent are to be called, or were broken off."""


_fork = _Fork()


def around(hooks: Hooks) -> None:
    """Call these at every fork, while a Ctrl-C waits."""
    _hooks.append(hooks)


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
    _fork.is_unfinished = True
    _late.clear()
    _interrupt_handlers.clear()
    if _fork.mask is None:  # Else a signal's handler forks, between the hooks of another fork.
        # In a call of its own: an interrupt that has come breaks off the one that blocks it.
        _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    numbers = {number for group in [*_undoings.values()] for number in group}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *numbers})
    for hooks in _hooks:
        hooks.before()


def _in_parent() -> None:
    for hooks in _hooks:
        hooks.in_parent()
    _take_interrupt()
    _unblock()
    _fork.is_unfinished = False


def _in_parent_again() -> None:
    if _fork.is_unfinished:
        _in_parent()


def _take_interrupt() -> None:
    """Keep an interrupt that waits until the hooks are over: what it raised would be ignored."""
    waits_for_us = _fork.mask is not None and signal.SIGINT not in _fork.mask
    if not (waits_for_us and callable(signal.getsignal(signal.SIGINT))):
        return
    # Not on macOS, which lacks it. No sigwait(): another thread may take the signal meanwhile.
    if hasattr(signal, "sigtimedwait") and signal.sigtimedwait({signal.SIGINT}, 0) is not None:
        _late.append(signal.SIGINT)


def _unblock() -> None:
    if _fork.mask is not None:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)
        finally:  # What was pending may have raised.
            _fork.mask = None


def _in_child() -> None:
    global forks  # noqa: PLW0603 - it is about the process.
    forks += 1
    try:
        for hooks in _hooks:
            hooks.in_child()
        for undo in reversed([*_undoings]):  # Each gives back the handlers of the one before.
            undo()
    finally:
        _undoings.clear()
        _let_in()


def _let_in() -> None:
    """Unblock the signals that are pending in this child."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # A KeyboardInterrupt raised in a hook would be ignored: until all are over, one ends it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _interrupt_handlers.append(signal.default_int_handler)
    _unblock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
    # An interrupt that another thread has received is not blocked, and breaks off the first one.
    os.register_at_fork(after_in_parent=_in_parent_again)
    # Without Python code, in which the interrupt would be raised, and ignored.
    os.register_at_fork(
        after_in_parent=partial(sorted, _late, key=_thread.interrupt_main),
        after_in_child=partial(
            sorted, _interrupt_handlers, key=partial(_signal.signal, signal.SIGINT)
        ),
    )


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
