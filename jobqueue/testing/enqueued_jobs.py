"""Finds the waiting jobs that equal a call."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from jobqueue.errors import InvalidArguments
from jobqueue.job import Job
from jobqueue.printable_text import listed
from jobqueue.records import JobRecord
from jobqueue.tasks import Task

R = TypeVar("R")


class Enqueued(list[Job[R]], Generic[R]):
    """The jobs that match; its repr names all waiting jobs, for the message of an assertion."""

    def __init__(self, found: Sequence[Job[R]], waiting: Sequence[JobRecord]) -> None:
        super().__init__(found)
        self._waiting = waiting

    def __repr__(self) -> str:
        shown = listed([f"{job.id} {job.task}{job.args}" for job in self._waiting])
        return f"{super().__repr__()} (waiting: {shown or 'no job'})"


def matcher(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[JobRecord], bool]:
    """Return a test whether a row has the arguments of this call, by position or by name."""
    signature = inspect.signature(task.function)

    def bound(args: Sequence[Any], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        found = signature.bind(*args, **kwargs)
        found.apply_defaults()
        return found

    def text(call: inspect.BoundArguments) -> str | None:
        try:
            return task.codec.encode(call.args, call.kwargs)
        except InvalidArguments:  # A default that is not JSON, or a matcher such as ANY.
            return None

    try:
        wanted = bound(args, kwargs)
    except TypeError as error:
        raise InvalidArguments(f"enqueued: {task.name}: {error}", field="args") from None
    wanted_text = text(wanted)

    def same(row: JobRecord) -> bool:
        try:
            found = bound(*task.codec.decode(row.args))
        except (InvalidArguments, TypeError):  # Of an older version of the task.
            return False
        if wanted_text is not None and wanted_text == text(found):
            return True
        return found.arguments == wanted.arguments

    return same
