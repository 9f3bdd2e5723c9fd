"""What `doctor` has found, as Now shows it: a sentence, and where to look or what to do."""

import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote
from weakref import WeakKeyDictionary

from jobqueue.findings import Finding
from jobqueue.queue import JobQueue
from jobqueue.store.database import Store
from jobqueue.store.doctor import examine

FRESH = 15.0
"""Seconds for which findings are shown before the database is asked again."""
SHOWN = 8
_PLACES = {
    "unserved_queues": "jobs?state=available&queue={}",
    "unknown_tasks": "jobs?task={}",
    "due_for_long": "jobs/{}",
    "stuck_handlers": "jobs/{}",
    "lost_workers": "workers",
    "schedules": "schedules",
    "limits_of_0": "queues",
}
"""Where to look, by check; with the first name of a finding."""
_found: WeakKeyDictionary[Store, tuple[float, Sequence[str], list[Finding]]] = WeakKeyDictionary()


class Shown(NamedTuple):
    """A finding on a page."""

    sentence: str
    remedy: str
    place: str | None
    """Path and query of the page that shows more, below the mount."""


def findings(queue: JobQueue, open_names: Sequence[str] = ()) -> list[Shown]:
    """Return what is wrong or will be, at most 15 seconds old."""
    known = _found.get(queue.store)
    if known is None or time.monotonic() - known[0] > FRESH or known[1] != open_names:
        found = examine(queue.store, open_names).findings
        known = _found[queue.store] = time.monotonic(), open_names, found
    return [Shown(each.sentence, each.remedy, _place(each)) for each in known[2][:SHOWN]]


def forget(queue: JobQueue) -> None:
    """Ask the database again: something was changed here, which may have mended a finding."""
    _found.pop(queue.store, None)


def _place(finding: Finding) -> str | None:
    place = _PLACES.get(finding.check)
    return place and place.format(quote(finding.names[0], safe=""))
