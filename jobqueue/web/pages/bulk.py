"""The verbs for jobs: first what they would change, with a sample; then what they have changed."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

from jobqueue import options
from jobqueue.bulk_verbs import RETRY, RETRY_ALL, SAMPLE, Verb, change_jobs, in_words, updating
from jobqueue.errors import invalid
from jobqueue.job_changes import JobChanges
from jobqueue.job_search import FILTER, filter_of
from jobqueue.known_names import all_names
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter, counted
from jobqueue.redaction import ShownJobs
from jobqueue.store.bulk_preview import SCANNED_MAX, preview
from jobqueue.store.job_pages import COUNTED_MAX, JobPages
from jobqueue.web.pages.jobs import VERBS, row_of
from jobqueue.web.pages.view import Done, Query

PARAMETERS = (*FILTER, "id", "all", "succeeded", "from")
"""`all` says that the filter is meant; `from` is the filter of the list to go back to."""


def confirm_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show how many jobs a verb would change now, and a sample of them; change nothing."""
    verb, wanted = _asked(queue, query)
    found = preview(ShownJobs(queue.store, queue.registry), wanted, verb.states, SAMPLE)
    count = counted(found.number, "job")
    if not found.whole:
        least = "more than" if found.number >= COUNTED_MAX else "at least"
        count = f"{least} {count}" if found.number else "all jobs that match"
    given = {name: text for name in PARAMETERS if (text := query.get(name, "").strip())}
    return "confirm.html", {
        "verb": verb,
        "any": bool(found.number) or not found.whole,
        "count": count,
        "whole": found.whole,
        "looked": None if found.whole or found.number >= COUNTED_MAX else SCANNED_MAX,
        "is_all": found.whole and found.number == len(found.sample),
        "sample": [row_of(job) for job in found.sample],
        "given": given,
        "back": _back(query),
        "left_out": found.left_out if wanted.ids is not None else 0,
    }


def act(queue: JobQueue, form: Query, actor: str) -> Done:
    """Change the jobs that match. Raises JobQueueError."""
    verb, wanted = _asked(queue, form)
    if verb.changes is not None:
        verb = updating(_changes(form))
    jobs = ShownJobs(queue.store, queue.registry)
    done = change_jobs(verb, jobs, wanted, actor, queue.wake_workers)
    return Done(in_words(verb, done), _back(form, gone=verb.name == "delete"))


def _changes(form: Query) -> JobChanges:
    """Return what a form changes; a field that is left empty stays. Raises InvalidOption."""
    priority, to = form.get("new_priority", "").strip(), form.get("new_queue", "").strip()
    given = {"priority": options.integer(priority) if priority else None, "queue": to or None}
    return JobChanges.of(given)


def _asked(queue: JobQueue, query: Query) -> tuple[Verb, JobFilter]:
    """Return the verb and the jobs that it is about. Raises InvalidOption."""
    verb = VERBS[query["verb"]]
    if bool(query.get("id")) == bool(query.get("all")):
        raise invalid("id", "choose some jobs, or all that match")
    if verb is RETRY and query.get("succeeded"):
        verb = RETRY_ALL
    names = all_names(queue.registry, queue.store)
    return verb, filter_of(query, names, JobPages(ShownJobs(queue.store, queue.registry)))


def _back(query: Query, *, gone: bool = False) -> str:
    ids = query.get("id", "").split(",")
    if len(ids) == 1 and ids[0] and not gone:
        return f"/jobs/{ids[0]}"
    before = dict(parse_qsl(query.get("from", ""))) if ids[0] else query
    given = {name: before[name] for name in FILTER if before.get(name)}
    return f"/jobs?{urlencode(given)}" if given else "/jobs"
