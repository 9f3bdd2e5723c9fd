"""Stdout and stderr: the only place of the command line that writes to them.

Stdout has the answer: an answer that cannot be written, as on a full disk, is an error. A reader of
it that has gone, as in `| head`, is not one: the command goes on in silence and keeps its exit
code, and what prints without end asks `reader_gone()`. Stderr has messages: one that cannot be
written, as when the reader of a log has died, changes nothing.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, TextIO, cast


class _Stream:
    """What `sys.stdout` or `sys.stderr` is at the time of each call, as a file."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def encoding(self) -> str:
        """Its encoding; a stream without one gets ASCII."""
        return getattr(_file(self._name), "encoding", None) or "ascii"

    def __getattr__(self, name: str) -> Any:
        return getattr(_file(self._name), name)

    def write(self, text: str) -> int:
        """Write; what is buffered is not written before it is flushed."""
        try:
            _file(self._name).write(text)
        except (OSError, ValueError) as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            _file(self._name).flush()
        except (OSError, ValueError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        raise error


class _Stdout(_Stream):
    reader_gone = False

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, BrokenPipeError):
            raise error
        self.reader_gone = True
        _silence(_file(self._name))


class _Stderr(_Stream):
    def _failed(self, error: Exception) -> None:
        """No-op: there is no stream to write to."""


_stdout = _Stdout("stdout")
STDOUT = cast("TextIO", _stdout)
STDERR = cast("TextIO", _Stderr("stderr"))


def echo(text: object = "", *, err: bool = False, end: str = "\n") -> None:
    """Print one line, at once: on stdout, or on stderr. As print(), but in one write."""
    file = STDERR if err else STDOUT
    file.write(f"{text}{end}")
    file.flush()


def reader_gone() -> bool:
    """True once the reader of stdout is gone, so that printing more is useless."""
    return _stdout.reader_gone


def prepare() -> None:
    """Let no text fail for its encoding: what a stream cannot hold is escaped."""
    _stdout.reader_gone = False
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def settle() -> None:
    """Flush both for the last time; what cannot be written goes nowhere.

    The interpreter flushes them at its very end as well, and ends with 120 where that fails. Let
    this be the last to run before: what is registered first with `atexit` runs last.
    """
    for name in ("stdout", "stderr"):
        try:
            _file(name).flush()
        except Exception:  # noqa: BLE001 - it may be an app's own; the exit code is decided.
            _silence(_file(name))


def _file(name: str) -> Any:
    file = getattr(sys, name)
    # While rich shows a progress bar, it has a proxy there, which prints on the bar's console.
    return getattr(file, "rich_proxied_file", file)


def _silence(file: Any) -> None:
    """Point its descriptor at /dev/null, which takes the rest of the buffer."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = file.fileno()
        with Path(os.devnull).open("wb") as sink:
            os.dup2(sink.fileno(), descriptor)
