"""Errors: whether it is one thing that fails: errored attempts by task, type and place."""

from typing import Any

from jobqueue.queue import JobQueue
from jobqueue.store.error_groups import WINDOWS, ErrorGroups
from jobqueue.web.pages.view import Query

GROUPS_SHOWN = 200
MESSAGE_MAX = 300


def errors_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show the errors of a time, the most frequent first. Raises InvalidOption."""
    since = query.get("since") or "24h"
    groups = ErrorGroups(queue.store).find(since, limit=GROUPS_SHOWN)
    return "errors.html", {
        "since": since,
        "windows": list(WINDOWS),
        "groups": groups,
        "message_max": MESSAGE_MAX,
    }
