"""The base folder of relative paths: a path is resolved once, when it is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from jobqueue.errors import ConfigurationError

_base: ContextVar[Path | None] = ContextVar("base folder of relative paths", default=None)


def current() -> Path:
    """Return the base folder. Raises ConfigurationError if it was deleted."""
    if (base := _base.get()) is not None:
        return base
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigurationError(
            "the current folder was deleted, so a relative path leads nowhere: "
            "go to another folder, or give an absolute path",
            field="url",
        ) from None


@contextmanager
def meant_from(path: str | None) -> Iterator[None]:
    """Resolve relative paths from `path` in the block; None changes nothing.

    It is the folder of the pyproject.toml that has the path; or, while a child process imports the
    program, the folder in which the parent was started: a handler may have changed the current
    folder since, which the child inherits.
    """
    token = _base.set(_base.get() if path is None else Path(path))
    try:
        yield
    finally:
        _base.reset(token)
