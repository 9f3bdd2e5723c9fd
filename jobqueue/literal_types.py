"""The closed sets of words that the public API takes and gives, for type checkers and editors."""

from typing import Literal

StateName = Literal["scheduled", "available", "running", "succeeded", "failed", "cancelled"]
"""A `State` as text."""

UniqueUntil = Literal["finished", "started", "deleted"]
"""How long a job holds its unique key: until it has ended, until it begins, or as long as its row
is kept."""

OnConflict = Literal["ignore", "replace", "reschedule"]
"""What an enqueue does to the waiting job that holds its unique key: nothing, write the new
arguments and options onto it, or move its due time."""

Isolation = Literal["thread", "process"]
"""Where a handler runs: in the worker, or in a child process that can be killed."""

WhenFull = Literal["wait", "reject"]
"""What an enqueue into a full queue does: wait for room, or raise QueueFull."""

EventName = Literal["succeeded", "failed", "cancelled", "errored", "snoozed", "released", "lost"]
"""What happens to jobs."""

CatchUp = Literal["latest", "all", "none"]
"""What becomes of ticks that no worker was there for: one job for the last one, a job for each, or
no job."""

Overlap = Literal["skip", "allow"]
"""Whether a tick makes no job while the schedule's last one has not ended, or does."""

ErrorWindow = Literal["1h", "24h", "7d"]
"""How far back errors are counted."""

WhyCode = Literal[
    "expired",
    "not_due",
    "awaits_key",
    "queue_paused",
    "task_paused",
    "tag_paused",
    "no_worker",
    "unknown_task",
    "queue_full",
    "rate",
    "in_order",
    "lane_full",
    "behind",
    "claimable",
    "running",
    "worker_lost",
    "succeeded",
    "failed",
    "cancelled",
]
"""Why a job is where it is."""
