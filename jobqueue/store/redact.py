"""Redact secrets from database URLs, and from text that may quote one."""

import re
from collections.abc import Iterable

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from jobqueue.store import urls
from jobqueue.text import escape_controls

MASK = "***"
_SECRET_KEYS = re.compile("passw|secret|token|scram_", re.IGNORECASE)


def masked(url: URL) -> str:
    """Return a database URL with its secrets masked."""
    secret = {key: MASK for key in url.query if _SECRET_KEYS.search(key)}
    if url.host is not None:  # An @ in the host is an unescaped one of the password.
        url = url.set(host=url.host.rpartition("@")[2])
    return escape_controls(urls.masked(url.update_query_dict(secret)).replace("%2A%2A%2A", MASK))


def secrets_of(text: str) -> frozenset[str]:
    """Return the secrets in a database URL; none if unparsable, since no message quotes those."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return frozenset()
    found = {str(url.password or "")}
    for key, value in url.query.items():
        if _SECRET_KEYS.search(key):
            found |= {value} if isinstance(value, str) else set(value)
    # Words that are shown anyway are not secrets: masking them makes messages unreadable.
    return frozenset(found - {url.username, url.database, url.host, ""})


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text with the secrets masked."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    return text
