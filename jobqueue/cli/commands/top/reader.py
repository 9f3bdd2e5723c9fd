"""Reads what a view of `top` shows: the same figures as the pages of the dashboard."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from jobqueue import overview, text_parsing
from jobqueue.cli.commands.top import draw, job
from jobqueue.cli.commands.top.views import Kind, Picture, View, query_of
from jobqueue.config import WORKER
from jobqueue.doctor_findings import Finding
from jobqueue.errors import JobNotFound
from jobqueue.job_search import filter_of
from jobqueue.known_names import all_names
from jobqueue.records import JobFilter
from jobqueue.redaction import ShownJobs
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.job_pages import JobPages
from jobqueue.store.schedules import ScheduleTable
from jobqueue.store.stats import Monitor
from jobqueue.store.why import explain
from jobqueue.tasks import Registry

NEWEST = 40
"""Jobs of the first screen."""
LISTED = 200
"""Jobs of a list."""
GROUPS = 200
ATTEMPTS = 20
"""Newest attempts of one job."""


class Reader:
    """Reads one database, as operators see it. Each view costs a bounded number of rows."""

    def __init__(self, jobs: ShownJobs, as_typed: Callable[[str], str] = str) -> None:
        self._jobs = jobs
        self._as_typed = as_typed
        self._no_worker = as_typed(f"no worker is running; start one with: {WORKER}")
        self._store = jobs.store
        self._monitor = Monitor(jobs.store)
        self._views: Mapping[Kind, Callable[[str], Picture]] = {
            "now": self._now,
            "jobs": self._list,
            "errors": self._errors,
            "queues": self._queues,
            "workers": self._workers,
            "schedules": self._schedules,
            "job": self._job,
            "finding": self._finding,
        }

    def read(self, view: View) -> Picture:
        """Return what a view shows now. Raises JobQueueError, and the database's errors."""
        return self._views[view.kind](view.name)

    def _now(self, _name: str) -> Picture:
        now = draw.Now(
            findings=self._needs(),
            queues=overview.queue_rows(self._monitor),
            workers=overview.worker_rows(self._monitor),
            no_worker=self._no_worker,
            errors=ErrorGroups(self._store).find("24h", limit=GROUPS),
            jobs=JobPages(self._jobs).page(JobFilter(), size=NEWEST).jobs,
            pauses=self._monitor.pauses(),
        )
        paused_by = overview.paused_by(self._store, now.queues)
        return partial(draw.now, now._replace(paused_by=paused_by))

    def _needs(self) -> list[Finding]:
        """Return what needs somebody, the most important first."""
        causes = [overview.as_finding(group) for group in overview.causes(self._store)]
        found = causes + overview.recent_findings(self._store)
        return [replace(each, remedy=self._as_typed(each.remedy)) for each in found]

    def _list(self, search: str) -> Picture:
        names = all_names(Registry(), self._store)
        pages = JobPages(self._jobs)
        page = pages.page(filter_of(query_of(search), names, pages), size=LISTED)
        return partial(draw.job_list, page, search)

    def _errors(self, _name: str) -> Picture:
        groups = ErrorGroups(self._store).find("7d", limit=GROUPS)
        return partial(draw.error_list, groups)

    def _queues(self, _name: str) -> Picture:
        rows = overview.queue_rows(self._monitor)
        paused_by = overview.paused_by(self._store, rows)
        return partial(draw.queues_and_pauses, rows, paused_by, self._monitor.pauses())

    def _workers(self, name: str) -> Picture:
        rows = overview.worker_rows(self._monitor)
        if not name:
            return partial(draw.worker_list, rows, nothing=self._no_worker)
        return partial(draw.worker_jobs, [row for row in rows if row["worker"] == name])

    def _schedules(self, _name: str) -> Picture:
        return partial(draw.schedule_list, ScheduleTable(self._store).find())

    def _job(self, name: str) -> Picture:
        id_ = text_parsing.job_id(name)
        found, why = self._jobs.get(id_), explain(self._jobs, id_)
        if found is None or why is None:
            raise JobNotFound(f"there is no job {id_} (any more)", field="id", value=id_)
        why = replace(why, advice=self._as_typed(why.advice))
        attempts = self._jobs.attempts(found, ATTEMPTS)
        earlier = max(0, self._jobs.count_attempts(id_) - ATTEMPTS)
        return partial(job.page, found, why, attempts, earlier)

    def _finding(self, key: str) -> Picture:
        found = [each for each in self._needs() if draw.key_of(each) == key]
        return partial(draw.finding, found)
