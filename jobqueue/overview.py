"""What the first screens show, of the dashboard and of `jobqueue top`: figures by queue and worker.

All is read from counters, live rows and a bounded number of jobs: in milliseconds for any number.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from jobqueue.doctor_findings import Finding
from jobqueue.error_groups import ErrorGroup
from jobqueue.records import counted
from jobqueue.states import State
from jobqueue.store.audit import Audit
from jobqueue.store.database import Store
from jobqueue.store.doctor import examine
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.stats import MINUTE, Monitor, Rows

HOUR, DAY = 60, 1440
"""Minutes."""
PAUSES = 500
"""Newest actions of operators among which pauses are looked for."""
GROUPS, MANY = 3, 10
"""How many errors are named, and how many attempts of one make it worth that."""
CAUSE = "errors_of_one_cause"
"""The check of a finding that is one."""
RUNNING_MAX = 5000
"""Running jobs that are read."""
STUCK_AFTER = 5.0
"""Seconds beyond its timeout, or after a request to stop, from which on a job is stuck."""
FRESH = 15.0
"""Seconds for which findings are shown before the database is asked again."""
_found: WeakKeyDictionary[Store, dict[tuple[str, ...], tuple[float, list[Finding]]]]
_found = WeakKeyDictionary()
"""By the open names: the dashboard has some, and `/metrics` of the same process has none."""
_days: WeakKeyDictionary[Store, tuple[float, "list[Point]"]] = WeakKeyDictionary()


class Point(NamedTuple):
    """What ended in one span of time, and how many jobs waited in it."""

    label: str
    done: int
    failed: int
    waiting: int | None = None
    """At most, up to `WAITING_MAX`; None: no worker has counted them."""


class Running(NamedTuple):
    """A job that runs."""

    id: int
    task: str
    seconds: float
    stuck: str
    """Why it is stuck; empty if it is not."""


def queue_rows(monitor: Monitor) -> Rows:
    """Return a row for each queue, with what ended in it in the last hour.

    Numbers of waiting jobs may be bounds, see `Monitor.bounded_queues`.
    """
    ended = monitor.ended(HOUR)
    hour = monitor.present().replace(second=0, microsecond=0) - (HOUR - 1) * MINUTE
    by_queue: dict[str, Rows] = defaultdict(list)
    for each in ended:
        by_queue[each["queue"]].append(each)
    return [row | _of_queue(row, by_queue[row["queue"]], hour) for row in monitor.bounded_queues()]


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


def points(
    ended: Rows,
    present: datetime,
    minutes: int = HOUR,
    size: int = 1,
    waiting: Mapping[datetime, int] | None = None,
) -> list[Point]:
    """Return what ended by spans of `size` minutes, up to the present, those without any too.

    `waiting` has how many jobs waited in some of the minutes.
    """
    done: dict[datetime, int] = defaultdict(int)
    failed: dict[datetime, int] = defaultdict(int)
    waited: dict[datetime, int] = {}
    of: Callable[[datetime], datetime] = lambda at: at.replace(  # noqa: E731
        minute=at.minute - at.minute % size, second=0, microsecond=0
    )
    for row in ended:
        at = of(row["minute"])
        done[at] += row["succeeded"] + row["cancelled"]
        failed[at] += row["failed"]
    for minute, count in (waiting or {}).items():
        waited[of(minute)] = max(count, waited.get(of(minute), 0))
    last, step = of(present), timedelta(minutes=size)
    spans = [last - step * back for back in range(minutes // size - 1, -1, -1)]
    return [Point(f"{at:%H:%M}", done[at], failed[at], waited.get(at)) for at in spans]


def last_day(store: Store, size: int) -> list[Point]:
    """Return the last 24 hours by spans of `size` minutes, at most 15 seconds old.

    They are the counts of up to 1,440 minutes, of each pair of queue and task.
    """
    known = _days.get(store)
    if known is None or time.monotonic() - known[0] > FRESH:
        found = last_points(Monitor(store), DAY, size)
        known = _days[store] = time.monotonic(), found
    return known[1]


def last_points(monitor: Monitor, minutes: int, size: int = 1) -> list[Point]:
    """Return what ended in all queues and waited, by spans of `size` minutes."""
    ended = monitor.ended(minutes, by_queue=False)
    return points(ended, monitor.present(), minutes, size, monitor.waiting(minutes))


def whole_spans(points: Sequence[Point]) -> Sequence[Point]:
    """Return the points without the last span, which is not over, unless it has more already.

    Otherwise each line would seem to fall at its end.
    """
    ended = [point.done + point.failed for point in points[-2:]]
    return points[:-1] if ended and ended[-1] < ended[0] else points


def totals(queues: Rows, workers: Rows) -> dict[str, Any]:
    """Return the figures of all queues and of the live workers."""
    ages = [row["oldest_available_seconds"] for row in queues if not row["paused"]]
    return {
        "available": sum(row[State.AVAILABLE.value] for row in queues),
        "available_more": any(row["available_more"] for row in queues),
        "scheduled": sum(row[State.SCHEDULED.value] for row in queues),
        "scheduled_more": any(row["scheduled_more"] for row in queues),
        "running": sum(row[State.RUNNING.value] for row in queues),
        "slots": sum(row["concurrency"] for row in workers),
        "oldest": max((age for age in ages if age is not None), default=None),
        "pace": sum(row["pace"] for row in queues),
        "failed": sum(row["failed_hour"] for row in queues),
        "hosts": len({row["host"] for row in workers}),
    }


def is_alive(worker: dict[str, Any]) -> bool:
    """Return whether a worker has a heartbeat within its lease."""
    return bool(worker["heartbeat_age_seconds"] <= worker["lease"])


def worker_rows(monitor: Monitor) -> Rows:
    """Return a row for each worker: its jobs, the longest first, its slots, whether it lives."""
    present = monitor.present()
    by_worker: dict[str, list[Running]] = defaultdict(list)
    for row in monitor.running(RUNNING_MAX):
        by_worker[row["worker"] or ""].append(_running(row, present))
    rows = []
    for row in monitor.workers():
        jobs = sorted(by_worker[row["worker"]], key=lambda job: -job.seconds)
        more = {"jobs": jobs, "busy": len(jobs), "alive": is_alive(row)}
        rows.append(row | more | {"slots": _slots(row, jobs)})
    return rows


def _slots(row: dict[str, Any], jobs: Sequence[Running]) -> list[str]:
    """Return a word for each slot of a worker; one that is stopping has none that is free."""
    stuck = sum(bool(job.stuck) for job in jobs)
    free = 0 if row["stopping_at"] else max(0, row["concurrency"] - len(jobs))
    return ["stuck"] * stuck + ["busy"] * (len(jobs) - stuck) + ["free"] * free


def _running(row: dict[str, Any], present: datetime) -> Running:
    seconds = (present - row["started_at"]).total_seconds()
    stuck, asked = "", row["cancel_requested_at"]
    if row["timeout"] is not None and seconds > row["timeout"] + STUCK_AFTER:
        stuck = "beyond its time"
    elif asked is not None and (present - asked).total_seconds() > STUCK_AFTER:
        stuck = "asked to stop, and goes on"
    return Running(row["id"], row["task"], max(0.0, seconds), stuck)


def paused_by(store: Store, rows: Rows) -> dict[str, str]:
    """Return who paused each queue last, if one is paused and that was not too long ago."""
    found: dict[str, str] = {}
    if not any(row["paused"] for row in rows):
        return found
    for action in reversed(Audit(store).find(PAUSES)):
        if action["verb"] == "pause" and "queue" in action["target"]:
            found[action["target"]["queue"]] = action["actor"]
    return found


def causes(store: Store) -> list[ErrorGroup]:
    """Return the most frequent errors of this hour and the one before, if they are many."""
    found = ErrorGroups(store).find("1h", limit=GROUPS, within="1h")
    return [group for group in found if group.hour >= MANY]


def as_finding(group: ErrorGroup) -> Finding:
    """Return what fails for one reason as a finding."""
    sentence = (
        f"{counted(group.hour, 'attempt')} errored lately for one reason: "
        f"{group.type} in {group.task}"
    )
    remedy = f"jobqueue list --error {group.id}; then jobqueue retry --error {group.id}"
    return Finding(CAUSE, sentence, remedy, (group.id,))


def recent_findings(store: Store, open_names: Sequence[str] = ()) -> list[Finding]:
    """Return what is wrong or will be, at most 15 seconds old. `open_names` as for `examine`."""
    found, names = _found.setdefault(store, {}), tuple(open_names)
    known = found.get(names)
    if known is None or time.monotonic() - known[0] > FRESH:
        known = found[names] = time.monotonic(), examine(store, names).findings
    return known[1]


def forget_findings(store: Store) -> None:
    """Ask the database again: something was changed here, which may have mended a finding."""
    _found.pop(store, None)
    _days.pop(store, None)
