"""New jobs: what an enqueue gives to the store, and what it gets back."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from jobqueue.literals import OnConflict, UniqueUntil


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A call ready to be written down; `delay` (seconds) or `at`, or neither: now.

    `deadline` is in how many seconds it has to have ended, all attempts and waits included. The
    garbage collector skips it, since it refers to no container: with 10,000 calls, rows and ids at
    once, the collector took a third of the time of `enqueue_many`.
    """

    task: str
    queue: str
    priority: int
    args: str
    tags: str | None
    delay: float | None
    at: datetime | None
    max_attempts: int
    timeout: float | None
    backoff: str | None
    unique_key: str | None
    unique_until: UniqueUntil | None
    deadline: float | None = None
    extra: "ExtraColumns | None" = None
    conflict: "Conflict | None" = None


class Conflict(NamedTuple):
    """What an enqueue does where a waiting job holds its unique key. Times are seconds."""

    on_conflict: OnConflict
    debounce: float | None = None  # from the last enqueue until the job is due
    max_wait: float | None = None  # the most from the first enqueue until then
    rerun: bool = False  # where a running job holds the key: once more when the key is free

    @property
    def changes(self) -> bool:
        """True if it changes a waiting job that holds the key."""
        return self.on_conflict != "ignore" or self.debounce is not None


class ExtraColumns(NamedTuple):
    """Columns that few jobs have. They are apart, so that other jobs do not pay for them."""

    headers: str | None = None
    scheduled_for: datetime | None = None
    lane: str | None = None
    """The concurrency key, as the columns of a job call it."""
    lane_limit: int | None = None
    lane_weight: float | None = None
    lane_strict: int | None = None
    expires: float | None = None  # seconds from the enqueue
    awaited_key: str | None = None


class Inserted(msgspec.Struct, frozen=True, gc=False):
    """The id that a call has in the database; `created` is False where its unique key was held."""

    id: int
    created: bool
