"""Database URLs: parse them, show them without secrets, and redact those from other text."""

import os
import re
from collections.abc import Iterable
from urllib.parse import quote

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from jobqueue.errors import ConfigurationError
from jobqueue.printable_text import escape_controls
from jobqueue.store.dialects import postgres_url, sqlite_url
from jobqueue.store.dialects.base import Backend
from jobqueue.store.dialects.postgres import Postgres
from jobqueue.store.dialects.sqlite import Sqlite

MASK = "***"
SECRET_KEYS = re.compile("passw|secret|token|scram_", re.IGNORECASE)
DRIVER_MISSING = "PostgreSQL needs its driver, psycopg 3: pip install 'jobqueue[postgres]'"
BACKENDS: dict[str, Backend] = {
    "sqlite": Sqlite(),
    "postgresql": Postgres(),
    "postgres": Postgres(),
}


def parse(text: str | URL) -> URL:
    """Parse a URL: remove its driver, make a path absolute, translate options for our drivers.

    Raises ConfigurationError, whose message never quotes a URL that cannot be parsed.
    """
    try:
        url = read(text)
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


def read(text: str | URL) -> URL:
    """Read a URL. Raises ArgumentError, ValueError or ConfigurationError."""
    if isinstance(text, URL):
        return text
    one_host, hosts = postgres_url.split_hosts(text)
    url = make_url(one_host)
    # Hosts in the query take precedence, as in libpq.
    return url if "host" in url.query else url.update_query_dict(hosts)


def as_text(url: URL) -> str:
    """Return a parsed URL, with its password, as text that `parse` reads back."""
    try:
        text = url.render_as_string(hide_password=False)
        if make_url(text) == url:
            return text
    except UnicodeEncodeError:
        pass
    # The path has a character that SQLAlchemy's text form cannot represent.
    path = quote(os.fsencode(url.database or ""))
    uri = url.set(database=f"file:{path}").update_query_dict({"uri": "true"})
    return uri.render_as_string(hide_password=False)


def _refuse_surrogates(url: URL) -> None:
    """Refuse bytes that are not valid UTF-8: a server accepts text only, unlike a file's path."""
    try:
        url.render_as_string(hide_password=False).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            "the database URL is not valid UTF-8; write it in UTF-8", field="url"
        ) from None


def backend_of(url: URL) -> Backend:
    """Return the backend of a parsed URL."""
    return BACKENDS[url.get_backend_name()]


def masked(url: URL) -> str:
    """Return a URL with its secrets masked; an empty password is removed, not masked."""
    secret = {key: MASK for key in url.query if SECRET_KEYS.search(key)}
    _, host = split_host(url)
    shown = url._replace(host=host, password=url.password or None).update_query_dict(secret)
    text = shown.render_as_string(hide_password=True)
    return escape_controls(text.replace("%2A%2A%2A", MASK))


def split_host(url: URL) -> tuple[str, str | None]:
    """Split what SQLAlchemy takes for the host: the end of a password with an @, and the host."""
    if url.host is None:
        return "", None
    tail, _, host = url.host.rpartition("@")
    return tail, host


def secrets_of(text: str) -> frozenset[str]:
    """Return the secrets in a database URL; none if unparsable, since no message quotes those."""
    try:
        url = read(text)
    except (ArgumentError, ConfigurationError, ValueError):
        return frozenset()
    tail, host = split_host(url)
    found = {str(url.password or ""), tail}
    for key, value in url.query.items():
        if SECRET_KEYS.search(key):
            found |= {value} if isinstance(value, str) else set(value)
    # Words that are shown anyway are not secrets: masking them makes messages unreadable.
    return frozenset(found - {url.username, url.database, host, ""})


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text with the secrets masked."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    return text
