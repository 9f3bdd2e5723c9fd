"""The package's loggers, `jobqueue.*`, which `logging.config` does not disable.

By default it disables every existing logger that the configuration does not name, so that an
application which configures logging in its own module would silence its worker. Its settings for
`jobqueue` itself hold: level, handlers, `propagate`.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from jobqueue.printable_text import escape_controls, escape_lines


class Logger(logging.LoggerAdapter[logging.Logger]):
    """Enables its logger again before each record."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name.
        """See `logging.Logger`; every method that logs calls this first."""
        self.logger.disabled = False
        return super().isEnabledFor(level)

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> Any:
        """Keep `extra=`, which an adapter would replace by its own."""
        return msg, kwargs

    def log_error(
        self,
        level: int,
        message: str,
        *args: object,
        traceback: str | None,
        extra: Mapping[str, object],
    ) -> None:
        """Like `log()`, with a traceback as text: the attempt may have run in a child process."""
        if not self.isEnabledFor(level):
            return
        file, line, function, _ = self.logger.findCaller(stacklevel=2)
        record = self.logger.makeRecord(
            self.logger.name, level, file, line, message, args, None, function, extra
        )
        # Where logging keeps an exception's text, and where every formatter looks for one.
        record.exc_text = traceback and "\n".join(escape_lines(traceback.rstrip("\n")))
        self.logger.handle(record)


def get_logger(name: str) -> Logger:
    """Return the logger of that name, whose lines are harmless to a terminal."""
    logger = logging.getLogger(name)
    logger.addFilter(_escape)
    return Logger(logger)


def _escape(record: logging.LogRecord) -> bool:
    """Keep the values of a line, which come from the data, on that line in any format."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            escape_controls(value) if isinstance(value, str | BaseException) else value
            for value in record.args
        )
    return True


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Drop records below WARNING that this thread makes with these loggers."""
    own = threading.get_ident()

    def is_loud(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or threading.get_ident() != own

    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(is_loud)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_loud)


class OwnHandler(logging.Handler):
    """The package's handler at the root, which leaves records to the application's handlers."""

    def filter(self, record: logging.LogRecord) -> Any:
        """Skip a record that a handler of the application takes below the root."""
        return not is_taken(record) and super().filter(record)


def is_taken(record: logging.LogRecord) -> bool:
    """True if a handler of the application takes the record below the root."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        for handler in logger.handlers:
            if record.levelno >= handler.level and not isinstance(handler, logging.NullHandler):
                return True
        logger = logger.parent
    return False


def root_handlers() -> list[logging.Handler]:
    """Return the application's handlers at the root; if there are any, it has set up logging.

    The one that `logging.warning()` makes where nothing was set up does not count.
    """
    return [
        handler
        for handler in logging.getLogger().handlers
        if not isinstance(handler, OwnHandler | logging.NullHandler) and not is_default(handler)
    ]


def is_default(handler: logging.Handler) -> bool:
    """True for the handler of a bare `logging.basicConfig()`, which functions of `logging` call."""
    return (
        type(handler) is logging.StreamHandler
        and handler.formatter is not None
        and getattr(handler.formatter, "_fmt", None) == logging.BASIC_FORMAT
        and logging.getLogger().level == logging.WARNING
    )
