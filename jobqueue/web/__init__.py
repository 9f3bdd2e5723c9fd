"""The dashboard and the HTTP API, an extra: `create_app` returns an ASGI app, `serve` runs it."""

from jobqueue.extras import missing

try:
    from jobqueue.web.app import WebApp, create_app
    from jobqueue.web.server import Server, serve
except ModuleNotFoundError as error:
    raise missing(error, "web", "the dashboard and the HTTP API need") from None

__all__ = ["Server", "WebApp", "create_app", "serve"]
