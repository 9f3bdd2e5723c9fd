"""Logs for machines: a JSON formatter, and a filter that says which job a line is of.

For the logging of an application's own:
`{"formatters": {"json": {"()": "jobqueue.logs.JsonFormatter"}}}` for `logging.config.dictConfig`.
"""

import json
import logging
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from jobqueue.worker.handler.context import running_attempt
from jobqueue.worker.log_context import job_of, worker_name

CONTEXT = ("job", "task", "queue", "attempt", "worker")
FIELDS = (*CONTEXT, "event", "duration", "error_type")
"""What each line has, if only as null."""
_OWN = ("time", "level", "logger", "message", "traceback", "stack")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class ContextFilter(logging.Filter):
    """Gives a record `job`, `task`, `queue`, `attempt` and `worker`; None where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass; what it was passed as `extra=` stays."""
        for name, value in context_of(record).items():
            setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per record, on one line of ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line; never raises, whatever the record holds."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
            **dict.fromkeys(FIELDS),
            **context_of(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error_type"] = record.exc_info[0].__qualname__
        for name, value in extras_of(record):
            line[f"extra_{name}" if name in _OWN else name] = plain(value)
        if trace := traceback_of(self, record):
            line["traceback"] = trace
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line).replace("\x7f", "\\u007f")


def context_of(record: logging.LogRecord) -> dict[str, Any]:
    """The job and the worker that a record is of: as it says itself, else by where it is made.

    Call it in the thread that made the record.
    """
    running = running_attempt()
    found: dict[str, Any] = dict.fromkeys(CONTEXT)
    if running is not None:
        found |= job_of(running.claim)
    found["worker"] = worker_name()
    said = vars(record)
    return {name: said.get(name) or value for name, value in found.items()}


def extras_of(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """What was passed as `extra=`."""
    return (item for item in vars(record).items() if item[0] not in _STANDARD)


def message_of(record: logging.LogRecord) -> str:
    """The message; one whose arguments do not fit is told with what is wrong with it."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments may do anything.
        shown = f"{_text(record.msg)} with arguments {_text(record.args)}"
        return f"{shown} (cannot be formatted: {type(error).__name__}: {_text(error)})"


def traceback_of(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """The traceback as text, if there is one."""
    if record.exc_text:
        return record.exc_text
    if not record.exc_info or record.exc_info[0] is None:
        return None
    try:
        return formatter.formatException(record.exc_info)
    except Exception as error:  # noqa: BLE001 - an exception's __str__ may do anything.
        return f"<the traceback cannot be had: {type(error).__name__}>"


def plain(value: object) -> Any:
    """A value as JSON has it; what JSON does not know becomes text, and NaN null."""
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    try:
        return json.loads(json.dumps(value, default=_text), parse_constant=lambda _name: None)
    except Exception:  # noqa: BLE001 - such as keys of other types, or a circle.
        return _text(value)


def _text(value: object) -> str:
    try:
        return value.isoformat() if isinstance(value, datetime) else str(value)
    except Exception as error:  # noqa: BLE001 - a __str__ may do anything.
        return f"<{type(value).__name__}: str() raised {type(error).__name__}>"
