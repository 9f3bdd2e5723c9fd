"""The dashboard and the HTTP API, an extra: `create_app` returns an ASGI app, `serve` runs it."""

from jobqueue.errors import ConfigurationError

try:
    from jobqueue.web.app import WebApp, create_app
    from jobqueue.web.server import Server, serve
except ModuleNotFoundError as error:
    extra = ("starlette", "uvicorn", "anyio", "h11", "prometheus_client", "jinja2")
    if (error.name or "").partition(".")[0] not in extra:
        raise
    raise ConfigurationError(
        "the dashboard and the HTTP API need the extra `web`: pip install 'jobqueue[web]'",
        field="web",
    ) from None

__all__ = ["Server", "WebApp", "create_app", "serve"]
