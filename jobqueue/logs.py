"""A JSON formatter for logs, and what adds the job to each record, of logging or of structlog.

In an application's own configuration:
`{"formatters": {"json": {"()": "jobqueue.logs.JsonFormatter"}}}` for `logging.config.dictConfig`.
"""

import json
import logging
import math
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from jobqueue.worker.handler.context import running_attempt
from jobqueue.worker.handler.describe import type_name
from jobqueue.worker.log_context import job_of, worker_name

CONTEXT = ("job", "task", "queue", "attempt", "worker")
FIELDS = (*CONTEXT, "event", "duration", "error_type")
"""Every line has these; null where there is no value."""
_OWN = ("time", "level", "logger", "message", "traceback", "stack")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TAKEN = _STANDARD | {*FIELDS, *_OWN}


class ContextFilter(logging.Filter):
    """Adds `job`, `task`, `queue`, `attempt` and `worker` to a record; None outside of a job.

    Also what structlog has bound.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True always. Values passed as `extra=` stay."""
        for name, value in (extras_of(record) | context_of(record)).items():
            setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line of ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Never raises, whatever the record holds."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
            **dict.fromkeys(FIELDS),
            **context_of(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error_type"] = type_name(record.exc_info[0])
        for name, value in extras_of(record).items():
            line[f"extra_{name}" if name in _OWN else name] = plain(value)
        if trace := traceback_of(self, record):
            line["traceback"] = trace
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line).replace("\x7f", "\\u007f")


def context_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the record's CONTEXT: its own `extra=`, else that of the job that this thread runs.

    Call it in the thread that made the record.
    """
    said = vars(record)
    return {name: said.get(name) or value for name, value in _context().items()}


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was passed as `extra=`, and structlog's context; of two equal names the first.

    Call it in the thread that made the record.
    """
    said = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return _structlog_context() | said


def add_job(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> Any:
    """Add the CONTEXT of a handler to a line: a processor for `structlog.configure`."""
    for name, value in _context().items():
        if value is not None:
            event_dict.setdefault(name, value)
    return event_dict


def _context() -> dict[str, Any]:
    """Return the CONTEXT of what this thread runs."""
    running = running_attempt()
    found: dict[str, Any] = dict.fromkeys(CONTEXT)
    if running is not None:
        found |= job_of(running.claim)
    found["worker"] = worker_name()
    return found


def _structlog_context() -> dict[str, Any]:
    """Return what the program has bound by `structlog.contextvars`, if it has imported that."""
    module = sys.modules.get("structlog.contextvars")
    bound = {} if module is None else module.get_contextvars()
    return {f"extra_{name}" if name in _TAKEN else name: value for name, value in bound.items()}


def message_of(record: logging.LogRecord) -> str:
    """Return the message; if its arguments do not fit, with the error."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments may do anything.
        shown = f"{_text(record.msg)} with arguments {_text(record.args)}"
        return f"{shown} (cannot be formatted: {type(error).__name__}: {_text(error)})"


def traceback_of(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """Return the traceback as text, or None."""
    if record.exc_text:
        return record.exc_text
    if not record.exc_info or record.exc_info[0] is None:
        return None
    try:
        return formatter.formatException(record.exc_info)
    except Exception as error:  # noqa: BLE001 - an exception's __str__ may do anything.
        return f"<the traceback cannot be had: {type(error).__name__}>"


def plain(value: object) -> Any:
    """Return a value that JSON can hold: other types become text, NaN becomes None."""
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
