"""CORS: the sites whose pages may use the API from a browser; none unless they are named."""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope

from jobqueue.errors import invalid

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^:/@?#*\s\[\]]+)(:[0-9]{1,5})?", re.ASCII)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_PORT_MAX = 65_535
METHODS = "GET, POST, DELETE"
SENT = "authorization, content-type"
READ = "link, location, retry-after, jobqueue-notice"
"""Headers of answers that their scripts may read."""
KEPT = "600"
"""Seconds for which a browser may keep the answer to a preflight."""


class Origins:
    """The allowed sites, as `https://app.example`. Raises InvalidOption, also for a wildcard.

    No answer ever allows credentials: a page of theirs sends the token itself, and no cookie.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(map(_origin, allowed))

    def of(self, scope: Scope) -> str | None:
        """Return the allowed site that a request comes from; None for any other request."""
        found = Headers(scope=scope).getlist("origin") if self._allowed else []
        return found[0] if len(found) == 1 and found[0].lower() in self._allowed else None

    def is_preflight(self, scope: Scope) -> bool:
        """Return whether a browser asks what an allowed site may do, without any token."""
        asks = "access-control-request-method" in Headers(scope=scope)
        return scope["method"] == "OPTIONS" and asks and self.of(scope) is not None

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return what each answer to a request needs, so that a browser hands it to its page."""
        if not self._allowed:
            return []
        given = {"vary": "origin"}
        if origin := self.of(scope):
            given["access-control-allow-origin"] = origin
            given["access-control-expose-headers"] = READ
        if self.is_preflight(scope):
            given["access-control-allow-methods"] = METHODS
            given["access-control-allow-headers"] = SENT
            given["access-control-max-age"] = KEPT
        return [(name.encode(), value.encode()) for name, value in given.items()]


def require_ascii(text: str, what: str) -> None:
    """Raise InvalidOption for a name of other letters: browsers send it as xn--…, so that it would
    never match.
    """
    if not text.isascii():
        raise invalid(
            what,
            f"{text[:60]!r} has other letters than ASCII; give it as browsers send it, with xn--",
            text,
        )


def _origin(text: str) -> str:
    require_ascii(text, "origin")
    match = _ORIGIN.fullmatch(text.lower())
    if match is None or not 0 < int((match[3] or ":1")[1:]) <= _PORT_MAX:
        raise invalid(
            "origin",
            f"{text[:60]!r} is not a site such as https://app.example; name each of them",
            text,
        )
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS[scheme]) else port)
