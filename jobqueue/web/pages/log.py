"""Log: who did what, and how to undo it."""

from typing import Any

from jobqueue import options, wire
from jobqueue.queue import JobQueue
from jobqueue.store.audit import Audit
from jobqueue.web.pages.view import Query

PAGE = 100
INVERSE = {"pause": "resume", "resume": "pause"}


def log_page(queue: JobQueue, query: Query) -> tuple[str, dict[str, Any]]:
    """Show what operators did, newest first. Raises InvalidOption."""
    before = None
    if query.get("before"):
        before = options.whole(wire.whole(query["before"]), "before", 1, 2**63 - 1)
    found = Audit(queue.store).find(PAGE + 1, before=before)
    seen: set[tuple[str, str]] = set()
    rows = []
    for action in found[:PAGE]:
        undo = None
        for kind in ("queue", "schedule", "task", "tag"):
            name = action["target"].get(kind)
            if name is not None and action["verb"] in INVERSE and len(action["target"]) == 1:
                # Only what was done last can be undone.
                first = before is None and (kind, name) not in seen
                seen.add((kind, name))
                inverse = INVERSE[action["verb"]]
                undo = (f"{kind}s/", name, inverse) if first else None
        rows.append(action | {"about": about(action["target"]), "undo": undo})
    return "log.html", {"rows": rows, "after": found[PAGE - 1]["id"] if len(found) > PAGE else None}


def about(target: dict[str, Any]) -> str:
    """Return what an action was about, in words."""
    given = dict(target)
    ids, more = given.pop("ids", None), given.pop("more_ids", 0)
    parts = []
    if ids is not None:
        shown = ids[:5]
        rest = len(ids) - len(shown) + more
        parts.append(f"job{'' if len(ids) + more == 1 else 's'} {', '.join(map(str, shown))}")
        parts += [f"and {rest:,} more"] if rest else []
    if given.pop("all", None):
        parts.append("all jobs")
    parts += [f"{name} {value}" for name, value in given.items()]
    return ", ".join(parts)
