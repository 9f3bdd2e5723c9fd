"""The app of the demo's workers: `jobqueue worker --app jobqueue.cli.demo.app:jobs`."""

from jobqueue.cli.demo.tasks import register
from jobqueue.queue import JobQueue

jobs = JobQueue()
register(jobs)
