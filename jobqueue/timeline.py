"""The life of one job as steps, from its enqueue to where it is."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from jobqueue.records import AttemptRecord, JobRecord, counted
from jobqueue.states import State


class Step(NamedTuple):
    """One step of a job's life."""

    name: str
    kind: str
    """ok, bad, run or wait: its colour."""
    at: datetime | None
    note: str = ""
    seconds: float | None = None


def steps_of(job: JobRecord, attempts: list[AttemptRecord], earlier: int) -> Iterator[Step]:
    """Yield the steps of a job; `earlier` attempts are left out of these."""
    yield Step("enqueued", "ok", job.created_at)
    last = job.created_at
    if earlier:
        yield Step(counted(earlier, "earlier attempt"), "wait", None)
        last = attempts[0].started_at or last
    for attempt in attempts:
        began = attempt.started_at
        if began is not None and (gap := (began - last).total_seconds()) >= 0.1:  # noqa: PLR2004
            yield Step("waited", "wait", last, seconds=gap)
        yield _of_attempt(attempt)
        last = attempt.finished_at or last
    if job.awaits_key:
        yield Step("waits for its unique key", "wait", last)
    elif job.state is State.SCHEDULED:
        yield Step("scheduled for", "wait", job.run_at)
    elif job.state is State.AVAILABLE:
        yield Step("available since", "wait", max(job.run_at, last))
    elif job.final:
        kind = {State.SUCCEEDED: "ok", State.FAILED: "bad"}.get(job.state, "wait")
        yield Step(job.state.value, kind, job.finished_at, job.reason or "")


def _of_attempt(attempt: AttemptRecord) -> Step:
    kind = {"succeeded": "ok", "running": "run"}.get(attempt.outcome, "wait")
    if attempt.error is not None:
        kind = "bad"
    took = None
    if attempt.started_at and attempt.finished_at:
        took = (attempt.finished_at - attempt.started_at).total_seconds()
    note = attempt.error.type if attempt.error else ""
    name = f"attempt {attempt.attempt} {attempt.outcome}"
    return Step(name, kind, attempt.started_at or attempt.finished_at, note, took)
