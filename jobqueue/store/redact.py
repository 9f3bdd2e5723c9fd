"""Find the secrets of database URLs, and redact them from text that may quote one."""

import re
from collections.abc import Iterable

from sqlalchemy.exc import ArgumentError

from jobqueue.errors import ConfigurationError
from jobqueue.store.urls import MASK, SECRET_KEYS, read, split_host


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
