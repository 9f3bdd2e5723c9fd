"""A durable job queue with workers, on SQLite and Postgres."""

from jobqueue.errors import (
    Cancel,
    ClaimLost,
    ConfigurationError,
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
from jobqueue.job import Job
from jobqueue.options import exponential, fixed
from jobqueue.queue import JobQueue, Queue
from jobqueue.states import State
from jobqueue.tasks import Task
from jobqueue.worker.context import current_job

__all__ = [
    "Cancel",
    "ClaimLost",
    "ConfigurationError",
    "InvalidArguments",
    "InvalidOption",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobQueue",
    "JobQueueError",
    "Queue",
    "QueueFull",
    "ResultTimeout",
    "Retry",
    "Snooze",
    "State",
    "Task",
    "UnknownTask",
    "WrongState",
    "current_job",
    "exponential",
    "fixed",
]
