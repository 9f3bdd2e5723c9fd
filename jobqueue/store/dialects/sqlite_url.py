"""URLs of SQLite files, whatever driver they are for: one absolute path and no options."""

from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL

from jobqueue import paths
from jobqueue.errors import ConfigurationError

DRIVERS = ("", "pysqlite", "aiosqlite")
MEANINGLESS = (
    *("timeout", "check_same_thread", "isolation_level", "detect_types", "cached_statements"),
    "cache",  # Of one process: which connections see each other's pages.
)
"""Options for the application that a URL is shared with: our connections have settings of ours."""

_YES = ("true", "yes", "on", "y", "t", "1")
_NAMED = 3  # options in one message


def canonical(url: URL) -> URL:
    """The URL with an absolute path, without what is for another driver.

    Raises ConfigurationError for an option that jobqueue does not know, by its name: it might make
    the application open another file, or open it in a way that ours does not.
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
    # As the only one: a file that is missing is not made.
    query = {"mode": "rw"} if given.get("mode") == "rw" else {}
    return URL.create("sqlite", database=database, query=query)


def _path_of_uri(database: str) -> str:
    """The path of a `file:` URI, by SQLite's rules; its query is the URL's."""
    path = database.removeprefix("file:").partition("#")[0]
    if path.startswith("//"):
        host, slash, rest = path[2:].partition("/")
        if host not in ("", "localhost"):
            raise _error("a file: URI names no host; write file:/absolute/path.db")
        path = slash + rest
    return unquote(path, errors="surrogateescape")


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(message, field="url")
