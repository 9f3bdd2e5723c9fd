"""New jobs: what an enqueue gives to the store, and what it gets back."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from jobqueue.errors import invalid
from jobqueue.headers import to_text
from jobqueue.literal_types import OnConflict, UniqueUntil
from jobqueue.options import Options


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


def extra_columns(settings: Options) -> ExtraColumns | None:
    """Return the rare columns of a new job; None if it has none."""
    key = settings.concurrency_key
    if key is None and not settings.headers and settings.expires is None:
        return None
    headers = to_text(settings.headers)
    if key is None:
        return ExtraColumns(headers, expires=settings.expires)
    limit = settings.concurrency_limit
    return ExtraColumns(
        headers,
        expires=settings.expires,
        lane=key,
        lane_limit=1 if limit is None and settings.strict else limit,
        lane_weight=None if settings.weight == 1 else settings.weight,
        lane_strict=1 if settings.strict else None,
    )


def conflict_of(call: Options) -> Conflict | None:
    """Return what a call does where its key is held; None: nothing.

    Raises InvalidOption if an option needs a key, and there is none.
    """
    if call.on_conflict == "ignore" and call.debounce is None and not call.rerun:
        return None
    if call.unique_key is None:
        wanting = "on_conflict"
        if call.on_conflict == "ignore":
            wanting = "rerun" if call.debounce is None else "debounce"
        raise invalid(wanting, "it needs a unique_key, and there is none")
    if call.rerun and call.unique_until != "finished":
        needs = f"it needs unique_until 'finished', not {call.unique_until!r}"
        raise invalid("rerun", needs, call.unique_until)
    return Conflict(call.on_conflict, call.debounce, call.max_wait, call.rerun)
