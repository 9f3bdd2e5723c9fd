"""Who may do what: the answer of `authorize=`, and the verbs that requests are."""

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Literal

from starlette.requests import Request
from starlette.types import Scope

from jobqueue.errors import InvalidOption, invalid
from jobqueue.web.responses import HTTPError, log
from jobqueue.web.security import READS, VERBLESS, path_of

Answer = Literal["all", "read"] | Collection[str] | None
"""All verbs, none, or those named; None refuses the request."""
Authorize = Callable[[Request], Answer | Awaitable[Answer]]


VERBS = (
    *("retry", "cancel", "delete", "update", "pause", "resume", "limit", "rate", "fair"),
    *("purge", "reset", "remove", "run", "add", "enqueue", "undo"),
)


class Rights:
    """The verbs that a request may use. None as `verbs` means all."""

    def __init__(self, verbs: frozenset[str] | None) -> None:
        self.verbs = verbs

    @classmethod
    def of(cls, answer: Answer) -> "Rights":
        """Read the answer of `authorize`. Raises HTTPError for None, InvalidOption for a typo."""
        if answer is None:
            raise HTTPError(403, "you may not look at this", field="authorize")
        if not isinstance(answer, Collection):
            raise invalid("authorize", f"{type(answer).__name__} cannot be one")
        if isinstance(answer, str):
            if answer not in ("all", "read"):
                raise invalid(
                    "authorize", f'{answer!r} is not "all", "read", names of verbs or None'
                )
            return cls(None if answer == "all" else frozenset())
        wrong = next((verb for verb in answer if verb not in VERBS), None)
        if wrong is not None:
            raise invalid("authorize", f"{wrong!r} is not a verb; there are {', '.join(VERBS)}")
        return cls(frozenset(answer))

    def allow(self, verb: str) -> bool:
        """Return whether a verb may be used."""
        return self.verbs is None or verb in self.verbs

    def check_form(self, scope: Scope) -> None:
        """Raise HTTPError unless the verb of a page's form may be used: the end of its path."""
        path = path_of(scope)
        if scope["method"] not in READS and path not in VERBLESS:
            self.require(path.rpartition("/")[2])

    def require(self, verb: str) -> None:
        """Raise HTTPError unless a verb may be used."""
        if not self.allow(verb):
            raise HTTPError(403, f"you may not {verb} here", field="authorize", value=verb)


async def rights_of(request: Request, authorize: Authorize | None, *, read_only: bool) -> Rights:
    """Return what a request may do. Raises HTTPError if it may not even look, and for an answer
    that is a mistake of the program.
    """
    if authorize is None:
        return Rights(frozenset() if read_only else None)
    answer = authorize(request)
    try:
        rights = Rights.of(await answer if inspect.isawaitable(answer) else answer)
    except InvalidOption as error:
        log.error("500: %s", error)
        raise HTTPError(500, "this went wrong here; the log says why") from None
    return Rights(frozenset()) if read_only else rights
