"""Database URLs: what they may look like, and how they are shown without their secrets."""

import re

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from jobqueue.errors import ConfigurationError
from jobqueue.store.backend import Backend
from jobqueue.store.postgres import Postgres
from jobqueue.store.sqlite import OPTIONS, Sqlite

_SECRET = re.compile(r"(?i)(password=)[^&]*")
_NO_HOST = re.compile(r"^([^:]*://[^/:]*:)[^/]+")  # user:password, and the host forgotten
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMED = 3  # options in one message
DRIVER_MISSING = "PostgreSQL needs its driver, psycopg 3: pip install 'jobqueue[postgres]'"
BACKENDS: dict[str, Backend] = {
    "sqlite": Sqlite(),
    "postgresql": Postgres(),
    "postgres": Postgres(),
}


def parse(text: str | URL) -> URL:
    """Read a URL; raises ConfigurationError with the password masked."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"not a database URL: {_shown(str(text))!r}; write sqlite:///jobqueue.db or "
            "postgresql://user@host/database (and escape @ : / % in a password as %40 and so on)",
            field="url",
        ) from None
    kind = url.get_backend_name()
    if kind not in BACKENDS:
        raise ConfigurationError(
            f"{kind} is not a database that jobqueue runs on; use sqlite:/// or postgresql://",
            field="url",
        )
    if kind == "sqlite":
        _check_sqlite(url, text)
        return url
    _refuse_surrogates(url)
    if "@" in (url.host or ""):
        raise ConfigurationError(
            f"{_shown(str(text))!r}: write the @ in a user's name or password as %40", field="url"
        )
    if not url.database:
        raise ConfigurationError(
            f"{_shown(url.render_as_string(hide_password=True))} names no database; "
            "write postgresql://user@host/database",
            field="url",
        )
    return url


def _check_sqlite(url: URL, text: str | URL) -> None:
    if url.host:
        raise ConfigurationError(
            f"{_shown(str(text))!r} names a host; write sqlite:///relative.db or "
            "sqlite:////absolute/path.db",
            field="url",
        )
    # Others are ignored by the driver, or make it open another file than the one that is meant.
    if unknown := sorted(set(url.query) - set(OPTIONS)):
        names = " and ".join(repr(name[:40]) for name in unknown[:_NAMED])
        verb = "is no option" if len(unknown) == 1 else "are no options"
        raise ConfigurationError(
            f"{names} {verb} of a SQLite URL; write sqlite:///{url.database or 'jobqueue.db'}",
            field="url",
        )


def _refuse_surrogates(url: URL) -> None:
    """Bytes of the environment or the command line that are no UTF-8; a server takes text only.

    A path of SQLite's may have them, as any file's.
    """
    parts = {
        "the user": url.username,
        "the password": url.password,
        "the host": url.host,
        "the database": url.database,
        **{
            f"the option {ascii(key)[1:-1][:40]}": "".join((key, *value))
            for key, value in url.query.items()
        },
    }
    for part, value in parts.items():
        if _SURROGATE.search(value or ""):
            raise ConfigurationError(
                f"{part} is not valid UTF-8 in the database URL; write it in UTF-8",
                field="url",
            )


def backend_of(url: URL) -> Backend:
    """The backend of a parsed URL."""
    return BACKENDS[url.get_backend_name()]


def masked(url: URL) -> str:
    """A URL as it may be shown."""
    return _SECRET.sub(r"\1***", url.render_as_string(hide_password=True))


def _shown(text: str) -> str:
    """A malformed URL without what may be its password."""
    head, at, tail = text.rpartition("@")
    scheme, slashes, user = head.partition("://")
    if not slashes:
        scheme, user = "", head
    shown = f"{scheme}{slashes}{user.partition(':')[0]}:***@{tail}" if at else text
    if not at:
        shown = _NO_HOST.sub(r"\1***", shown)
    return _SECRET.sub(r"\1***", shown)[:80]
