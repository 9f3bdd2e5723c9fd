"""What all tests of real processes need, and the one repetition of those that a stall of the machine has spoilt."""

from contextlib import contextmanager

import pytest
from _pytest.runner import runtestprotocol
from processes import STALLED, scenario  # noqa: F401 - scenario is a fixture
from sqlalchemy import create_engine

from jobqueue import JobQueue
from tests.conftest import RERUN


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "rerun_on_stall: it has workers that watch each other, or measures, and its processes must not stand still; "
        "if it fails, and a process of it logged that it did, it is run once more, which the closing lines count",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A reaper cannot tell a worker that the machine does not let run from one that is dead: neither can a test."""
    if item.get_closest_marker("rerun_on_stall") is None:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(report.failed for report in reports) and item.stash.get(STALLED, False):
        item._initrequest()  # New fixtures: another database, other processes.
        item.user_properties.append((RERUN, item.nodeid))
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


ONLY_SQLITE = pytest.mark.databases("sqlite")
ONLY_POSTGRES = pytest.mark.databases("postgres")


def plain(url: str):
    """The URL as SQLAlchemy itself takes it."""
    return url.replace("postgresql:", "postgresql+psycopg:")


def asynchronous(url: str):
    return url.replace("postgresql:", "postgresql+psycopg:").replace("sqlite:", "sqlite+aiosqlite:")


@contextmanager
def engine_of(url: str, **options):
    engine = create_engine(plain(url), **options)
    yield engine
    engine.dispose()


@pytest.fixture
def jobs(url: str):
    with JobQueue(url) as jobs:

        @jobs.task(max_attempts=1)
        def add(x: int, y: int) -> int:
            return x + y

        yield jobs


def ids(jobs: JobQueue) -> list[int]:
    return sorted(record.id for record in jobs.list(limit=None))


def lambda_free(x: int, y: int) -> int:
    return x + y
