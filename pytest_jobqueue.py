"""The pytest plugin of jobqueue: the fixture `jobqueue`.

pytest imports this module in every run. It lies beside the package so that the package is imported
only when a test uses the fixture.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobqueue import JobQueue
    from jobqueue.testing import Databases, QueueTester


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings; the fixtures read them."""
    parser.addini(
        "jobqueue_app",
        "module:attribute of the JobQueue that the fixture `jobqueue` binds "
        "(default: $JOBQUEUE_APP, or app under [tool.jobqueue] in pyproject.toml)",
    )
    parser.addini(
        "jobqueue_url",
        "URL of the database to bind to; in PostgreSQL the tests get a schema of their own "
        "(default: a fresh SQLite file for each test)",
    )


@pytest.fixture(scope="session")
def jobqueue_app(pytestconfig: pytest.Config) -> JobQueue:
    """The application's queue. Override it where `module:attribute` cannot name the queue."""
    from jobqueue.errors import ConfigurationError
    from jobqueue.testing import app

    root = str(pytestconfig.rootpath)
    if root not in sys.path:
        sys.path.insert(0, root)  # As the command line does with the current folder.
    try:
        return app(pytestconfig.getini("jobqueue_app") or None)
    except ConfigurationError as error:
        if error.__cause__ is not None:  # An error in the application: show its traceback.
            raise
        pytest.fail(f"fixture jobqueue: {error}", pytrace=False)


@pytest.fixture(scope="session")
def jobqueue_url(pytestconfig: pytest.Config) -> str | None:
    """The database to bind to; None: a new SQLite file. Override it with any scope."""
    return pytestconfig.getini("jobqueue_url") or None


@pytest.fixture(scope="session")
def _jobqueue_databases() -> Iterator[Databases]:
    from jobqueue.testing import Databases

    with Databases() as databases:
        yield databases


@pytest.fixture
def jobqueue(
    jobqueue_app: JobQueue, jobqueue_url: str | None, _jobqueue_databases: Databases
) -> Iterator[QueueTester]:
    """A QueueTester: the application's queue on a fresh database; see `jobqueue.testing`."""
    from jobqueue.testing import bind

    with bind(jobqueue_app, jobqueue_url, databases=_jobqueue_databases) as tester:
        yield tester
