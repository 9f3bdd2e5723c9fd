"""Errors of one cause, as Now shows them: many attempts that errored for one reason lately."""

from typing import NamedTuple

from jobqueue.queue import JobQueue
from jobqueue.records import counted
from jobqueue.store.error_groups import ErrorGroups

GROUPS, MANY = 3, 10
"""How many errors are named, and how many attempts of one make it worth that."""
MESSAGE_MAX = 200


class Cause(NamedTuple):
    """What fails for one reason."""

    sentence: str
    message: str
    place: str
    """Path and query of the page that shows more, below the mount."""


def causes(queue: JobQueue) -> list[Cause]:
    """Return the most frequent errors of this hour and the one before."""
    return [
        Cause(
            f"{counted(group.hour, 'attempt')} errored lately for one reason: "
            f"{group.type} in {group.task}",
            group.message[:MESSAGE_MAX],
            f"jobs?error={group.id}" if group.failed else "errors",
        )
        for group in ErrorGroups(queue.store).find("1h", limit=GROUPS)
        if group.hour >= MANY
    ]
