"""Database URLs: what they may look like, and how they are shown without their secrets."""

import os
import re
from urllib.parse import quote

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from jobqueue.errors import ConfigurationError
from jobqueue.store.dialects import postgres_url, sqlite_url
from jobqueue.store.dialects.base import Backend
from jobqueue.store.dialects.postgres import Postgres
from jobqueue.store.dialects.sqlite import Sqlite

_SECRET = re.compile(r"(?i)((?:password|secret|token|scram_\w+_key)=)[^&]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
DRIVER_MISSING = "PostgreSQL needs its driver, psycopg 3: pip install 'jobqueue[postgres]'"
BACKENDS: dict[str, Backend] = {
    "sqlite": Sqlite(),
    "postgresql": Postgres(),
    "postgres": Postgres(),
}


def parse(text: str | URL) -> URL:
    """Read a URL: without its driver, a path made absolute, options as our own drivers take them.

    Raises ConfigurationError, which quotes no URL that it cannot read.
    """
    try:
        url = _read(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "not a database URL (not shown, since it may contain a password); write "
            "sqlite:///jobqueue.db or postgresql://user@host/database, and escape @ : / % in a "
            "password as %40 and so on",
            field="url",
        ) from None
    kind = url.get_backend_name()
    if kind not in BACKENDS:
        raise ConfigurationError(
            f"{kind} is not a database that jobqueue runs on; use sqlite:/// or postgresql://",
            field="url",
        )
    if kind == "sqlite":
        if url.host:
            raise ConfigurationError(
                f"{masked(url)!r} names a host; write sqlite:///relative.db or "
                "sqlite:////absolute/path.db",
                field="url",
            )
        return sqlite_url.canonical(url)
    _refuse_surrogates(url)
    if "@" in (url.host or ""):
        raise ConfigurationError(
            "the database URL has two @: write the @ in a user's name or password as %40",
            field="url",
        )
    return postgres_url.canonical(url)


def _read(text: str | URL) -> URL:
    if isinstance(text, URL):
        return text
    one_host, hosts = postgres_url.split_hosts(text)
    url = make_url(one_host)
    # What the query says of hosts wins, as in libpq.
    return url if "host" in url.query else url.update_query_dict(hosts)


def as_text(url: URL) -> str:
    """A parsed URL, with its password, as text that `parse` reads as the same one."""
    try:
        text = url.render_as_string(hide_password=False)
        if make_url(text) == url:
            return text
    except UnicodeEncodeError:
        pass
    # A path with a character that SQLAlchemy's text cannot hold.
    path = quote(os.fsencode(url.database or ""))
    uri = url.set(database=f"file:{path}").update_query_dict({"uri": "true"})
    return uri.render_as_string(hide_password=False)


def _refuse_surrogates(url: URL) -> None:
    """Refuse bytes that are not valid UTF-8: a server takes text only.

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
    """A URL as it may be shown; a password that is empty is not one that is hidden."""
    shown = url if url.password else url._replace(password=None)
    return _SECRET.sub(r"\1***", shown.render_as_string(hide_password=True))
