"""What may be changed of a job that waits."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jobqueue.errors import InvalidOption
from jobqueue.options import Options
from jobqueue.records import JobRecord


class JobChanges(NamedTuple):
    """New values of a waiting job's options; None leaves the old one."""

    priority: int | None = None
    queue: str | None = None
    at: datetime | None = None
    tags: tuple[str, ...] | None = None

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "JobChanges":
        """Check new values, by the names of the options. Raises InvalidOption, also for none."""
        changes = {name: value for name, value in given.items() if value is not None}
        for name in changes:
            if name not in cls._fields:
                raise InvalidOption(
                    f"{name[:40]!r} is not what can be changed; there are {', '.join(cls._fields)}",
                    field=name[:40],
                )
        if not changes:
            raise InvalidOption(
                f"nothing to change: give at least one of {', '.join(cls._fields)}",
                field="priority",
            )
        checked = Options().merge(changes)
        return cls(**{name: getattr(checked, name) for name in changes})

    def are_made(self, job: JobRecord) -> bool:
        """Return whether a job is as they make it."""
        new = (self.priority, self.queue, self.at, self.tags)
        now = (job.priority, job.queue, job.run_at, job.tags)
        return all(value in (None, there) for value, there in zip(new, now, strict=True))

    @property
    def moves(self) -> dict[str, Any]:
        """The new queue and priority, which can be undone, if nothing else changes."""
        values = {name: value for name, value in self._asdict().items() if value is not None}
        return values if values.keys() <= {"queue", "priority"} else {}

    def to_json(self) -> dict[str, Any]:
        """Return what changes, as JSON values."""
        values = {name: value for name, value in self._asdict().items() if value is not None}
        return values if self.at is None else values | {"at": self.at.isoformat()}
