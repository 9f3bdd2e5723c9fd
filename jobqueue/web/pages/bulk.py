"""The verbs for jobs: first what they would change, with a sample; then what they have changed."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jobqueue import wire
from jobqueue.bulk_verbs import RETRY, RETRY_ALL, SAMPLE, Verb, change_jobs, in_words, updating
from jobqueue.errors import InvalidOption
from jobqueue.job_changes import JobChanges
from jobqueue.job_search import FILTER, filter_of
from jobqueue.known_names import names_of
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter
from jobqueue.redaction import ShownJobs
from jobqueue.store.job_pages import COUNTED_MAX, JobPages
from jobqueue.store.names import names_in_use
from jobqueue.web.pages.jobs import VERBS, row_of
from jobqueue.web.pages.view import Done, Query

PARAMETERS = (*FILTER, "id", "all", "succeeded", "from")
"""`all` says that the filter is meant; `from` is the filter of the list to go back to."""


def confirm_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show how many jobs a verb would change now, and a sample of them; change nothing."""
    verb, wanted = _asked(queue, query)
    pages = JobPages(ShownJobs(queue.store, queue.registry))
    count, sample = 0, []
    for part in _parts(verb, wanted):
        count += pages.count(part)
        sample += pages.page(part, size=SAMPLE).jobs if count else []
    sample.sort(key=lambda job: -job.id)
    given = {name: text for name in PARAMETERS if (text := query.get(name, "").strip())}
    return "confirm.html", {
        "verb": verb,
        "count": count,
        "more": count > COUNTED_MAX,
        "counted_max": COUNTED_MAX,
        "sample": [row_of(job) for job in sample[:SAMPLE]],
        "given": given,
        "back": _back(query),
        "left_out": _left_out(verb, wanted, pages),
    }


def act(queue: JobQueue, form: Query, actor: str) -> Done:
    """Change the jobs that match. Raises JobQueueError."""
    verb, wanted = _asked(queue, form)
    if verb.changes is not None:
        verb = updating(_changes(form))
    jobs = ShownJobs(queue.store, queue.registry)
    changed, refused = change_jobs(verb, jobs, wanted, actor)
    if verb.wakes and changed:
        queue.wake_workers()
    return Done(in_words(verb, changed, refused), _back(form, gone=verb.name == "delete"))


def _changes(form: Query) -> JobChanges:
    """Return what a form changes; a field that is left empty stays. Raises InvalidOption."""
    priority, to = form.get("new_priority", "").strip(), form.get("new_queue", "").strip()
    given = {"priority": wire.whole(priority) if priority else None, "queue": to or None}
    return JobChanges.of(given)


def _asked(queue: JobQueue, query: Query) -> tuple[Verb, JobFilter]:
    """Return the verb and the jobs that it is about. Raises InvalidOption."""
    verb = VERBS[query["verb"]]
    if bool(query.get("id")) == bool(query.get("all")):
        raise InvalidOption("id: choose some jobs, or all that match", field="id")
    if verb is RETRY and query.get("succeeded"):
        verb = RETRY_ALL
    names = names_of(queue.registry) | names_in_use(queue.store)
    return verb, filter_of(query, names, JobPages(ShownJobs(queue.store, queue.registry)))


def _parts(verb: Verb, wanted: JobFilter) -> list[JobFilter]:
    """Return a filter for each state that the verb changes, each served by an index."""
    if wanted.state is not None:
        return [wanted] if wanted.state in verb.states else []
    return [replace(wanted, state=state) for state in verb.states]


def _left_out(verb: Verb, wanted: JobFilter, pages: JobPages) -> int:
    """Return how many of the jobs that are named the verb would leave out as they are."""
    if wanted.ids is None:
        return 0
    return pages.count(wanted) - sum(pages.count(part) for part in _parts(verb, wanted))


def _back(query: Query, *, gone: bool = False) -> str:
    ids = query.get("id", "").split(",")
    if len(ids) == 1 and ids[0] and not gone:
        return f"/jobs/{ids[0]}"
    before = dict(parse_qsl(query.get("from", ""))) if ids[0] else query
    given = {name: before[name] for name in FILTER if before.get(name)}
    return f"/jobs?{urlencode(given)}" if given else "/jobs"
