"""The worker's logger, and the fields of its records: the worker's name, and the job of each.

Nothing is done per job: a job runs in a copy of a context in which the name stands already.
"""

import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

from jobqueue.loggers import get_logger
from jobqueue.records import Claim, ExpiredJob, ReapedJob

log = get_logger("jobqueue.worker")

_NAME: ContextVar[str | None] = ContextVar("jobqueue_worker", default=None)


def name_worker(name: str | None) -> None:
    """Give this context, and each that is copied from it, the name of its worker."""
    _NAME.set(name)


def worker_name() -> str | None:
    """Return the name of the worker that this thread or job belongs to."""
    return _NAME.get()


def thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Return a thread, not started, that belongs to the same worker as the current one."""
    context = Context()
    context.run(_NAME.set, _NAME.get())
    return threading.Thread(target=context.run, args=(target,), name=name, daemon=True)


def log_event(event: str, line: str, *values: object, **fields: object) -> None:
    """Log a line about the worker; `fields` are for a log in JSON."""
    log.info(line, *values, extra={"event": event, **fields})


def about(
    claim: Claim | ReapedJob | ExpiredJob,
    event: str | None = None,
    duration: float | None = None,
    error_type: str | None = None,
) -> dict[str, Any]:
    """Return `extra=` for a record about a job. `duration` is seconds."""
    seconds = duration and round(duration, 6)
    return job_of(claim) | {"event": event, "duration": seconds, "error_type": error_type}


def job_of(claim: Claim | ReapedJob | ExpiredJob) -> dict[str, Any]:
    """Return the fields that name the attempt that a record is about."""
    return {"job": claim.id, "task": claim.task, "queue": claim.queue, "attempt": claim.attempt}
