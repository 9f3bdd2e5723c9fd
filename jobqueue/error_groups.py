"""Errors of one cause: their signature, its short form, and how many there were."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ID_LENGTH = 12
"""Hexadecimal digits of a group's id."""
SIGNATURE_MAX = 600
"""Characters of a signature: plain SQL may name a task of any length, an index takes 2.7 kB."""


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Attempts of one task that errored with one type at one place, in whole hours up to now."""

    id: str
    """What `--error` takes: a digest of the signature, or its beginning."""
    task: str
    type: str
    place: str | None
    """The innermost function of the user's that raised it, as `app/mail.py:send`."""
    message: str
    """Of the last of them."""
    hour: int
    """Attempts since the start of the last hour, and so on: up to an hour more than 1 h."""
    day: int
    week: int
    failed: int
    """Jobs that failed with it in the 7 days."""
    first_seen: datetime
    last_seen: datetime

    @property
    def signature(self) -> str:
        """The same text as `error_signature` of the attempts."""
        return signature_of(self.task, self.type, self.place)

    def to_json(self) -> dict[str, Any]:
        """The object that `errors --json` prints."""
        return {
            "id": self.id,
            "task": self.task,
            "type": self.type,
            "place": self.place,
            "signature": self.signature,
            "message": self.message,
            "attempts": {"1h": self.hour, "24h": self.day, "7d": self.week},
            "failed": self.failed,
            "first_seen": self.first_seen.isoformat(),
            "last_seen": self.last_seen.isoformat(),
        }


def signature_of(task: str, type_: str, place: str | None) -> str:
    """Return what errors of one cause share, in one text."""
    return " ".join(filter(None, (task, type_, place)))[:SIGNATURE_MAX]


def error_id(signature: str) -> str:
    """Return the short form of a signature."""
    return hashlib.sha256(signature.encode()).hexdigest()[:ID_LENGTH]
