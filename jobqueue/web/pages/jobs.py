"""Jobs: which ones there are, by state, task, queue and tag, and the verbs for those that match."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from jobqueue.bulk_verbs import CANCEL, DELETE, RETRY, Verb, updating
from jobqueue.display import call_of, error_of
from jobqueue.job_changes import JobChanges
from jobqueue.job_search import FILTER, filter_of
from jobqueue.known_names import all_names, unknown_in
from jobqueue.queue import JobQueue
from jobqueue.records import JobRecord
from jobqueue.redaction import ShownJobs
from jobqueue.states import State
from jobqueue.store.job_pages import WINDOW, JobPages, is_counted
from jobqueue.web.pages.view import Query

CELL_MAX = 200
"""Characters of a call, or of an error, in a list."""
VERBS: Mapping[str, Verb] = {
    verb.name: verb for verb in (RETRY, CANCEL, updating(JobChanges()), DELETE)
}
"""By name. What an update changes is asked for with the sample."""


def jobs_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show a page of the jobs that match, the newest first."""
    names = all_names(queue.registry, queue.store)
    pages = JobPages(ShownJobs(queue.store, queue.registry))
    wanted = filter_of(query, names, pages)
    page = pages.page(wanted, query.get("after"))
    given = {name: query[name] for name in FILTER if query.get(name)}
    return "jobs.html", {
        "after": page.after,
        "is_window": page.window,
        "rows": [row_of(job) for job in page.jobs],
        "given": dict.fromkeys(FILTER, "") | given,
        "states": [state.value for state in State],
        "without_state": urlencode({key: given[key] for key in given if key != "state"}),
        "filter": urlencode(given),
        "signature": wanted.error,
        "names": names,
        "count": pages.count_soon(wanted) if is_counted(wanted) else None,
        "window": WINDOW,
        "verbs": [verb for verb in VERBS.values() if wanted.state in (None, *verb.states)],
        "unknown_name": "" if page.jobs else str(unknown_in(wanted, names) or ""),
    }


class JobRow(NamedTuple):
    """A job in a list, without what is long of it."""

    id: int
    state: State
    task: str
    call: str
    queue: str
    attempt: int
    max_attempts: int
    when: datetime | None
    error: str
    reason: str


def row_of(job: JobRecord) -> JobRow:
    """Return what a list shows of a job."""
    when = job.finished_at or (job.started_at if job.state is State.RUNNING else job.run_at)
    return JobRow(
        job.id,
        job.state,
        job.task,
        call_of(job)[:CELL_MAX],
        job.queue,
        job.attempt,
        job.max_attempts,
        when,
        error_of(job)[:CELL_MAX],
        (job.reason or "")[:CELL_MAX],
    )
