"""The verbs that change many jobs at once: the command line and the dashboard have the same."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jobqueue.job_changes import JobChanges
from jobqueue.records import JobFilter, Refusal
from jobqueue.states import MOVES, State
from jobqueue.store.audit import Action
from jobqueue.store.jobs import Jobs


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


CANCEL = Verb("cancel", "cancelled", MOVES["cancel"].before, Jobs.cancel)
RETRY_ALL = Verb(
    "retry",
    "retried",
    (*MOVES["hasten"].before, *MOVES["rerun"].before),
    partial(Jobs.rerun, succeeded=True),
    wakes=True,
)
RETRY = replace(
    RETRY_ALL,
    states=tuple(state for state in RETRY_ALL.states if state is not State.SUCCEEDED),
    act=Jobs.rerun,
)
"""Leaves out succeeded jobs: to run them again repeats their effects."""
DELETE = Verb(
    "delete",
    "deleted",
    tuple(state for state in State if state is not State.RUNNING),
    Jobs.delete,
)
