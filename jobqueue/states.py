"""The life of a job: its states, and the moves between them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, get_args

from jobqueue.literal_types import StateName


class State(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"  # waits for run_at: delayed, or between two attempts
    AVAILABLE = "available"  # may be claimed now
    RUNNING = "running"  # claimed by a worker whose lease is good
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # no attempts left, or refused for good
    CANCELLED = "cancelled"


assert get_args(StateName) == tuple(State)


class OutcomeKind(StrEnum):
    """How an attempt ended, as `jobqueue_attempts` has it."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    TIMED_OUT = "timed out"
    CRASHED = "crashed"  # its own child process died
    REFUSED = "refused"  # its stored arguments do not fit the task
    SNOOZED = "snoozed"
    CANCELLED = "cancelled"
    RELEASED = "released"  # given back, uncharged
    INTERRUPTED = "interrupted"  # by a shutdown; the job may start only once
    UNKNOWN_TASK = "unknown task"
    LOST = "lost"  # with its worker


WAITING = (State.SCHEDULED, State.AVAILABLE)
LIVE = (*WAITING, State.RUNNING)
FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Move(NamedTuple):
    """A verb's precondition and its effect."""

    before: tuple[State, ...]
    after: State


MOVES: Mapping[str, Move] = {
    "promote": Move((State.SCHEDULED,), State.AVAILABLE),  # run_at has come
    "claim": Move((State.AVAILABLE,), State.RUNNING),  # attempt + 1, fence + 1
    "succeed": Move((State.RUNNING,), State.SUCCEEDED),
    "retry": Move((State.RUNNING,), State.SCHEDULED),  # attempts left
    "fail": Move((State.RUNNING,), State.FAILED),  # none left
    "snooze": Move((State.RUNNING,), State.SCHEDULED),  # attempt - 1: not charged
    "release": Move((State.RUNNING,), State.AVAILABLE),  # attempt - 1: not charged
    "reap": Move((State.RUNNING,), State.AVAILABLE),  # its worker is gone: crashes + 1
    "cancel": Move(LIVE, State.CANCELLED),  # running: only when its worker says so
    "run_now": Move((State.SCHEDULED,), State.AVAILABLE),  # an operator's retry: due now
    "postpone": Move(WAITING, State.SCHEDULED),  # due later: by its operator or key
    "requeue": Move(FINAL, State.AVAILABLE),  # an operator's retry; of a succeeded job if asked for
}
"""Every verb that changes a job's state. Statements, docs and the model test derive from it."""
