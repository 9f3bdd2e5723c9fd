"""The app of the demo's workers: `jobqueue worker --app jobqueue.demo.app:jobs`."""

from jobqueue.demo.tasks import register
from jobqueue.queue import JobQueue

jobs = JobQueue()
register(jobs)
