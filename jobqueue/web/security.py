"""The gate: what is refused before anything looks at a request's meaning."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable

from starlette.types import Scope

from jobqueue.errors import InvalidOption
from jobqueue.web.responses import JSON, HTTPError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = ("/healthz", "/readyz")
"""What a probe may ask without a token: the answers say nothing of the jobs."""

URL_MAX = 8 << 10
HEADERS_MAX = 100
HEADER_BYTES_MAX = 32 << 10
CLOSE = {"Connection": "close"}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:/@\s\[\]]+)(?::[0-9]{1,5})?", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)


def is_loopback(address: str) -> bool:
    """True for an address that only this machine can reach."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


class RequestGuard:
    """Lets in who has the token, and no browser that another site sent.

    `hosts` are the names under which we may be asked, `None` any, for which a token is needed: a
    name of the attacker's that leads to this machine would make its page one of ours.
    """

    def __init__(self, token: str | None, hosts: Iterable[str] | None, *, read_only: bool) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise InvalidOption(
                "token: give visible ASCII characters, without spaces", field="token"
            )
        self._digest = None if token is None else _digest(token.encode())
        self._hosts = None if hosts is None else frozenset(map(_host_name, hosts))
        self._read_only = read_only
        if self._hosts is None and token is None:
            raise InvalidOption("hosts: without a token, name those to be served", field="hosts")

    @property
    def has_token(self) -> bool:
        """True if who asks needs a token."""
        return self._digest is not None

    def check(self, scope: Scope) -> None:
        """Raises HTTPError."""
        headers = _Headers(scope)
        self._check_form(scope, headers)
        host = self._check_host(headers)
        self._check_origin(headers, host)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in OPEN_PATHS:
            self._check_token(headers)
        if self._read_only and scope["method"] not in ("GET", "HEAD"):
            raise HTTPError(403, "this front is read-only", field="method", value=scope["method"])

    def _check_form(self, scope: Scope, headers: "_Headers") -> None:
        if scope["http_version"] not in ("1.0", "1.1", "2"):
            raise HTTPError(505, "speak HTTP/1.1", headers=CLOSE)
        length = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if length > URL_MAX:
            raise HTTPError(414, f"the URL is longer than {URL_MAX:,} bytes", headers=CLOSE)
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > HEADERS_MAX or size > HEADER_BYTES_MAX:
            message = f"more than {HEADERS_MAX} headers, or {HEADER_BYTES_MAX:,} bytes of them"
            raise HTTPError(431, message, headers=CLOSE)
        if headers.all(b"transfer-encoding") and headers.all(b"content-length"):
            # Who stands in between may go by the other one, and see another request in it.
            message = "Content-Length and Transfer-Encoding: give one of them"
            raise HTTPError(400, message, field="content-length", headers=CLOSE)
        if headers.all(b"content-encoding") not in ([], [b"identity"]):
            raise HTTPError(415, "send the body as it is, not encoded", field="content-encoding")

    def _check_host(self, headers: "_Headers") -> str:
        found = headers.all(b"host")
        match = _HOST.fullmatch(found[0].decode("latin-1").lower()) if len(found) == 1 else None
        if match is None:
            raise HTTPError(400, "Host: give one name, and a port", field="host", headers=CLOSE)
        if self._hosts is not None and match[1] not in self._hosts:
            message = f"Host: {match[1][:60]!r} is not served here; see --allow-host"
            raise HTTPError(403, message, field="host", headers=CLOSE)
        return match[0]

    def _check_origin(self, headers: "_Headers", host: str) -> None:
        """A browser says where a page is from; whatever else sends these headers is no browser."""
        for origin in headers.all(b"origin"):
            _, _, of = origin.decode("latin-1").lower().partition("://")
            if of != host:
                raise HTTPError(403, "Origin: requests of other sites are refused", field="origin")
        for site in headers.all(b"sec-fetch-site"):
            if site not in (b"same-origin", b"none"):
                raise HTTPError(403, "requests of other sites are refused", field="sec-fetch-site")

    def _check_token(self, headers: "_Headers") -> None:
        if self._digest is None:
            return
        given = headers.all(b"authorization")
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        # Digests are of one length, so that the time says nothing about the token's.
        fits = hmac.compare_digest(_digest(token.strip()), self._digest)
        if scheme.lower() != b"bearer" or not fits:
            raise HTTPError(
                401,
                "this needs the token: Authorization: Bearer …",
                field="authorization",
                headers={"WWW-Authenticate": "Bearer"},
            )


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._headers if key == name]


def require_json(content_type: str | None, *, has_body: bool) -> None:
    """Raises HTTPError: forms and plain text are what a page may send anywhere, JSON it may not."""
    if content_type is None and not has_body:
        return
    kind, *parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    charsets = [part[8:].strip('"') for part in parameters if part.startswith("charset=")]
    if kind != JSON or set(charsets) - {"utf-8"}:
        raise HTTPError(
            415,
            f"Content-Type: send {JSON}, in UTF-8",
            field="content-type",
            value=content_type,
        )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _host_name(text: str) -> str:
    match = _HOST.fullmatch(text.lower())
    if match is None or match[0] != match[1]:
        raise InvalidOption(
            f"host: {text[:60]!r} is no host's name; leave out scheme and port",
            field="host",
            value=text,
        )
    return match[1]
