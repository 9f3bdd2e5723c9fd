"""What a worker writes on stderr: text for people, or a JSON object per line."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from jobqueue.cli.render import console
from jobqueue.cli.safe import inert, inert_json, inert_lines

COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


class TextFormatter(logging.Formatter):
    """`07:45:12 WARNING worker: job 7 …`, the traceback below."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line, or a few."""
        at = datetime.fromtimestamp(record.created, UTC).astimezone()
        where = record.name.removeprefix("jobqueue.")
        level = f"{record.levelname:<7}"
        if self._colours and record.levelname in COLOURS:
            level = f"\x1b[{COLOURS[record.levelname]}m{level}\x1b[0m"
        line = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {level} {where}: "
        line += inert(record.getMessage())
        if record.exc_info:
            lines = inert_lines(self.formatException(record.exc_info))
            line += "".join(f"\n  {part}" for part in lines)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return inert_json(line, ascii_only=True)


class _Handler(logging.StreamHandler[Any]):
    """Writes to stderr; a stderr that is gone stops no worker."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name.
        """Let it be."""


@contextlib.contextmanager
def configured(kind: str, *, debug: bool) -> Iterator[None]:
    """Give the loggers `jobqueue.*` a handler, unless the app has; the root is never touched."""
    logger = logging.getLogger("jobqueue")
    before = logger.level, logger.propagate
    if logger.level == logging.NOTSET or debug:
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
    handler = None if logger.handlers else _Handler(sys.stderr)
    if handler is not None:
        handler.setFormatter(_formatter(kind))
        logger.addHandler(handler)
        # An app that has set up the root would otherwise say everything twice.
        logger.propagate = False
    try:
        yield
    finally:
        if handler is not None:
            logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _formatter(kind: str) -> logging.Formatter:
    if kind == "json":
        return JsonFormatter()
    screen = console(stderr=True)
    return TextFormatter(colours=screen.is_terminal and not screen.no_color)
