"""Log: who did what, and how to undo it."""

from collections.abc import Callable
from typing import Any

from jobqueue import options, text_parsing
from jobqueue.errors import WrongState
from jobqueue.queue import JobQueue
from jobqueue.store.audit import Audit
from jobqueue.store.audit_words import about
from jobqueue.store.undo import Undo
from jobqueue.web.pages.view import Done, Query

PAGE = 100


def log_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show what operators did, newest first. Raises InvalidOption."""
    before = None
    if query.get("before"):
        before = options.whole(options.integer(query["before"]), "before", 1, 2**63 - 1)
    found = Audit(queue.store).stored(PAGE + 1, before=before)
    page = found[:PAGE]
    offers = Undo(queue.store).offers(page)
    rows = [
        action
        | {
            "about": about(action),
            "undo": offers.get(action["id"]),
            "changed_since": offers.get(action["id"], "") is None,
        }
        for action in page
    ]
    return "log.html", {"rows": rows, "after": page[-1]["id"] if len(found) > PAGE else None}


def undo(queue: JobQueue, form: Query, actor: str, require: Callable[[str], object]) -> Done:
    """Take an action back, if the operator may do the verb for which `require` does not raise."""
    try:
        said = Undo(queue.store).undo(text_parsing.action_id(form["id"]), actor, require)
    except WrongState as refused:  # Somebody else was faster: the page shows what is there now.
        return Done(f"{str(refused)[:1].upper()}{str(refused)[1:]}.")
    queue.wake_workers()
    return Done(f"Undone: {said}.")
