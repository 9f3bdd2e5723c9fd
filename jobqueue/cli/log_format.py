"""The log on stderr: text, or a JSON object per line."""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import click

from jobqueue.cli.context import cli_of
from jobqueue.cli.params import F, all_of
from jobqueue.cli.streams import STDERR
from jobqueue.cli.tables import console
from jobqueue.loggers import OwnHandler, get_logger, is_default, root_handlers
from jobqueue.logs import JsonFormatter, context_of, message_of, traceback_of
from jobqueue.printable_text import escape_controls, escape_lines
from jobqueue.worker.json_stderr import JsonStream, captured

log = get_logger("jobqueue.cli")

COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
LEVELS = ("debug", "info", "warning", "error", "critical")


class TextFormatter(logging.Formatter):
    """`07:45:12.123 WARNING worker: job 7 …`, the traceback below."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line or more; what a job's code logs starts with the job."""
        at = datetime.fromtimestamp(record.created, UTC).astimezone()
        where = record.name.removeprefix("jobqueue.")
        level = f"{record.levelname:<7}"
        if self._colours and record.levelname in COLOURS:
            level = f"\x1b[{COLOURS[record.levelname]}m{level}\x1b[0m"
        line = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {level} {where}: "
        message, context = message_of(record), context_of(record)
        if context["job"] is not None and not record.name.startswith("jobqueue."):
            line += escape_controls(f"job {context['job']} ({context['task']}): ")
        line += escape_controls(message)
        for more in (traceback_of(self, record), record.stack_info):
            if more:
                line += "".join(f"\n  {part}" for part in escape_lines(more))
        return line


class _Handler(OwnHandler, logging.StreamHandler[Any]):
    """Writes to stderr; a closed stderr does not stop a worker."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name.
        """Ignore errors of writing: there is no stream left to report them on."""


def options(command: F) -> F:
    """Give a command `--log-format` and `--log-level`; `configured()` takes them.

    With JSON, what anything writes to stderr while the command runs is JSON.
    """

    @functools.wraps(command)
    def run(*args: Any, log_format: str, **given: Any) -> Any:
        with _json_stderr() if log_format == "json" else contextlib.nullcontext():
            return command(*args, log_format=log_format, **given)

    add = all_of(
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            is_eager=True,
            callback=_remember,
            help="Format of the log on stderr, unless the app configures logging.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(LEVELS, case_sensitive=False),
            help="Lowest level to log. [default: info]",
        ),
    )
    return cast("F", add(run))


def _remember(context: click.Context, _parameter: click.Parameter, kind: str) -> str:
    """Store the format early, for an error in another option."""
    cli_of(context).log_json = kind == "json"
    return kind


@contextlib.contextmanager
def _json_stderr() -> Iterator[None]:
    output = stdout_on_stderr if _is_one_stream() else contextlib.nullcontext
    with _ended(JsonStream(sys.stderr)) as stream, contextlib.redirect_stderr(stream), output():
        yield


def _is_one_stream() -> bool:
    """True if stdout and stderr are one file, as after `2>&1`."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False


@contextlib.contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """Redirect stdout to stderr, in its format."""
    if isinstance(sys.stderr, JsonStream):
        output: AbstractContextManager[TextIO] = _ended(JsonStream(sys.stderr.beneath, "stdout"))
    else:
        output = contextlib.nullcontext(STDERR)
    with output as stream, contextlib.redirect_stdout(stream):
        yield


@contextlib.contextmanager
def _ended(stream: JsonStream) -> Iterator[TextIO]:
    try:
        yield cast("TextIO", stream)
    finally:
        with contextlib.suppress(OSError, ValueError):  # The stream is closed.
            stream.end()


@contextlib.contextmanager
def configured(kind: str, level: str | None, *, debug: bool) -> Iterator[None]:
    """Log to stderr, unless the app has set up logging: then all is as it wants, with no handler.

    Call it when the app is loaded. A level that is given holds for our own lines in either case;
    `debug` is DEBUG for those.
    """
    root, ours = logging.getLogger(), logging.getLogger("jobqueue")
    before = root.level, ours.level
    replaced, handler = [each for each in root.handlers if is_default(each)], None
    chosen = None if level is None else level.upper()
    if root_handlers():
        if kind == "json":
            log.warning("--log-format: the app sets up logging itself, and its format holds")
    else:
        handler = _handler(kind)
        for each in replaced:
            root.removeHandler(each)
        root.addHandler(handler)
        if chosen is not None or root.level == logging.WARNING:  # The default.
            root.setLevel(chosen or logging.INFO)
    if debug or chosen is not None:
        ours.setLevel(logging.DEBUG if debug else str(chosen))
    try:
        with captured() if handler is not None and kind == "json" else contextlib.nullcontext():
            yield
    finally:
        if handler is not None:
            root.removeHandler(handler)
            for each in replaced:
                root.addHandler(each)
        root.setLevel(before[0])
        ours.setLevel(before[1])


def _handler(kind: str) -> _Handler:
    handler = _Handler(sys.stderr.beneath if isinstance(sys.stderr, JsonStream) else sys.stderr)
    screen = console(stderr=True)
    colours = screen.is_terminal and not screen.no_color
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter(colours=colours))
    return handler
