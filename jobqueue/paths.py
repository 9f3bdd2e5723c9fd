"""The base folder of relative paths: a path is resolved once, when it is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobqueue.errors import ConfigurationError

_of_program: Path | None = None


def current() -> Path:
    """Return the base folder. Raises ConfigurationError if it was deleted."""
    if _of_program is not None:
        return _of_program
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
    """Resolve relative paths from `path` while a child process imports the program.

    It is the folder in which the parent was started: a handler may have changed the current folder
    since, which the child inherits.
    """
    global _of_program  # noqa: PLW0603 - of the process, as the current folder is.
    before, _of_program = _of_program, None if path is None else Path(path)
    try:
        yield
    finally:
        _of_program = before
