"""`jobs.schedules`: what a program or an operator does with schedules."""

import copy
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from jobqueue import options as option_rules
from jobqueue.enqueue_hooks import EnqueueHook
from jobqueue.errors import Duration
from jobqueue.job import Job
from jobqueue.json_calls import find_task
from jobqueue.literal_types import CatchUp, Overlap
from jobqueue.new_jobs import NewJob
from jobqueue.redaction import Declarations
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.schedules.scheduled_calls import declared, definition_of, new_job
from jobqueue.schedules.timing import Run, Timing
from jobqueue.store.audit import operator
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.notify.notifier import Notifier
from jobqueue.store.schedules import ScheduleTable, not_found
from jobqueue.tasks import Call, Registry, Task

DAY = 86_400.0
DAYS_MAX = int(option_rules.SECONDS_MAX / DAY)


class Schedules:
    """The schedules of one database. Iterating yields them all, by name.

    What is about one schedule raises ScheduleNotFound if there is none of that name.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        notifier: Notifier,
        hooks: Sequence[EnqueueHook] = (),
    ) -> None:
        self._store = store
        self._registry = registry
        self._notifier = notifier
        self._hooks = hooks
        self._table = ScheduleTable(store)

    def of(self, operator: str) -> Self:
        """Return them for an operator, whose changes are written to the audit."""
        other = copy.copy(self)
        other._table = ScheduleTable(self._store, operator)  # noqa: SLF001 - it is one of ours.
        return other

    def __iter__(self) -> Iterator[ScheduleRecord]:
        return iter(self._table.find())

    def get(self, name: str) -> ScheduleRecord:
        """Return one schedule. Raises ScheduleNotFound."""
        found = self._table.find(option_rules.name(name, "name"))
        if not found:
            raise not_found(name)
        return found[0]

    def add(
        self,
        name: str,
        call: Call[Any],
        when: Timing,
        *,
        catch_up: CatchUp = "latest",
        overlap: Overlap | None = None,
        replace: bool = False,
    ) -> ScheduleRecord:
        """Enqueue a call at the times of `cron(…)` or `every(…)`, from now on.

        The same schedule may be added again, as programs do at their start. Another one of that
        name raises InvalidOption, or is changed with `replace=True`. For `catch_up` and `overlap`
        see the options of a task.
        """
        option_rules.name(name, "name")
        definition = definition_of(call, when, catch_up, overlap)
        Declarations(self._store).write([call.task])
        self._table.add(name, definition, replace=replace)
        return self.get(name)

    def pause(self, name: str, *, by: str | None = None) -> bool:
        """Make no more jobs until `resume`; return False if it is paused already.

        `by` says who did; the user of this process, as `user@host`, by default.
        """
        return self._table.pause(name, by or operator())

    def resume(self, name: str) -> bool:
        """Make jobs again, none for the time of the pause; return False if it was not paused."""
        return self._table.resume(name)

    def run(self, name: str) -> Job[Any]:
        """Enqueue its job now, beside its ticks.

        With overlap="skip" a last job that has not ended is returned, with `created == False`.
        Raises QueueFull, and what a hook at the enqueue raises.
        """
        found: list[Task[Any, Any]] = []

        def make(record: ScheduleRecord) -> NewJob:
            task = self._registry.find(record.definition.task)
            found.append(task or find_task(None, record.definition.task))
            return new_job(found[0], record, self._hooks)

        id_, created = self._table.run(name, make)
        if created:
            self._notifier.notify()
        decode = found[0].codec.decode_result if found else json.loads
        return Job(id_, Jobs(self._store), decode, created=created)

    def reset(self, name: str) -> bool:
        """Undo what was changed of a schedule that the code declares, but for a pause.

        Return False if nothing was. Raises InvalidOption if the code declares nothing.
        """
        return self._table.reset(name)

    def remove(self, name: str) -> ScheduleRecord:
        """Delete a schedule and return what it was; its jobs stay.

        What the code declares is added again by the next worker that starts.
        """
        return self._table.remove(name)

    def preview(self, name: str, within: Duration = 7 * DAY) -> Iterator[Run]:
        """Yield the runs of the next time, 7 days by default, with what clock changes do to them.

        Also of a schedule that this program declares and no worker has written yet.
        """
        limit = option_rules.seconds(within, "within")
        found = self._table.find(option_rules.name(name, "name"))
        own = declared(self._registry)
        if not found and name not in own:
            raise not_found(name)
        definition = found[0].definition if found else own[name]
        present = datetime.now(UTC)
        return definition.timing.preview(present, present + timedelta(seconds=limit))
