"""Errors of one cause, as Now shows them: many attempts that errored for one reason lately."""

from typing import NamedTuple

from jobqueue.overview import as_finding, causes
from jobqueue.queue import JobQueue

MESSAGE_MAX = 200


class Cause(NamedTuple):
    """What fails for one reason."""

    sentence: str
    message: str
    place: str
    """Path and query of the page that shows more, below the mount."""


def shown_causes(queue: JobQueue) -> list[Cause]:
    """Return the most frequent errors of this hour and the one before."""
    return [
        Cause(
            as_finding(group).sentence,
            group.message[:MESSAGE_MAX],
            f"jobs?error={group.id}" if group.failed else "errors",
        )
        for group in causes(queue.store)
    ]
