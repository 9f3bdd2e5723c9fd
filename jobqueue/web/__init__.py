"""The HTTP front, an extra: `create_app` is an ASGI app, `serve` runs it until a signal."""

from jobqueue.errors import ConfigurationError

try:
    from jobqueue.web.app import Front, create_app
    from jobqueue.web.server import Server, serve
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "h11"):
        raise
    raise ConfigurationError(
        "the HTTP front needs its extra, Starlette and uvicorn: pip install 'jobqueue[web]'",
        field="web",
    ) from None

__all__ = ["Front", "Server", "create_app", "serve"]
