"""Makes JSON of all that is written to stderr, for a worker that logs JSON.

Such as warnings, `print(…, file=sys.stderr)`, a thread's traceback. Where the application has set
up logging, the format is its own, and all passes as it is.
"""

import contextlib
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

from jobqueue.loggers import root_handlers
from jobqueue.logs import JsonFormatter

LINE_MAX = 65_536
"""Characters after which a line is written even without a newline."""


@contextlib.contextmanager
def captured() -> Iterator[None]:
    """Log each warning, and each exception that ends a thread, as one record."""
    hook = threading.excepthook
    logging.captureWarnings(True)
    if hook is threading.__excepthook__:
        threading.excepthook = _log_thread
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.captureWarnings(False)


def _log_thread(error: threading.ExceptHookArgs) -> None:
    if error.exc_value is not None and error.exc_type is not SystemExit:
        name = "?" if error.thread is None else error.thread.name
        how = (error.exc_type, error.exc_value, error.exc_traceback)
        logging.getLogger("threading").error("thread %s has ended by this", name, exc_info=how)


class JsonStream(io.TextIOBase):
    """Writes each line as a record of the logger `stderr` or `stdout`, unless it is JSON already.

    May be used by any thread.
    """

    def __init__(self, stream: Any, name: str = "stderr") -> None:
        super().__init__()
        self.beneath = stream
        """The stream to which the lines are written."""
        self._name = name
        self._formatter = JsonFormatter()
        self._begun: dict[int, str] = {}
        """The incomplete line of each thread."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Whatever is written leaves as ASCII."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """See `io.TextIOBase`."""
        return "backslashreplace"

    @property
    def buffer(self) -> Any:
        """For bytes, which pass as they are."""
        return self.beneath.buffer

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def fileno(self) -> int:
        """See `io.IOBase`."""
        return int(self.beneath.fileno())

    def flush(self) -> None:
        """Write the complete lines; an incomplete one waits for its newline."""
        self.beneath.flush()

    def write(self, text: str) -> int:
        """Write the lines that end in this text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if root_handlers():
            self.beneath.write(text)
            return len(text)
        own = threading.get_ident()
        *lines, rest = (self._begun.pop(own, "") + text).split("\n")
        if len(rest) > LINE_MAX:
            lines, rest = [*lines, rest], ""
        if rest:
            self._begun[own] = rest
        for line in lines:
            self._write_line(line)
        return len(text)

    def end(self) -> None:
        """Write the incomplete lines."""
        while self._begun:
            self._write_line(self._begun.popitem()[1])

    def _write_line(self, text: str) -> None:
        if not text.strip():
            return
        if not _is_object(text):
            level = logging.WARNING if self._name == "stderr" else logging.INFO
            record = logging.LogRecord(self._name, level, "", 0, text, None, None)
            text = self._formatter.format(record)
        with contextlib.suppress(OSError, ValueError):  # A closed log must not fail a job.
            self.beneath.write(text + "\n")
            self.beneath.flush()


def _is_object(line: str) -> bool:
    """True for a line of JSON already, such as one of a handler that the application has made."""
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def is_json(stream: object) -> bool:
    """True if what is written to that stream becomes JSON."""
    return isinstance(stream, JsonStream) and not root_handlers()
