"""The request guard: checks form, Host, origin and token before a request is routed."""

import hashlib
import hmac
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from jobqueue.errors import invalid
from jobqueue.web.origins import Origins, require_ascii
from jobqueue.web.responses import JSON, HTTPError
from jobqueue.web.session import COOKIE, Sessions

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
PROBES = ("/healthz", "/readyz")
OPEN_PATHS = (*PROBES, "/login")
"""Paths that need no token, beside the static files: the answers reveal nothing about jobs."""
READS = ("GET", "HEAD")
VERBLESS = ("/login", "/logout", "/theme")
"""Forms that change nothing but the browser's own cookies."""
FORM = "application/x-www-form-urlencoded"

URL_MAX = 8 << 10
HEADERS_MAX = 100
HEADER_BYTES_MAX = 32 << 10
CLOSE = {"Connection": "close"}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:/@\s\[\]]+)(?::[0-9]{1,5})?", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)


class RequestGuard:
    """Accepts requests with the token, and refuses those that another site makes a browser send.

    `hosts` are the names that the Host header may have. None allows any and requires a token,
    because of DNS rebinding: an attacker's name may resolve to this machine.
    """

    def __init__(
        self,
        token: str | None,
        hosts: Iterable[str] | None,
        *,
        read_only: bool,
        authorizes: bool = False,
        origins: Iterable[str] = (),
    ) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise invalid("token", "give visible ASCII characters, without spaces")
        self._digest = None if token is None else _digest(token.encode())
        self._hosts = None if hosts is None else frozenset(map(_host_name, hosts))
        self._authorizes = authorizes
        self.origins = Origins(origins)
        self.read_only = read_only
        self.sessions = Sessions(self._digest)
        if self._hosts is None and token is None and not authorizes:
            raise invalid("hosts", "without a token, name those to be served")

    @property
    def has_token(self) -> bool:
        """True if requests need a token."""
        return self._digest is not None

    @property
    def open_names(self) -> list[str]:
        """The names beyond this host under which anybody may do everything, without a token."""
        if self.has_token or self._authorizes or self._hosts is None:
            return []
        return sorted(self._hosts - frozenset(LOOPBACK_NAMES))

    def check(self, scope: Scope) -> None:
        """Raise HTTPError if the request is refused."""
        headers = Headers(scope=scope)
        self._check_form(scope, headers)
        host = self._check_host(headers)
        path, reads = path_of(scope), scope["method"] in READS
        page = is_page(path)
        if self.is_preflight(scope):
            return
        is_allowed = not page and self.origins.of(scope) is not None
        # A link on another site may open a page. It may not show it in a frame, nor read it.
        if not (is_allowed or (page and reads and _navigates(headers))):
            self._check_origin(headers, host)
        if page and not reads:
            _check_own_form(headers)
        logged_in = page and self.sessions.is_valid(session_of(scope))
        if not (is_open(path) or logged_in):
            self._check_token(headers)
        if self.read_only and not reads and path not in VERBLESS:
            raise HTTPError(403, "this server is read-only", field="method", value=scope["method"])

    def is_preflight(self, scope: Scope) -> bool:
        """Return whether a browser asks what an allowed site may do in the API."""
        return not is_page(path_of(scope)) and self.origins.is_preflight(scope)

    def accepts(self, token: str) -> bool:
        """Return whether a login gives the right token."""
        given = _digest(token.strip().encode("utf-8", "surrogateescape"))
        return self._digest is not None and hmac.compare_digest(given, self._digest)

    def _check_form(self, scope: Scope, headers: Headers) -> None:
        if scope["http_version"] not in ("1.0", "1.1", "2"):
            raise HTTPError(505, "speak HTTP/1.1", headers=CLOSE)
        length = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if length > URL_MAX:
            raise HTTPError(414, f"the URL is longer than {URL_MAX:,} bytes", headers=CLOSE)
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > HEADERS_MAX or size > HEADER_BYTES_MAX:
            message = f"more than {HEADERS_MAX} headers, or {HEADER_BYTES_MAX:,} bytes of them"
            raise HTTPError(431, message, headers=CLOSE)
        if headers.getlist("transfer-encoding") and headers.getlist("content-length"):
            # Request smuggling: a proxy may go by the other header.
            message = "Content-Length and Transfer-Encoding: give one of them"
            raise HTTPError(400, message, field="content-length", headers=CLOSE)
        if headers.getlist("content-encoding") not in ([], ["identity"]):
            raise HTTPError(415, "send the body as it is, not encoded", field="content-encoding")

    def _check_host(self, headers: Headers) -> str:
        found = headers.getlist("host")
        match = _HOST.fullmatch(found[0].lower()) if len(found) == 1 else None
        if match is None:
            raise HTTPError(400, "Host: give one name, and a port", field="host", headers=CLOSE)
        if self._hosts is not None and match[1] not in self._hosts:
            message = f"Host: {match[1][:60]!r} is not served here; see --allow-host"
            raise HTTPError(403, message, field="host", headers=CLOSE)
        return match[0]

    def _check_origin(self, headers: Headers, host: str) -> None:
        """Refuse cross-site requests: browsers always send these headers with them."""
        for origin in headers.getlist("origin"):
            _, _, of = origin.lower().partition("://")
            if of != host:
                raise HTTPError(403, "Origin: requests of other sites are refused", field="origin")
        for site in headers.getlist("sec-fetch-site"):
            if site not in ("same-origin", "none"):
                raise HTTPError(403, "requests of other sites are refused", field="sec-fetch-site")

    def _check_token(self, headers: Headers) -> None:
        if self._digest is None:
            return
        given = headers.getlist("authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        # Digests have one length, so that the time does not reveal the token's length.
        fits = hmac.compare_digest(_digest(token.strip().encode("latin-1")), self._digest)
        if scheme.lower() != "bearer" or not fits:
            raise HTTPError(
                401,
                "this needs the token: Authorization: Bearer …",
                field="authorization",
                headers={"WWW-Authenticate": "Bearer"},
            )


def path_of(scope: Scope) -> str:
    """Return the path below the mount."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_open(path: str) -> bool:
    """Return whether anybody may ask for a path: it reveals nothing about jobs."""
    return path in OPEN_PATHS or path.startswith("/static/")


def is_page(path: str) -> bool:
    """Return whether a path is one of the dashboard's, not of the API's."""
    return not (f"{path}/".startswith("/api/") or path in (*PROBES, "/metrics", "/openapi.json"))


def cookie_name(scope: Scope) -> str:
    """Return the name of the session's cookie, with the port: cookies of a host are for all."""
    port = Headers(scope=scope).get("host", "").rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdigit() else COOKIE


def session_of(scope: Scope) -> str | None:
    """Return the session cookie of a request."""
    return HTTPConnection(scope).cookies.get(cookie_name(scope))


def _navigates(headers: Headers) -> bool:
    wanted = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return wanted == ("navigate", "document") and "origin" not in headers


def _check_own_form(headers: Headers) -> None:
    """Refuse what is not certainly a form of our own pages; its token is checked with its body.

    Browsers send Origin with each form. Sec-Fetch-Site they leave out over plain HTTP.
    """
    if "origin" not in headers:
        raise HTTPError(403, "Origin: a form has to name where it comes from", field="origin")
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPError(403, "requests of other sites are refused", field="sec-fetch-site")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPError(415, f"Content-Type: a form is {FORM}", field="content-type")


def require_json(content_type: str | None, *, has_body: bool) -> None:
    """Raise HTTPError unless a body is JSON: pages may send forms and text to other sites."""
    if content_type is None and not has_body:
        return
    kind, *parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    charsets = [part[8:].strip('"') for part in parameters if part.startswith("charset=")]
    if kind != JSON or set(charsets) - {"utf-8"}:
        raise HTTPError(
            415, f"Content-Type: send {JSON}, in UTF-8", field="content-type", value=content_type
        )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _host_name(text: str) -> str:
    require_ascii(text, "host")
    match = _HOST.fullmatch(text.lower())
    if match is None or match[0] != match[1]:
        raise invalid("host", f"{text[:60]!r} is not a host name; leave out scheme and port", text)
    return match[1]
