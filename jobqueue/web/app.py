"""The ASGI app: request guard, routes, and the one place where errors become responses."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobqueue.queue import JobQueue
from jobqueue.tasks import Registry
from jobqueue.web.access_log import answer_logged
from jobqueue.web.api.routes import Api
from jobqueue.web.dashboard import Dashboard
from jobqueue.web.responses import HTTPError, as_http_error, log
from jobqueue.web.rights import Authorize, rights_of
from jobqueue.web.security import LOOPBACK_NAMES, READS, RequestGuard, is_open, is_page, path_of

Header = tuple[bytes, bytes]

POLICY = b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
PAGE_POLICY = POLICY + (
    b"; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
    b"; form-action 'self'"
)
SECURITY_HEADERS = [
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # Not no-referrer: with it browsers send `Origin: null` with our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
NO_STORE = (b"cache-control", b"no-store")
API_HEADERS = [(b"content-security-policy", POLICY), *SECURITY_HEADERS, NO_STORE]
"""Headers of each answer that is not a page."""


def create_app(
    jobs: JobQueue,
    *,
    token: str | None = None,
    read_only: bool = False,
    hosts: Iterable[str] | None = LOOPBACK_NAMES,
    registry: Registry | None = None,
    authorize: Authorize | None = None,
    origins: Iterable[str] = (),
    access_log: bool = False,
) -> "WebApp":
    """Return the dashboard and the HTTP API of a queue as an ASGI app, for `serve`, or to be
    mounted in your own.

    Only tasks of `registry` (default: those of `jobs`) can be enqueued. `hosts` are the names that
    the Host header may have; None allows any and requires a token or `authorize`. That is a
    function, async or not, from a request to what it may do: "all", "read", the names of verbs such
    as `{"retry", "pause"}`, or None, which refuses it. `origins` are other sites whose pages may
    use the API, such as `https://app.example`. `access_log` logs a line for each request. Raises
    InvalidOption.
    """
    guard = RequestGuard(
        token, hosts, read_only=read_only, authorizes=authorize is not None, origins=origins
    )
    api = Api(jobs, jobs.registry if registry is None else registry, guard.open_names)
    dashboard = Dashboard(jobs, guard, api.threads)
    return WebApp(guard, api, dashboard, authorize, access_log)


@dataclass(eq=False)
class WebApp:
    """The ASGI app. It answers every request, also after an unexpected error."""

    _guard: RequestGuard
    _api: Api
    _dashboard: Dashboard
    _authorize: Authorize | None
    _access_log: bool

    def __post_init__(self) -> None:
        routes = [*self._api.routes(), *self._dashboard.routes()]
        self._router: ASGIApp = Router(routes, redirect_slashes=False)

    @property
    def has_token(self) -> bool:
        """True if requests need a token."""
        return self._guard.has_token

    def release(self) -> None:
        """Answer requests that wait for a job: the server stops. Call it in the event loop."""
        self._api.waiter.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI calls it."""
        if scope["type"] == "http" and self._access_log:
            await answer_logged(self._answer, scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def guarded(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                cors = [] if is_page(path_of(scope)) else self._guard.origins.headers(scope)
                headers = [*message.get("headers", []), *cors]
                message["headers"] = _with_security(scope, headers)
            await send(message)

        # With an app in its scope the router raises errors. If this app is mounted in another one,
        # that one's exception handlers would answer them.
        inner = {**scope, "app": self}
        inner.pop("starlette.exception_handlers", None)
        try:
            self._guard.check(scope)
            if self._guard.is_preflight(scope):
                await Response(status_code=204)(scope, receive, guarded)
                return
            if not is_open(path_of(scope)):
                rights = await rights_of(
                    Request(scope), self._authorize, read_only=self._guard.read_only
                )
                if is_page(path_of(scope)):
                    rights.check_form(scope)  # The operations of the API ask for theirs.
                inner["jobqueue.rights"] = scope["jobqueue.rights"] = rights
            await self._router(inner, receive, guarded)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - every error becomes a response here.
            page = is_page(path_of(scope))
            answer = as_http_error(error, writes=scope["method"] not in READS, page=page)
            if is_started:
                name = str(error) if isinstance(error, HTTPError) else type(error).__name__
                log.warning("an answer was broken off: %s", name)
                return  # The server closes the connection of an incomplete answer.
            shown = self._dashboard.refuses(scope, answer)
            await (shown or answer.response())(scope, receive, guarded)


def _with_security(scope: Scope, headers: Iterable[Header]) -> list[Header]:
    """Add the headers of each answer, and those of a page or of the API."""
    policy = PAGE_POLICY if is_page(path_of(scope)) else POLICY
    given = [*headers, (b"content-security-policy", policy), *SECURITY_HEADERS]
    if not any(name == b"cache-control" for name, _ in given):
        given.append(NO_STORE)
    return given
