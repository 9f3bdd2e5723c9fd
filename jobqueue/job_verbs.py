"""What a program does with jobs by their ids: cancel, retry, change, delete."""

from collections.abc import Iterable
from datetime import datetime

from jobqueue import options as option_rules
from jobqueue.job import require_changed
from jobqueue.job_changes import JobChanges
from jobqueue.records import JobFilter
from jobqueue.store.jobs import Jobs
from jobqueue.store.notify.notifier import Notifier

ID_MAX = 2**63 - 1


class JobVerbs:
    """The verbs of a queue that change jobs by their ids."""

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
        changed, refused = self._jobs.rerun(_named(ids), succeeded=succeeded)
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


def _named(ids: tuple[int, ...]) -> JobFilter:
    return JobFilter(ids=tuple(option_rules.whole(id_, "id", -ID_MAX, ID_MAX) for id_ in ids))
