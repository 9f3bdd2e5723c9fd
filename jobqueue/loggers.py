"""The library's loggers, `jobqueue.*`, which tell of failures whatever else has been disabled.

`logging.config` disables by default every logger that is there and that the configuration does not
name: so an application that sets up logging in its own module would silence its worker. What it
says of `jobqueue` by name, a level, handlers, `propagate`, holds.
"""

import logging


class Logger(logging.LoggerAdapter[logging.Logger]):
    """Enables its logger again whenever it has something to say."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name.
        """See `logging.Logger`; every method that writes asks this first."""
        self.logger.disabled = False
        return super().isEnabledFor(level)


def get_logger(name: str) -> Logger:
    """The logger of that name."""
    return Logger(logging.getLogger(name))
