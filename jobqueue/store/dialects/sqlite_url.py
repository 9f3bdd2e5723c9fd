"""SQLite URLs for any driver, reduced to one absolute path without options."""

from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL

from jobqueue import paths
from jobqueue.errors import ConfigurationError

DRIVERS = ("", "pysqlite", "aiosqlite")
MEANINGLESS = (
    *("timeout", "check_same_thread", "isolation_level", "detect_types", "cached_statements"),
    "cache",  # shared pages between connections of one process
)
"""Options for the application that shares the URL; our connections have their own settings."""

_YES = ("true", "yes", "on", "y", "t", "1")
_NAMED = 3  # options in one message


def canonical(url: URL) -> URL:
    """Return the URL with an absolute path and without another driver's options.

    Raises ConfigurationError that names an unknown option: it might make the application open
    another file, or open the file in another way than jobqueue does.
    """
    driver = url.drivername.partition("+")[2]
    if driver not in DRIVERS:
        raise _error(
            f"jobqueue cannot open what the driver {driver!r} opens; write sqlite:///file.db"
        )
    if url.username or url.password or url.port:
        raise _error(
            "a SQLite URL has no user, password or port; write sqlite:////absolute/path.db"
        )
    given = {key: value for key, value in url.query.items() if key not in MEANINGLESS}
    database = url.database
    if str(given.pop("uri", "")).lower() in _YES:
        if database and not database.startswith("file:"):
            raise _error("uri=true needs a path that begins with file: in a SQLite URL")
        database = _path_of_uri(database or "")
    if unknown := sorted(set(given) - {"mode"}):
        names = " and ".join(repr(name[:40]) for name in unknown[:_NAMED])
        verb = "is not an option" if len(unknown) == 1 else "are not options"
        raise _error(f"{names} {verb} of a SQLite URL; write sqlite:///{database or 'jobqueue.db'}")
    if given.get("mode", "rwc") not in ("rw", "rwc"):
        raise _error("'mode' of a SQLite URL: a job queue writes to its file; leave the option out")
    if database and database != ":memory:" and not Path(database).is_absolute():
        database = str(paths.current() / database)
    # The only option that is kept: mode=rw forbids to create a missing file.
    query = {"mode": "rw"} if given.get("mode") == "rw" else {}
    return URL.create("sqlite", database=database, query=query)


def database_path(url: URL) -> Path:
    """Return the real path of the database file; raise ConfigurationError if it cannot be one."""
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            "a job queue needs a file: threads and processes share it; use sqlite:///jobqueue.db",
            field="url",
        )
    path = Path(url.database)
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder, not a database file", field="url")
    if not path.parent.is_dir():
        raise ConfigurationError(f"the folder {path.parent} does not exist", field="url")
    return path.resolve()


def _path_of_uri(database: str) -> str:
    """Return the path of a `file:` URI by SQLite's rules; its query is part of the URL."""
    path = database.removeprefix("file:").partition("#")[0]
    if path.startswith("//"):
        host, slash, rest = path[2:].partition("/")
        if host not in ("", "localhost"):
            raise _error("a file: URI names no host; write file:/absolute/path.db")
        path = slash + rest
    return unquote(path, errors="surrogateescape")


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(message, field="url")
