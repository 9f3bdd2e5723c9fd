"""The dashboard and the HTTP API, an extra: `create_app` returns an ASGI app, `serve` runs it."""

from jobqueue.optional_dependencies import required

with required("web", "the dashboard and the HTTP API need"):
    from jobqueue.web.app import WebApp, create_app
    from jobqueue.web.server import Server, serve

__all__ = ["Server", "WebApp", "create_app", "serve"]
