"""What the screen of `top` is made of: views, and lines of text with what the cursor may be on."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from rich.text import Text

from jobqueue.job_search import FILTER
from jobqueue.states import State

Kind = Literal["now", "jobs", "errors", "queues", "workers", "schedules", "job", "finding", "help"]
ItemKind = Literal["finding", "queue", "pause", "worker", "error", "job"]


class View(NamedTuple):
    """A view on the screen. Its name stays the same when its contents change."""

    kind: Kind
    name: str = ""
    """The search of a list of jobs, the id of a job, the name of a worker."""


class Item(NamedTuple):
    """What a line is about."""

    kind: ItemKind
    key: str
    """Its name or id: the cursor stays with it."""
    it: Any
    """The row, record or group."""


class Line(NamedTuple):
    """A line of the screen. Several lines may be about one item."""

    text: Text
    item: Item | None = None


class Room(NamedTuple):
    """Cells of a line, and lines of the screen; None: as many as there are."""

    width: int
    height: int | None = None
    has_keys: bool = True
    """False for text that is printed: it names commands where the screen has keys."""


Picture = Callable[[Room], list[Line]]
"""Draws what was read for a view, for any room."""

TABS: Mapping[str, View] = {
    "n": View("now"),
    "j": View("jobs"),
    "e": View("errors"),
    "q": View("queues"),
    "w": View("workers"),
    "s": View("schedules"),
}
"""By the key that leads there after `g`, as on the dashboard."""


def query_of(search: str) -> dict[str, str]:
    """Return the filter that is typed: `failed queue:mail`, an id, a key, a task's beginning."""
    query: dict[str, str] = {}
    rest = []
    for word in _words(search):
        name, colon, value = word.partition(":")
        if colon and name in FILTER and value:
            query[name] = value
        elif word in tuple(State):
            query["state"] = word
        else:
            rest.append(word)
    return query | ({"q": " ".join(rest)} if rest else {})


def _words(search: str) -> list[str]:
    try:
        return shlex.split(search)
    except ValueError:  # A quote without its end.
        return search.split()


def opened(item: Item) -> View:
    """Return the view that shows more of an item."""
    match item.kind:
        case "queue":
            return View("jobs", f"queue:{shlex.quote(item.key)}")
        case "pause":
            return View("jobs", f"{item.it['kind']}:{shlex.quote(item.it['name'])}")
        case "error":
            return View("jobs", f"error:{item.key}")
        case "worker":
            return View("workers", item.key)
        case _:
            return View(item.kind, item.key)


_HELP = """\
KEYS
j k, arrows     next and previous line; page up and down, home, end
enter           open: the jobs of a queue, a pause, a worker or an error; a job
esc             back
/               find jobs
g, then n j e   Now, Jobs, Errors
g, then q w s   Queues, Workers, Schedules
p               pause a queue, or resume it; resume a task or a tag
r               retry a job, or all that failed with an error
c               cancel a job
ctrl-l          draw again
q, ctrl-c       quit

A verb says first what it changes, and asks: y does it, any other key does not.

FIND
8172            the job of this id
sync            jobs of the tasks that begin so, or with this unique key
failed          jobs in this state; state:failed means the same
queue:mail      and task:sync_crm, tag:red, error:3f2a9c; all words are meant

SLOTS
■ busy   □ free   ! stuck: beyond its time, or asked to stop and goes on
draining: the worker was asked to stop, and ends what it runs
"""
HELP = [Line(Text(text, "dim" if text.isupper() else "")) for text in _HELP.splitlines()]
