"""Now: is it moving, and is it healthy: the queues, the last hour, and what needs somebody."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from jobqueue.doctor_findings import Finding
from jobqueue.errors import invalid
from jobqueue.overview import (
    HOUR,
    as_finding,
    causes,
    is_alive,
    last_day,
    last_points,
    paused_by,
    queue_rows,
    recent_findings,
    totals,
)
from jobqueue.queue import JobQueue
from jobqueue.store.stats import MINUTES, Monitor
from jobqueue.web.charts import round_top
from jobqueue.web.pages.view import Query

SPANS = {"1h": 1, "24h": 15}
"""Of the large chart: the minutes of one point."""
MESSAGE_MAX = 200
FINDINGS_SHOWN = 8
_PLACES = {
    "unserved_queues": "jobs?state=available&queue={}",
    "unknown_tasks": "jobs?task={}",
    "due_for_long": "jobs/{}",
    "stuck_handlers": "jobs/{}",
    "lost_workers": "workers",
    "schedules": "schedules",
    "limits_of_0": "queues",
    "redactions": "jobs?task={}",
}
"""Where to look, by check; with the first name of a finding."""


class Trouble(NamedTuple):
    """What needs somebody."""

    sentence: str
    more: str
    """The message of an error, or what to do."""
    place: str | None
    """Path and query of the page that shows more, below the mount."""


def now_page(
    queue: JobQueue, query: Query, open_names: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Show what goes on. Raises InvalidOption.

    `open_names` are those beyond this host under which anybody may do everything.
    """
    span = query.get("span") or "1h"
    if span not in SPANS:
        raise invalid("span", f"{span[:20]!r} is not 1h or 24h")
    monitor = Monitor(queue.store)
    size = SPANS[span]
    rows = queue_rows(monitor)
    chart = last_points(monitor, HOUR) if span == "1h" else last_day(queue.store, size)
    waited = [point.waiting for point in chart if point.waiting is not None]
    workers = [row for row in monitor.workers() if is_alive(row)]
    return "now.html", {
        "span": span,
        "causes": _causes(queue),
        "findings": _findings(queue, open_names),
        "spans": list(SPANS),
        "queues": rows,
        "paused_by": paused_by(queue.store, rows),
        "chart": chart,
        "each": "a minute" if size == 1 else f"in {size} min",
        "top": round_top(max((point.done + point.failed for point in chart), default=0)),
        "waiting_top": round_top(max(waited)) if waited else None,
        "workers": workers,
        "wait": max((row["p95_wait"] or 0.0 for row in monitor.minutes(MINUTES)), default=None),
        **totals(rows, workers),
    }


def _causes(queue: JobQueue) -> list[Trouble]:
    """Return the most frequent errors of this hour and the one before."""
    return [
        Trouble(
            as_finding(group).sentence,
            group.message[:MESSAGE_MAX],
            f"jobs?error={group.id}" if group.failed else "errors",
        )
        for group in causes(queue.store)
    ]


def _findings(queue: JobQueue, open_names: Sequence[str]) -> list[Trouble]:
    """Return what `doctor` finds, at most 15 seconds old."""
    found = recent_findings(queue.store, open_names)[:FINDINGS_SHOWN]
    return [Trouble(each.sentence, each.remedy, _place(each)) for each in found]


def _place(finding: Finding) -> str | None:
    place = _PLACES.get(finding.check)
    return place and place.format(quote(finding.names[0], safe=""))
