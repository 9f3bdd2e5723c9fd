"""What `--json` prints and the HTTP API answers with, beyond a row's own object."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobqueue.records import JobRecord, Refusal
from jobqueue.store.jobs import Jobs


def job_json(job: JobRecord) -> dict[str, Any]:
    """The job object of the contract, for rows that someone wrote with SQL too."""
    try:
        return job.to_json()
    except (ValueError, TypeError, KeyError, RecursionError):
        bare = replace(job, args='{"args": [], "kwargs": {}}', result=None).to_json()
        return bare | {"args": None, "kwargs": None, "args_text": job.args}


def with_attempts(jobs: Jobs, job: JobRecord) -> dict[str, Any]:
    """The job object with its attempts."""
    return job_json(job) | {"attempts": [attempt.to_json() for attempt in jobs.attempts(job)]}


def changes(changed: Sequence[int], refused: Sequence[Refusal]) -> dict[str, Any]:
    """What a verb changed, and what it did not, with the reason."""
    return {
        "changed": len(changed),
        "refused": [
            {"id": refusal.id, "state": refusal.state, "reason": refusal.reason}
            for refusal in refused
        ],
    }
