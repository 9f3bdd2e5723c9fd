"""Where the database and the app are: an argument, the environment, pyproject.toml, a default."""

import os
import tomllib
from typing import Any, NamedTuple

from jobqueue import options, paths
from jobqueue.errors import ConfigurationError

DEFAULT_URL = "sqlite:///jobqueue.db"
POOL_SIZE = "JOBQUEUE_POOL_SIZE"
POOL_MAX = 1000


class Database(NamedTuple):
    """A database to use."""

    url: str
    named: bool
    """Somebody has named it; False: it is the default."""


def database(given: str | None) -> Database:
    """Which one to use; `given` wins over $JOBQUEUE_URL, pyproject.toml and the default."""
    if given is not None and not isinstance(given, str):
        raise ConfigurationError(
            f"the database URL is not text but a {type(given).__name__}; write sqlite:///app.db or "
            "postgresql://user@host/name, or url.render_as_string(hide_password=False)",
            field="url",
        )
    if given is not None and not given.strip():
        raise ConfigurationError("the database URL is empty", field="url")
    url = given or _setting("url", "JOBQUEUE_URL")
    return Database(DEFAULT_URL, named=False) if url is None else Database(url, named=True)


def database_url(given: str | None) -> str:
    """The URL of `database(given)`."""
    return database(given).url


def app_name(given: str | None) -> str | None:
    """`module:attribute` of the app to use, or None where none is named."""
    return given or _setting("app", "JOBQUEUE_APP")


def pool_size(given: int | None) -> int | None:
    """How many connections a process may open; None where nobody says. Raises InvalidOption.

    The environment comes first, which `jobqueue worker --pool-size` sets for its children too: who
    runs a program knows the server.
    """
    text = os.environ.get(POOL_SIZE) or None
    if text is not None:
        wanted = int(text) if text.isdecimal() else text
        return options.whole(wanted, f"${POOL_SIZE}", 1, POOL_MAX)
    return None if given is None else options.whole(given, "pool_size", 1, POOL_MAX)


def _setting(name: str, variable: str) -> str | None:
    value = os.environ.get(variable) or _project().get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(
            f"[tool.jobqueue] {name} in pyproject.toml: {value!r} is not text", field=name
        )
    return value


def _project() -> dict[str, Any]:
    """The table [tool.jobqueue] of the nearest pyproject.toml."""
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
            return table
    return {}
