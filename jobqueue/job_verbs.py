"""What a program does with jobs: cancel, retry, change, delete some by id; pause some by name."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import overload

from jobqueue import options as option_rules
from jobqueue.errors import invalid
from jobqueue.job import require_changed
from jobqueue.job_changes import JobChanges
from jobqueue.records import JobFilter
from jobqueue.store.jobs import Jobs
from jobqueue.store.notify.notifier import Notifier
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind
from jobqueue.store.stats import Monitor

ID_MAX = 2**63 - 1


class JobVerbs:
    """The verbs of a queue that change jobs by their ids, or hold them back by a name."""

    _jobs: Jobs
    _notifier: Notifier

    def cancel(self, *ids: int) -> None:
        """Cancel jobs; running ones are requested to stop. Raises JobNotFound or WrongState."""
        require_changed(self._jobs.cancel(_named(ids))[1])

    def retry(self, *ids: int, succeeded: bool = False) -> None:
        """Run failed and cancelled jobs again, with as many attempts as at first.

        Scheduled jobs become due now. `succeeded=True` includes jobs that have succeeded. Raises
        JobNotFound or WrongState after the others were retried.
        """
        changed, refused = self._jobs.retry(_named(ids), succeeded=succeeded)
        if changed:
            self._notifier.notify()
        require_changed(refused)

    def update(
        self,
        *ids: int,
        priority: int | None = None,
        queue: str | None = None,
        at: datetime | None = None,
        tags: Iterable[str] | None = None,
    ) -> None:
        """Change jobs that wait: scheduled and available ones. None leaves a value as it is.

        `at`, an aware datetime, is when they are due; one that has passed makes them due now.
        `tags` replace the tags. The bound of the new queue does not count. Raises JobNotFound or
        WrongState after the others were changed, InvalidOption.
        """
        given = {"priority": priority, "queue": queue, "at": at, "tags": tags}
        changed, refused = self._jobs.update(_named(ids), JobChanges.of(given))
        if changed:
            self._notifier.notify()
        require_changed(refused)

    def delete(self, *ids: int) -> None:
        """Delete jobs that are not running. Raises JobNotFound or WrongState."""
        require_changed(self._jobs.delete(_named(ids))[1])

    @overload
    def pause(self, queue: str) -> None: ...
    @overload
    def pause(self, *, task: str) -> None: ...
    @overload
    def pause(self, *, tag: str) -> None: ...
    def pause(
        self, queue: str | None = None, *, task: str | None = None, tag: str | None = None
    ) -> None:
        """Start no more jobs of a queue, of a task or with a tag: one of the three.

        In the whole fleet, from the next claim on; what runs goes on. Raises InvalidOption.
        """
        self._switch(Monitor.pause, Pauses.pause, queue, task, tag)

    @overload
    def resume(self, queue: str) -> None: ...
    @overload
    def resume(self, *, task: str) -> None: ...
    @overload
    def resume(self, *, tag: str) -> None: ...
    def resume(
        self, queue: str | None = None, *, task: str | None = None, tag: str | None = None
    ) -> None:
        """Start jobs of a paused queue, of a paused task or with a paused tag again."""
        self._switch(Monitor.resume, Pauses.resume, queue, task, tag)
        self._notifier.notify()

    def _switch(
        self,
        of_queue: Callable[[Monitor, str], bool],
        of_kind: Callable[[Pauses, PauseKind, str], bool],
        queue: str | None,
        task: str | None,
        tag: str | None,
    ) -> None:
        if sum(name is not None for name in (queue, task, tag)) != 1:
            raise invalid("queue", "give a queue, or task=, or tag=: one of the three")
        if queue is not None:
            of_queue(Monitor(self._jobs.store), option_rules.name(queue, "queue"))
        elif task is not None:
            of_kind(Pauses(self._jobs.store), PauseKind.TASK, option_rules.name(task, "task"))
        elif tag is not None:
            of_kind(Pauses(self._jobs.store), PauseKind.TAG, option_rules.name(tag, "tag"))


def _named(ids: tuple[int, ...]) -> JobFilter:
    return JobFilter(ids=tuple(option_rules.whole(id_, "id", -ID_MAX, ID_MAX) for id_ in ids))
