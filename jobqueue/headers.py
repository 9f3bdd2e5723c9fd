"""Headers of a job: a few short texts beside its arguments, which middleware writes and reads."""

import json
from collections.abc import Iterable, Mapping

from jobqueue.errors import invalid, type_of

BYTES_MAX = 4096
"""Of all headers of a job, as the JSON that is stored."""

Headers = tuple[tuple[str, str], ...]
"""Checked headers, as pairs: options can be hashed."""


def check_headers(value: object) -> Headers:
    """Check a mapping of texts. Raises InvalidOption."""
    if not isinstance(value, Mapping):
        raise invalid("headers", f'{type_of(value)}; give a mapping like {{"tenant": "7"}}', value)
    pairs = []
    for name, text in value.items():
        for part, what in ((name, "name"), (text, f"value of {str(name)[:40]!r}")):
            if not isinstance(part, str):
                raise invalid("headers", f"the {what} is {type_of(part)}, not text", part)
            if "\0" in part or any("\ud800" <= character <= "\udfff" for character in part):
                raise invalid("headers", f"the {what} has a character that no database stores")
        if not name:
            raise invalid("headers", "a name is empty", name)
        pairs.append((str(name), str(text)))
    size = len((to_text(pairs) or "").encode())
    if size > BYTES_MAX:
        raise invalid("headers", f"{size:,} bytes of JSON; at most {BYTES_MAX:,}")
    return tuple(pairs)


def to_text(pairs: Iterable[tuple[str, str]]) -> str | None:
    """Return the JSON that is stored with a job; None without headers."""
    headers = dict(pairs)
    return json.dumps(headers, ensure_ascii=False) if headers else None
