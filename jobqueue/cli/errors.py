"""Turn every error into one line on stderr and an exit code."""

import contextlib
import logging
import traceback

import click
from rich.text import Text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobqueue.cli.context import CliContext, to_json
from jobqueue.cli.streams import echo
from jobqueue.cli.tables import console, put
from jobqueue.config import database
from jobqueue.display import first_line
from jobqueue.errors import (
    ConfigurationError,
    EnqueueRefused,
    InvalidArguments,
    InvalidOption,
    JobQueueError,
    SchemaNewer,
    SchemaOutdated,
    UnknownTask,
)
from jobqueue.json_forms import error_json
from jobqueue.logs import JsonFormatter
from jobqueue.printable_text import escape_controls, escape_lines
from jobqueue.store.urls import redact, secrets_of
from jobqueue.worker.handler.describe import type_name

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

# Words of a database's message, in lower case, and the remedy.
_REMEDIES = [
    ("password authentication failed", "check the user and the password of the URL"),
    ("no password supplied", "the URL needs a password, or use ~/.pgpass"),
    ("does not exist", "create it first, or check the URL"),
    ("resolve host", "check the host in the URL"),
    ("translate host name", "check the host in the URL"),
    ("connection refused", "is the server running, and are host and port of the URL right?"),
    ("timeout", "is the server reachable, and are host and port of the URL right?"),
    ("no such file or directory", "is the server running?"),
    ("unable to open database file", "may this user read and write the file and its folder?"),
    ("readonly database", "may this user write the file and its folder?"),
    ("not a database", "the file is something else; check the URL"),
    ("malformed", "the file is damaged; restore it from a backup"),
    ("locked", "another process holds it; try again"),
    ("disk is full", "make room and try again"),
    ("no such table", "is it jobqueue's database? check with: jobqueue db check"),
    ("no such column", "is it jobqueue's database? check with: jobqueue db check"),
    ("permission denied", "the role of the URL needs more rights, see docs/roles.md"),
]


class CliError(click.ClickException):
    """An error of a command, with its exit code."""

    def __init__(
        self, message: str, *, code: int = FAILED, field: str | None = None, value: object = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.value = value


def report(error: BaseException, cli: CliContext) -> int:
    """Print an error on stderr as one line or one JSON object; returns the exit code."""
    failure = describe(error, cli)
    message = in_one_line(failure, cli)
    trace = None
    if cli.debug:
        trace = redact("".join(traceback.format_exception(error)), _secrets(cli)).rstrip()
    if cli.log_json:
        echo(_as_record(message, error, trace), err=True)
    elif trace is not None:
        echo("\n".join(escape_lines(trace)), err=True)
    if cli.json:
        inner = error_json(message, failure.field, failure.value)
        if isinstance(inner["value"], str):
            inner["value"] = redact(escape_controls(inner["value"]), _secrets(cli))
        echo(to_json({"error": inner}), err=True)
    elif not cli.log_json:
        print_error(message)
    return failure.code


def in_one_line(error: BaseException, cli: CliContext) -> str:
    """Return an error in one line, without controls and passwords."""
    said = " ".join(describe(error, cli).message.split())
    return escape_controls(redact(said, _secrets(cli)))


def _as_record(message: str, error: BaseException, trace: str | None) -> str:
    """An error as a line of a log in JSON."""
    record = logging.LogRecord("jobqueue.cli", logging.ERROR, "", 0, message, None, None)
    record.error_type, record.exc_text = type_name(type(error)), trace
    return JsonFormatter().format(record)


def _hint(error: click.UsageError) -> str:
    """Return what a new user may have meant, unless the error names a similar option."""
    hints = getattr(error.ctx and error.ctx.command, "hints", {})
    hint = None if getattr(error, "possibilities", None) else hints.get(type(error))
    return f"; {hint}" if hint else ""


def describe(error: BaseException, cli: CliContext) -> CliError:  # noqa: PLR0911 - a table.
    """Return an error as the command line shows it, with its exit code."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, click.UsageError):
        seen = f"; see {error.ctx.command_path} --help" if error.ctx is not None else ""
        field = getattr(getattr(error, "param", None), "name", None)
        said = error.format_message().rstrip(". ") + _hint(error) + seen
        return CliError(said, code=MISUSED, field=field)
    if isinstance(error, click.ClickException):
        return CliError(error.format_message(), code=MISUSED)
    if isinstance(error, JobQueueError):
        is_input = (
            ConfigurationError,
            EnqueueRefused,
            InvalidArguments,
            InvalidOption,
            UnknownTask,
        )
        schema = (SchemaOutdated, SchemaNewer)
        bad = isinstance(error, is_input) and not isinstance(error, schema)
        code = MISUSED if bad else FAILED
        return CliError(str(error), code=code, field=error.field, value=error.value)
    if isinstance(error, DBAPIError | PoolTimeout):
        return CliError(_database(error, cli), field="url" if _is_connection(error) else None)
    if isinstance(error, SQLAlchemyError):
        return CliError(f"database: {_first_line(error)}")
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return CliError(f"{name}{error.strerror or error}")
    what = f"{type(error).__name__}: {_first_line(error)}".rstrip(": ")
    return CliError(f"unexpected {what}; this is a bug: --debug shows where")


def _database(error: DBAPIError | PoolTimeout, cli: CliContext) -> str:
    text = _first_line(getattr(error, "orig", None) or error)
    remedy = next((remedy for words, remedy in _REMEDIES if words in text.lower()), "")
    target = "the database"
    if "database" in cli.__dict__:
        target += f" {cli.target}"
    verb = "cannot be reached" if _is_connection(error) else "says"
    return f"{target} {verb}: {text}" + (f"; {remedy}" if remedy else "")


def _is_connection(error: BaseException) -> bool:
    """True if the connection to the database failed."""
    orig = getattr(error, "orig", None)
    if type(orig).__name__ != "OperationalError":
        return False
    name = getattr(orig, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(("SQLITE_CANTOPEN", "SQLITE_NOTADB"))
    return getattr(orig, "sqlstate", None) is None


def _first_line(error: object) -> str:
    return first_line(str(error))[:400] or type(error).__name__


def _secrets(cli: CliContext) -> frozenset[str]:
    known = cli.__dict__.get("database")
    found = secrets_of(known.url) if known else frozenset()
    with contextlib.suppress(Exception):  # The URL that is named may be the error.
        found |= secrets_of(database(cli.given_url).url)
    return found


def print_error(message: str) -> None:
    """Print an error on stderr, red where that is a terminal with colours."""
    put(console(stderr=True), Text(f"error: {escape_controls(message)}", "red"))
