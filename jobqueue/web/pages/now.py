"""Now: is it moving, and is it healthy: the queues, the last hour, and what needs somebody."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from jobqueue.errors import InvalidOption
from jobqueue.queue import JobQueue
from jobqueue.states import State
from jobqueue.store.audit import Audit
from jobqueue.store.stats import MINUTE, Monitor, Rows
from jobqueue.web.charts import Point, round_top
from jobqueue.web.pages.causes import causes
from jobqueue.web.pages.findings import findings
from jobqueue.web.pages.view import Query

HOUR = 60
SPANS = {"1h": (HOUR, 1), "24h": (24 * HOUR, 15)}
"""Of the large chart: its minutes, and the minutes of one point."""
PAUSES = 500
"""Newest actions of operators among which pauses are looked for."""


def now_page(
    queue: JobQueue, query: Query, open_names: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Show what goes on. Raises InvalidOption.

    `open_names` are those beyond this host under which anybody may do everything.
    """
    span = query.get("span") or "1h"
    if span not in SPANS:
        raise InvalidOption(f"span: {span[:20]!r} is not 1h or 24h", field="span")
    monitor = Monitor(queue.store)
    minutes, size = SPANS[span]
    ended = monitor.ended(minutes)
    rows = queue_rows(monitor, ended)
    chart = points(ended, monitor.present(), minutes, size)
    workers = [row for row in monitor.workers() if row["heartbeat_age_seconds"] <= row["lease"]]
    recent = monitor.minutes(HOUR)
    return "now.html", {
        "span": span,
        "causes": causes(queue),
        "findings": findings(queue, open_names),
        "spans": list(SPANS),
        "queues": rows,
        "paused_by": paused_by(queue, rows),
        "chart": chart,
        "each": "a minute" if size == 1 else f"in {size} min",
        "top": round_top(max((point.done + point.failed for point in chart), default=0)),
        "workers": workers,
        "hosts": len({row["host"] for row in workers}),
        "wait": max((row["p95_wait"] or 0.0 for row in recent[-5:]), default=None),
        **_totals(rows, workers),
    }


def queue_rows(monitor: Monitor, ended: Rows | None = None) -> Rows:
    """Return a row for each queue, with what ended in it in the last hour."""
    ended = monitor.ended(HOUR) if ended is None else ended
    hour = monitor.present().replace(second=0, microsecond=0) - (HOUR - 1) * MINUTE
    return [
        row | _of_queue(row, [each for each in ended if each["queue"] == row["queue"]], hour)
        for row in monitor.queues()
    ]


def _totals(rows: Rows, workers: Rows) -> dict[str, Any]:
    ages = [row["oldest_available_seconds"] for row in rows if not row["paused"]]
    return {
        "available": sum(row[State.AVAILABLE.value] for row in rows),
        "scheduled": sum(row[State.SCHEDULED.value] for row in rows),
        "running": sum(row[State.RUNNING.value] for row in rows),
        "slots": sum(row["concurrency"] for row in workers),
        "oldest": max((age for age in ages if age is not None), default=None),
        "pace": sum(row["pace"] for row in rows),
        "failed": sum(row["failed_hour"] for row in rows),
    }


def _of_queue(row: dict[str, Any], ended: Rows, hour: datetime) -> dict[str, Any]:
    """Return the last hour of a queue: by minute, its failures, and how many ended a minute."""
    last = points([each for each in ended if each["minute"] >= hour], hour + (HOUR - 1) * MINUTE)
    # The minute that runs is not whole yet: the pace is that of the five before it.
    whole = last[-6:-1]
    return {
        "hour": last,
        "failed_hour": sum(point.failed for point in last),
        "pace": round(sum(point.done + point.failed for point in whole) / len(whole)),
        "waiting": row[State.AVAILABLE.value] + row[State.SCHEDULED.value],
    }


def points(ended: Rows, present: datetime, minutes: int = HOUR, size: int = 1) -> list[Point]:
    """Return what ended by spans of `size` minutes, up to the present, those without any too."""
    done: dict[datetime, int] = defaultdict(int)
    failed: dict[datetime, int] = defaultdict(int)
    of: Callable[[datetime], datetime] = lambda at: at.replace(  # noqa: E731
        minute=at.minute - at.minute % size, second=0, microsecond=0
    )
    for row in ended:
        at = of(row["minute"])
        done[at] += row["succeeded"] + row["cancelled"]
        failed[at] += row["failed"]
    last, step = of(present), timedelta(minutes=size)
    spans = [last - step * back for back in range(minutes // size - 1, -1, -1)]
    return [Point(f"{at:%H:%M}", done[at], failed[at]) for at in spans]


def paused_by(queue: JobQueue, rows: Rows) -> dict[str, str]:
    """Return who paused each queue last, if one is paused and that was not too long ago."""
    found: dict[str, str] = {}
    if not any(row["paused"] for row in rows):
        return found
    for action in reversed(Audit(queue.store).find(PAUSES)):
        if action["verb"] == "pause" and "queue" in action["target"]:
            found[action["target"]["queue"]] = action["actor"]
    return found
