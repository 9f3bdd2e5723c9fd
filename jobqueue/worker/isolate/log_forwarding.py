"""Forwards log records of a child process to the log of its worker."""

import logging
from collections.abc import Callable
from typing import Any

from jobqueue.loggers import OwnHandler, get_logger, root_handlers
from jobqueue.logs import extras_of, message_of, plain, traceback_of
from jobqueue.worker.handler.describe import type_name

_SENT = (
    *("name", "levelno", "levelname", "created", "msecs", "stack_info"),
    *("pathname", "filename", "module", "lineno", "funcName", "process", "threadName"),
)


class ForwardingHandler(OwnHandler):
    """Sends records to the worker, except those that the application's own handlers take here."""

    def __init__(
        self, send: Callable[..., None], deferring: Callable[[Callable[[], None]], None]
    ) -> None:
        super().__init__()
        self._send = send
        self._deferring = deferring

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if not root_handlers():
            # Otherwise logging would report an exception of the signal handler as the record's.
            self._deferring(lambda: self._forward(record))

    def _forward(self, record: logging.LogRecord) -> None:
        said = vars(record)
        fields = {name: plain(value) for name, value in extras_of(record).items()}
        if record.exc_info and record.exc_info[0] is not None:
            fields.setdefault("error_type", type_name(record.exc_info[0]))
        fields |= {name: said[name] for name in _SENT}
        self._send(
            log=fields | {"msg": message_of(record), "exc_text": traceback_of(_FORMATTER, record)}
        )


def replay(fields: dict[str, Any]) -> None:
    """Log a record of a child in this process, if its logger is enabled for the level."""
    name = fields["name"]
    ours = name.startswith("jobqueue.")
    logger = logging.getLogger(name)
    if (get_logger(name) if ours else logger).isEnabledFor(fields["levelno"]):
        logger.handle(logging.makeLogRecord(fields))


_FORMATTER = logging.Formatter()
