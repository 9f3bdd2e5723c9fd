"""What a page is: a function that reads, apart from HTTP, so that every front can show it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jobqueue.queue import JobQueue

Query = Mapping[str, str]
"""The parameters of a page's path and URL; a repeated one has its values joined by commas."""

View = Callable[[JobQueue, Query], tuple[str, dict[str, Any]]]
"""Returns the name of a template, and its data. Raises JobQueueError."""


class Page(NamedTuple):
    """A page of the dashboard."""

    path: str
    view: View
    parameters: tuple[str, ...] = ()
    """Those of its URL, beside those of its path."""
    title: str | None = None
    """Its name in the navigation; None: it has none there."""
    key: str | None = None
    """The key that leads to it after `g`."""


class Done(NamedTuple):
    """What a verb has done."""

    notice: str
    """One sentence."""
    to: str | None = None
    """The path and query of the page that shows it, below the mount; None: where one was."""


Act = Callable[[JobQueue, Query, str], Done]
"""Does what a form asks for, for an actor. Raises JobQueueError."""
