"""A durable job queue with workers, on SQLite and Postgres."""

from jobqueue.errors import (
    Cancel,
    ClaimLost,
    ConfigurationError,
    EnqueueRefused,
    InvalidArguments,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobQueueError,
    QueueFull,
    ResultTimeout,
    Retry,
    Snooze,
    UnknownTask,
    WrongState,
)
from jobqueue.events import Event
from jobqueue.job import Job
from jobqueue.options import exponential, fixed
from jobqueue.queue import JobQueue
from jobqueue.queue_switches import Queue
from jobqueue.records import JobRecord
from jobqueue.schedules.timing import cron, every
from jobqueue.states import State
from jobqueue.tasks import Call, Task
from jobqueue.worker.handler.context import JobContext, current_job
from jobqueue.worker.worker import Worker

__all__ = [
    "Call",
    "Cancel",
    "ClaimLost",
    "ConfigurationError",
    "EnqueueRefused",
    "Event",
    "InvalidArguments",
    "InvalidOption",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobFailed",
    "JobNotFound",
    "JobQueue",
    "JobQueueError",
    "JobRecord",
    "Queue",
    "QueueFull",
    "ResultTimeout",
    "Retry",
    "Snooze",
    "State",
    "Task",
    "UnknownTask",
    "Worker",
    "WrongState",
    "cron",
    "current_job",
    "every",
    "exponential",
    "fixed",
]
