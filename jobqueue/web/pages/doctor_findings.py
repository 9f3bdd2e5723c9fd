"""What `doctor` has found, as Now shows it: a sentence, and where to look or what to do."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from jobqueue.doctor_findings import Finding
from jobqueue.overview import recent_findings
from jobqueue.queue import JobQueue

SHOWN = 8
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


class Shown(NamedTuple):
    """A finding on a page."""

    sentence: str
    remedy: str
    place: str | None
    """Path and query of the page that shows more, below the mount."""


def findings(queue: JobQueue, open_names: Sequence[str] = ()) -> list[Shown]:
    """Return what is wrong or will be, at most 15 seconds old."""
    found = recent_findings(queue.store, open_names)[:SHOWN]
    return [Shown(each.sentence, each.remedy, _place(each)) for each in found]


def _place(finding: Finding) -> str | None:
    place = _PLACES.get(finding.check)
    return place and place.format(quote(finding.names[0], safe=""))
