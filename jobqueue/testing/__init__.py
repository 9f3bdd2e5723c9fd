"""Test an application's jobs: its queue on a fresh database, its handlers run in the test.

The pytest fixture `jobqueue` is a `QueueTester`; without pytest use `with bind(jobs) as queue:`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from sqlalchemy import URL

from jobqueue.cli.app_loader import load
from jobqueue.config import find_app
from jobqueue.errors import ConfigurationError
from jobqueue.queue import JobQueue
from jobqueue.store.fresh_database import Databases
from jobqueue.testing.enqueued_jobs import Enqueued
from jobqueue.testing.inline_worker import Ran
from jobqueue.testing.tester import QueueTester

__all__ = ["Databases", "Enqueued", "QueueTester", "Ran", "app", "bind"]


@contextmanager
def bind(
    jobs: JobQueue, url: str | URL | None = None, *, databases: Databases | None = None
) -> Iterator[QueueTester]:
    """Bind an application's queue to a fresh database for the block, and yield its QueueTester.

    `url` as in `Databases.fresh`; None: a new SQLite file. Tests that share `databases` create the
    schema once. Two threads must not bind one queue at the same time.
    """
    with (
        Databases() if databases is None else nullcontext(databases) as all_,
        all_.fresh(url) as store,
    ):
        tester = QueueTester(jobs, store)
        with tester.bound():
            yield tester


def app(name: str | None = None) -> JobQueue:
    """Import the application's queue: `module:attribute`, else as the command line finds it.

    Raises ConfigurationError.
    """
    found, folder = find_app(name)
    if found is None:
        raise ConfigurationError(
            'no app is named: write jobqueue_app = "app:jobs" under [tool.pytest.ini_options], '
            'or app = "app:jobs" under [tool.jobqueue], for `jobs = JobQueue()` in app.py',
            field="app",
        )
    return load(found, folder)
