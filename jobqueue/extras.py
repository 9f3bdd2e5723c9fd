"""The extras of the package: what is said where one is needed and not installed."""

from jobqueue.errors import ExtraMissing

_MODULES = {
    "opentelemetry": ("opentelemetry",),
    "prometheus": ("prometheus_client",),
    "reload": ("watchfiles",),
    "sentry": ("sentry_sdk",),
    "top": ("textual",),
    "web": ("starlette", "uvicorn", "anyio", "h11", "prometheus_client", "jinja2"),
}
"""What each one brings."""


def missing(error: ModuleNotFoundError, extra: str, needs: str) -> ModuleNotFoundError:
    """Return what to raise for an import that failed; `needs` is such as "top needs".

    It is the error itself if the extra does not bring that module.
    """
    if (error.name or "").partition(".")[0] not in _MODULES[extra]:
        return error
    found = ExtraMissing(
        f"{needs} the extra `{extra}`: pip install 'jobqueue[{extra}]'", field=extra
    )
    found.name = error.name
    return found
