"""The pytest plugin of jobqueue: the fixture `jobqueue`.

Beside the package, not in it: pytest imports this in every run, and the package only when a test
takes the fixture.
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
    """Declare the settings, which are read when the fixture is first used."""
    parser.addini(
        "jobqueue_app",
        "module:attribute of the JobQueue that the fixture `jobqueue` binds "
        "(default: $JOBQUEUE_APP, or app under [tool.jobqueue] in pyproject.toml)",
    )
    parser.addini(
        "jobqueue_url",
        "the database that it is bound to: a PostgreSQL URL, for a schema of the tests' own there "
        "(default: a fresh SQLite file for each test)",
    )


@pytest.fixture(scope="session")
def jobqueue_app(pytestconfig: pytest.Config) -> JobQueue:
    """The application's queue; to be overridden where an import does not lead to it."""
    from jobqueue.errors import ConfigurationError
    from jobqueue.testing import app

    root = str(pytestconfig.rootpath)
    if root not in sys.path:
        sys.path.insert(0, root)  # As the command line does with the current folder.
    try:
        return app(pytestconfig.getini("jobqueue_app") or None)
    except ConfigurationError as error:
        if error.__cause__ is not None:  # The application's own error: its traceback says more.
            raise
        pytest.fail(f"fixture jobqueue: {error}", pytrace=False)


@pytest.fixture(scope="session")
def jobqueue_url(pytestconfig: pytest.Config) -> str | None:
    """The database to bind to, None for a fresh SQLite file; to be overridden, of any scope."""
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
    """The application's queue on a fresh database for this test; see `jobqueue.testing`."""
    from jobqueue.testing import bind

    with bind(jobqueue_app, jobqueue_url, databases=_jobqueue_databases) as tester:
        yield tester
