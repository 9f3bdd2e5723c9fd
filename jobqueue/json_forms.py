"""JSON that the command line and the HTTP API print: jobs, results of verbs, errors."""

import math
from dataclasses import replace
from typing import Any

from jobqueue.records import JobRecord
from jobqueue.serialization.json_values import shorten
from jobqueue.store.jobs import Jobs

_VALUE_LENGTH = 200  # characters of a wrong value


def job_json(job: JobRecord) -> dict[str, Any]:
    """Return the job object of the contract, also for a row that plain SQL has written."""
    try:
        return job.to_json()
    except (ValueError, TypeError, KeyError, RecursionError):
        bare = replace(job, args='{"args": [], "kwargs": {}}', result=None).to_json()
        return bare | {"args": None, "kwargs": None, "args_text": job.args}


def with_attempts(jobs: Jobs, job: JobRecord) -> dict[str, Any]:
    """Return the job object with its attempts."""
    return job_json(job) | {"attempts": [attempt.to_json() for attempt in jobs.attempts(job)]}


def error_json(message: str, field: str | None = None, value: object = None) -> dict[str, Any]:
    """Return the error object of the contract; long or structured values are shortened."""
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    if not isinstance(value, bool | int | float | None):
        short = isinstance(value, str) and len(value) <= _VALUE_LENGTH
        value = value if short else shorten(value)
    return {"message": message, "field": field, "value": value}
