"""One front per database, which all tests of the catalogue of bad input share."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from sqlalchemy import delete

from jobqueue import JobQueue
from jobqueue.store.schema import jobs as rows
from jobqueue.web import Server, create_app
from tests.conftest import database, record_version
from tests.web.conftest import Client, add_tasks

HTTP_ONLY = pytest.mark.databases("sqlite")
"""Of tests of what is refused before any database is asked."""
TOKEN = "a-long-random-token"
JOB = {"task": "add", "args": [2, 3]}
BODY = json.dumps(JOB)
Standing = tuple[JobQueue, Client]


@pytest.fixture(scope="module")
def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Standing]]:
    """One front per database for all tests of a file, which leave it as it was: it stops slowly."""
    with ExitStack() as stack:

        @cache
        def front(backend_name: str) -> Standing:
            folder = tmp_path_factory.mktemp("front")
            url = stack.enter_context(database(backend_name, request, folder))
            jobs = stack.enter_context(JobQueue(url))
            add_tasks(jobs)
            server = stack.enter_context(Server(create_app(jobs), port=0, grace=1))
            return jobs, stack.enter_context(Client(base_url=server.url, timeout=60))

        yield front


@pytest.fixture
def jobs(
    standing: Callable[[str], Standing], backend_name: str, request: pytest.FixtureRequest
) -> JobQueue:
    record_version(request, backend_name)
    return standing(backend_name)[0]


@pytest.fixture
def client(standing: Callable[[str], Standing], backend_name: str) -> Client:
    return standing(backend_name)[1]


@pytest.fixture(autouse=True)
def unharmed(jobs: JobQueue) -> Iterator[None]:
    """Whatever a test of this folder sends wrongly, no job comes of it; and no test reads the jobs of another."""
    yield
    with jobs.store.write() as connection:
        tags = connection.execute(delete(rows).returning(rows.c.tags)).scalars().all()
    assert [tag for tag in tags if "ok" not in (tag or "")] == []


def still_serves(client: Client) -> bool:
    return client.enqueue(1, 1, tags=["ok"]).status_code == 202
