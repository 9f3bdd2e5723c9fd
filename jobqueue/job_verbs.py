"""What a program does with jobs: cancel, retry, change, delete some by id; pause some by name."""

from collections.abc import Iterable
from datetime import datetime
from typing import overload

from jobqueue import options as option_rules
from jobqueue.errors import invalid
from jobqueue.job import require_changed
from jobqueue.job_changes import JobChanges
from jobqueue.known_names import names_of, unknown
from jobqueue.records import JobFilter
from jobqueue.store.jobs import Jobs
from jobqueue.store.names import names_in_use
from jobqueue.store.notify.notifier import Notifier
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind
from jobqueue.tasks import Registry

ID_MAX = 2**63 - 1


class JobVerbs:
    """The verbs of a queue that change jobs by their ids, or hold them back by a name."""

    registry: Registry
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
    def pause(self, queue: str, *, force: bool = False) -> None: ...
    @overload
    def pause(self, *, task: str, force: bool = False) -> None: ...
    @overload
    def pause(self, *, tag: str, force: bool = False) -> None: ...
    def pause(
        self,
        queue: str | None = None,
        *,
        task: str | None = None,
        tag: str | None = None,
        force: bool = False,
    ) -> None:
        """Start no more jobs of a queue, of a task or with a tag: one of the three.

        In the whole fleet, from the next claim on; what runs goes on. `force` accepts a name that
        neither this app nor the database knows yet. Raises InvalidOption.
        """
        named = self._named_pause(queue=queue, task=task, tag=tag, force=force)
        Pauses(self._jobs.store).pause(*named)

    @overload
    def resume(self, queue: str, *, force: bool = False) -> None: ...
    @overload
    def resume(self, *, task: str, force: bool = False) -> None: ...
    @overload
    def resume(self, *, tag: str, force: bool = False) -> None: ...
    def resume(
        self,
        queue: str | None = None,
        *,
        task: str | None = None,
        tag: str | None = None,
        force: bool = False,
    ) -> None:
        """Start jobs of a paused queue, of a paused task or with a paused tag again."""
        named = self._named_pause(queue=queue, task=task, tag=tag, force=force)
        Pauses(self._jobs.store).resume(*named)
        self._notifier.notify()

    def _named_pause(self, *, force: bool, **given: str | None) -> tuple[PauseKind, str]:
        """Return the kind and the name that is given. Raises InvalidOption."""
        named = {kind: name for kind, name in given.items() if name is not None}
        if len(named) != 1:
            raise invalid("queue", "give a queue, or task=, or tag=: one of the three")
        ((kind, given_name),) = named.items()
        name = option_rules.name(given_name, kind)
        if not option_rules.flag(force, "force"):
            self._require_known(kind, name)
        return PauseKind(kind), name

    def _require_known(self, kind: str, name: str) -> None:
        """Raise InvalidOption for a name that neither the app nor the database knows."""
        known = names_of(self.registry)
        if unknown(kind, [name], getattr(known, f"{kind}s")) is not None:
            self._jobs.store.require_schema(beside_others=False)
            known |= names_in_use(self._jobs.store)
        hint = " (force=True takes it as it is)"
        if (error := unknown(kind, [name], getattr(known, f"{kind}s"), hint)) is not None:
            raise error


def _named(ids: tuple[int, ...]) -> JobFilter:
    return JobFilter(ids=tuple(option_rules.whole(id_, "id", 1, ID_MAX) for id_ in ids))
