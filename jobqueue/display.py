"""Short texts about jobs that the command line and the dashboard share: ages, durations, calls."""

import itertools
import json
from datetime import UTC, datetime

from jobqueue.records import AttemptRecord, JobRecord
from jobqueue.store.history import WAITING_MAX

_STEPS = [(86_400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s")]


def duration(seconds: float | None) -> str:
    """Return a time in at most two parts: `1m15s`."""
    if seconds is None:
        return ""
    if seconds < 0.9995:  # noqa: PLR2004 - it would be shown as 1000 ms.
        return f"{max(0.0, 1000 * seconds):.{3 if seconds >= 0.001 else 2}g}ms"  # noqa: PLR2004
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.3g}s"
    whole = round(seconds)
    for (size, unit), (below, smaller) in itertools.pairwise(_STEPS):
        if whole >= size:
            rest = int(whole % size // below)
            return f"{int(whole // size)}{unit}" + (f"{rest}{smaller}" if rest else "")
    return f"{whole}s"


def counted_waiting(count: int | None) -> str:
    """How many jobs waited in a minute, with a plus if that is a bound; a dash: nobody counted."""
    return "–" if count is None else f"{count:,}{'+' if count >= WAITING_MAX else ''}"


def took(record: JobRecord | AttemptRecord) -> str:
    """The time from the start to the end of a job's last attempt, or of an attempt."""
    if record.started_at is None or record.finished_at is None:
        return ""
    return duration((record.finished_at - record.started_at).total_seconds())


def ago(instant: datetime | None, now: datetime | None = None) -> str:
    """Return the distance from now: `5m ago`, `in 2h`."""
    if instant is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - instant).total_seconds()
    if abs(seconds) < 1:
        return "now"
    # 59 minutes and 58 seconds are an hour; 300 days are no more than that.
    far = abs(seconds) + min(0.02 * abs(seconds), _STEPS[1][0] / 2)
    size, unit = next((size, unit) for size, unit in _STEPS if far >= size)
    number = int(far // size)
    return f"{number}{unit} ago" if seconds > 0 else f"in {number}{unit}"


def call_of(job: JobRecord) -> str:
    """The arguments as one would write them: `2, 3, name="x"`."""
    try:
        given = json.loads(job.args)
        parts = [json.dumps(value, ensure_ascii=False) for value in given["args"]]
        named = given["kwargs"].items()
        parts += [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in named]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return job.args  # Someone wrote this row with SQL.
    return ", ".join(parts)


def first_line(text: str | None) -> str:
    """Return the first line that is not empty."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")


def error_of(job: JobRecord) -> str:
    """The last error in one line."""
    if job.error is None:
        return ""
    return f"{job.error.type}: {first_line(job.error.message)}".rstrip(": ")
