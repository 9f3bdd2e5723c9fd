"""The verbs that change many jobs at once: command line, API and dashboard have the same."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from jobqueue.errors import invalid
from jobqueue.job_changes import JobChanges
from jobqueue.records import JobFilter, JobRecord, Refusal, counted
from jobqueue.states import MOVES, WAITING, State
from jobqueue.store.audit import Action, target_of
from jobqueue.store.jobs import Jobs

IDS_PER_STATEMENT = 1000
SAMPLE = 10
"""Jobs that are shown of those that a verb would change."""
REFUSALS_SHOWN = 3
NEEDED_NOTHING = "needed nothing"


@dataclass(frozen=True)
class Verb:
    """What an operator does to jobs."""

    name: str
    done: str
    states: tuple[State, ...]
    act: Callable[[Jobs, JobFilter, Action], tuple[list[int], list[Refusal]]]
    wakes: bool = False
    """True if what it changes may be claimed at once."""
    changes: JobChanges | None = None
    """What it makes of them, for the audit."""
    unchanged: str = NEEDED_NOTHING
    """What is said of jobs of a filter that it could change and did not."""


CANCEL = Verb("cancel", "cancelled", MOVES["cancel"].before, Jobs.cancel)
RETRY_ALL = Verb(
    "retry",
    "retried",
    (*MOVES["run_now"].before, *MOVES["requeue"].before),
    partial(Jobs.retry, succeeded=True),
    wakes=True,
    unchanged="left out, as other jobs hold their unique keys",
)
RETRY = replace(
    RETRY_ALL,
    states=tuple(state for state in RETRY_ALL.states if state is not State.SUCCEEDED),
    act=Jobs.retry,
)
"""Leaves out succeeded jobs: to run them again repeats their effects."""
DELETE = Verb(
    "delete", "deleted", tuple(state for state in State if state is not State.RUNNING), Jobs.delete
)


@dataclass(frozen=True)
class DryRun:
    """How many jobs a verb would change now, and the newest of them."""

    count: int
    sample: list[JobRecord]

    @classmethod
    def of(cls, jobs: Jobs, filters: Sequence[JobFilter], states: Sequence[State]) -> "DryRun":
        """Count the jobs in `states`, or in the state that a filter names; change nothing."""
        parts = [
            replace(part, state=state)
            for part in filters
            for state in (states if part.state is None else [part.state])
        ]
        newest = (job for part in parts for job in jobs.find(part, SAMPLE))
        sample = heapq.nlargest(SAMPLE, newest, key=lambda job: job.id)
        return cls(sum(map(jobs.count, parts)), sample)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--dry-run --json` prints."""
        jobs = [{"id": job.id, "task": job.task} for job in self.sample]
        return {"dry_run": True, "would_change": self.count, "sample": jobs}


def updating(changes: JobChanges) -> Verb:
    """Return the verb that changes jobs that wait."""
    return Verb(
        "update",
        "updated",
        WAITING,
        lambda jobs, wanted, action: jobs.update(wanted, changes, action),
        wakes=True,
        changes=changes,
    )


class Changed(NamedTuple):
    """What a verb has done."""

    changed: list[int]
    refused: list[Refusal]
    """Ids that were named and could not be changed."""
    unchanged: int
    """Jobs that were left as they are, and are not refused."""
    said: str
    """What is said of these."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that is printed and sent."""
        refused = [
            {"id": each.id, "state": each.state, "reason": each.reason} for each in self.refused
        ]
        more = {"unchanged": self.unchanged} if self.unchanged else {}
        return {"changed": len(self.changed), "refused": refused, **more}


def in_words(verb: Verb, done: Changed) -> str:
    """Return what a verb has changed, and the first that it has not, in sentences."""
    refused = done.refused
    said = f"{verb.done.capitalize()} {counted(len(done.changed), 'job')}."
    if done.unchanged:
        said += f" {done.unchanged:,} {done.said}."
    for refusal in refused[:REFUSALS_SHOWN]:
        said += f" Job {refusal.id}: {refusal.reason}."
    if len(refused) > REFUSALS_SHOWN:
        said += f" {len(refused) - REFUSALS_SHOWN:,} more were refused."
    return said


def change_jobs(
    verb: Verb, jobs: Jobs, wanted: JobFilter, actor: str, wake: Callable[[], object]
) -> Changed:
    """Change the jobs of a filter or of ids; the audit has one row. `wake` wakes workers."""
    target = target_of(wanted)
    if verb.changes is not None:
        target["set"] = verb.changes.to_json()
    action = Action(actor, verb.name, target)
    changed: list[int] = []
    refused: list[Refusal] = []
    for part in parts_of(wanted):
        some, others = verb.act(jobs, part, action)
        changed += some
        refused += others
    if verb.wakes and changed:
        wake()
    if wanted.ids:
        left = len({*wanted.ids}) - len(changed) - len(refused)
        return Changed(changed, refused, left, NEEDED_NOTHING)
    return Changed(changed, refused, action.unchanged, verb.unchanged)


def parts_of(wanted: JobFilter) -> list[JobFilter]:
    """Split a filter with many ids, so that each part fits one statement."""
    if not wanted.ids:
        return [wanted]
    return [
        replace(wanted, ids=wanted.ids[start : start + IDS_PER_STATEMENT])
        for start in range(0, len(wanted.ids), IDS_PER_STATEMENT)
    ]


def require_state(verb: Verb, wanted: JobFilter) -> None:
    """Raise InvalidOption if a filter names a state whose jobs the verb does not change."""
    if wanted.state is not None and wanted.state not in verb.states:
        raise invalid(
            "state",
            f"{wanted.state} jobs cannot be {verb.done}; "
            f"those that can are {', '.join(verb.states)}",
            wanted.state.value,
        )


def left_out(verb: Verb, jobs: Jobs, wanted: JobFilter, ask: str) -> int:
    """Return how many matching jobs a retry leaves out, since they have succeeded.

    `ask`: how to ask for those. Raises InvalidOption if the filter names that state.
    """
    retries = verb.name == RETRY.name and State.SUCCEEDED not in verb.states
    if not retries or wanted.state not in (None, State.SUCCEEDED):
        return 0
    if wanted.state is State.SUCCEEDED:
        raise invalid(
            "state",
            f"jobs that have succeeded are only retried with {ask}: it runs them again",
            wanted.state.value,
        )
    return jobs.count(replace(wanted, state=State.SUCCEEDED))
