"""Finds database URL, app and pool size: argument, environment, pyproject.toml, default."""

import os
import tomllib
from typing import Any, NamedTuple

from jobqueue import options, paths
from jobqueue.errors import ConfigurationError, type_of

DEFAULT_URL = "sqlite:///jobqueue.db"
POOL_SIZE = "JOBQUEUE_POOL_SIZE"
POOL_MAX = 1000
APP_OF_WORKER = " --app MODULE:NAME"
WORKER = f"jobqueue worker{APP_OF_WORKER}"
"""The command that advice begins with; the command line puts in the app that it knows."""


class Database(NamedTuple):
    """The database to use."""

    url: str
    named: bool
    """False if nothing names a database, so that `url` is the default."""
    folder: str | None = None
    """That of the pyproject.toml that names it, where a relative path begins; None: the current."""


def database(given: str | None) -> Database:
    """Return the first of: `given`, $JOBQUEUE_URL, pyproject.toml, the default.

    Raises ConfigurationError for a URL that is empty or not text.
    """
    if given is not None and not isinstance(given, str):
        raise ConfigurationError(
            f"the database URL is not text but {type_of(given)}; write sqlite:///app.db or "
            "postgresql://user@host/name, or url.render_as_string(hide_password=False)",
            field="url",
        )
    if given is not None and not given.strip():
        raise ConfigurationError("the database URL is empty", field="url")
    url, folder = _setting(given, "url", "JOBQUEUE_URL")
    if url is None:
        return Database(DEFAULT_URL, named=False)
    return Database(url, named=True, folder=folder)


def find_app(given: str | None) -> tuple[str | None, str | None]:
    """Return `module:attribute` of the app: `given`, $JOBQUEUE_APP, pyproject.toml, or None.

    With it the folder of the pyproject.toml, where that names it.
    """
    return _setting(given, "app", "JOBQUEUE_APP")


def pool_size(given: int | None) -> int | None:
    """Return how many connections a process may open: $JOBQUEUE_POOL_SIZE, `given`, or None.

    The environment, which `jobqueue worker --pool-size` sets for its children too, wins: who runs a
    program knows the server. Raises InvalidOption outside of 1 to 1,000.
    """
    text = os.environ.get(POOL_SIZE) or None
    if text is not None:
        return options.whole(options.integer(text), f"${POOL_SIZE}", 1, POOL_MAX)
    return None if given is None else options.whole(given, "pool_size", 1, POOL_MAX)


def _setting(given: str | None, name: str, variable: str) -> tuple[str | None, str | None]:
    """Return a setting, and the folder of the pyproject.toml that it is from, if it is."""
    if text := given or os.environ.get(variable):
        return text, None
    folder, table = _project()
    value = table.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(
            f"[tool.jobqueue] {name} in pyproject.toml: {value!r} is not text", field=name
        )
    return value, None if value is None else folder


def _project() -> tuple[str | None, dict[str, Any]]:
    """Return the folder of the nearest pyproject.toml, and its table [tool.jobqueue], or {}."""
    here = paths.current()
    for parent in (here, *here.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            try:
                with path.open("rb") as file:
                    tool = tomllib.load(file).get("tool", {})
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigurationError(f"{path}: {error}", field="pyproject.toml") from None
            table = tool.get("jobqueue", {}) if isinstance(tool, dict) else tool
            if not isinstance(table, dict):
                raise ConfigurationError(f"{path}: [tool.jobqueue] is not a table")
            return str(parent), table
    return None, {}
