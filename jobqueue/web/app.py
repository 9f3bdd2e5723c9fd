"""The ASGI app: request guard, routes, and the one place where errors become responses."""

from collections.abc import Iterable

from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobqueue.queue import JobQueue
from jobqueue.tasks import Registry
from jobqueue.web.responses import HTTPError, as_http_error, log
from jobqueue.web.routes import Api
from jobqueue.web.security import LOOPBACK_NAMES, RequestGuard

SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


def create_app(
    jobs: JobQueue,
    *,
    token: str | None = None,
    read_only: bool = False,
    hosts: Iterable[str] | None = LOOPBACK_NAMES,
    registry: Registry | None = None,
) -> "WebApp":
    """Return the HTTP API of a queue as an ASGI app, for `serve`, or to be mounted in your own.

    Only tasks of `registry` (default: those of `jobs`) can be enqueued. `hosts` are the names that
    the Host header may have; None allows any and requires a token. Raises InvalidOption.
    """
    guard = RequestGuard(token, hosts, read_only=read_only)
    return WebApp(guard, Api(jobs, jobs.registry if registry is None else registry))


class WebApp:
    """The ASGI app. It answers every request, also after an unexpected error."""

    def __init__(self, guard: RequestGuard, api: Api) -> None:
        self._guard = guard
        self._api = api
        self._router: ASGIApp = Router(api.routes(), redirect_slashes=False)

    @property
    def has_token(self) -> bool:
        """True if requests need a token."""
        return self._guard.has_token

    def release(self) -> None:
        """Answer requests that wait for a job: the server stops. Call it in the event loop."""
        self._api.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI calls it."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def guarded(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS]
            await send(message)

        # With an app in its scope the router raises errors. If this app is mounted in another one,
        # that one's exception handlers would answer them.
        inner = {**scope, "app": self}
        inner.pop("starlette.exception_handlers", None)
        try:
            self._guard.check(scope)
            await self._router(inner, receive, guarded)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - every error becomes a response here.
            answer = as_http_error(error, writes=scope["method"] == "POST")
            if is_started:
                log.warning("an answer was broken off: %s", _name(error))
                return  # The server closes the connection of an incomplete answer.
            await answer.response()(scope, receive, guarded)


def _name(error: BaseException) -> str:
    return str(error) if isinstance(error, HTTPError) else type(error).__name__
