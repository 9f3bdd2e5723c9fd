"""Now: is it moving, and is it healthy: the queues, the last hour, and what needs somebody."""

from collections.abc import Sequence
from typing import Any

from jobqueue.errors import invalid
from jobqueue.overview import (
    HOUR,
    is_alive,
    last_day,
    last_points,
    paused_by,
    queue_rows,
    totals,
)
from jobqueue.queue import JobQueue
from jobqueue.store.stats import MINUTES, Monitor
from jobqueue.web.charts import round_top
from jobqueue.web.pages.causes import shown_causes
from jobqueue.web.pages.doctor_findings import findings
from jobqueue.web.pages.view import Query

SPANS = {"1h": 1, "24h": 15}
"""Of the large chart: the minutes of one point."""


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
        "causes": shown_causes(queue),
        "findings": findings(queue, open_names),
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
