"""The columns that few jobs have, from the options of a call."""

from jobqueue.headers import to_text
from jobqueue.new_jobs import ExtraColumns
from jobqueue.options import Options


def extra_columns(settings: Options) -> ExtraColumns | None:
    """Return the rare columns of a new job; None if it has none."""
    key = settings.concurrency_key
    if key is None and not settings.headers and settings.expires is None:
        return None
    headers = to_text(settings.headers)
    if key is None:
        return ExtraColumns(headers, expires=settings.expires)
    limit = settings.concurrency_limit
    return ExtraColumns(
        headers,
        expires=settings.expires,
        lane=key,
        lane_limit=1 if limit is None and settings.strict else limit,
        lane_weight=None if settings.weight == 1 else settings.weight,
        lane_strict=1 if settings.strict else None,
    )
