"""Import the optional dependencies, or name the extra that installs them."""

from collections.abc import Iterator
from contextlib import contextmanager

from jobqueue.errors import ExtraMissing

_MODULES = {
    "opentelemetry": ("opentelemetry",),
    "prometheus": ("prometheus_client",),
    "reload": ("watchfiles",),
    "sentry": ("sentry_sdk",),
    "top": ("textual",),
    "web": ("starlette", "uvicorn", "anyio", "h11", "prometheus_client", "jinja2"),
}
"""The modules that each extra installs."""


@contextmanager
def required(extra: str, needs: str) -> Iterator[None]:
    """Import what an extra brings. Raises ExtraMissing; `needs` is such as "top needs"."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _MODULES[extra]:
            raise
        found = ExtraMissing(
            f"{needs} the extra `{extra}`: pip install 'jobqueue[{extra}]'", field=extra
        )
        found.name = error.name
        raise found from None
