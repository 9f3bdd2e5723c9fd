"""Row 65 of the catalogue: what is asked while the database is away, or hangs."""

import asyncio
import gc
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from jobqueue import JobQueue
from jobqueue.store.stats import Monitor
from jobqueue.web import Server, create_app
from jobqueue.web.api import routes

from jobqueue.web.concurrency import CachedCall
from tests.web.conftest import Client, add_tasks


def test_65_while_the_database_is_away_probes_answer(
    own_postgres: Any, wait_until: Callable[..., Any]
) -> None:
    with JobQueue(own_postgres.url) as jobs:
        add_tasks(jobs)
        server = Server(create_app(jobs), port=0, grace=1)
        with server, Client(base_url=server.url, timeout=60) as client:

            def readiness() -> int:
                return client.get("/readyz").status_code

            assert readiness() == 200
            own_postgres.stop("immediate")
            try:
                assert client.get("/healthz").status_code == 200
                assert client.get("/metrics").text.splitlines()[-1] == "jobqueue_up 0.0"
                error = client.refused(503, "GET", "/api/jobs")
                assert error["message"] == "the database does not answer"
                response = client.enqueue(2, 3)
                assert response.status_code == 503 and response.headers["retry-after"]
                assert "unique_key" in response.json()["error"]["message"]
                wait_until(lambda: readiness() == 503)  # What is known is kept for a second.
                assert client.get("/readyz").json()["status"] == "not ready"
                assert client.get("/healthz").status_code == 200
            finally:
                own_postgres.start()
            wait_until(lambda: readiness() == 200)
            assert client.enqueue(2, 3).status_code == 202


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("happens", ["moved", "replaced"])
def test_while_the_file_is_elsewhere_the_web_is_not_ready_and_shows_nothing(
    client: Client, url: str, happens: str, wait_until: Callable[..., Any]
) -> None:
    def ready() -> tuple[int, dict[str, Any]]:
        response = client.get("/readyz")
        return response.status_code, response.json()

    reads = ("/api/jobs", "/api/queues", "/", "/jobs", "/queues")
    assert ready()[0] == 200
    assert [client.get(path).status_code for path in reads] == [200] * 5
    file = Path(make_url(url).database or "")
    moved = file.rename(f"{file}.moved")
    if happens == "replaced":
        shutil.copy(moved, file)
    wait_until(lambda: ready()[0] == 503)  # What is known is kept for a second.
    said = ready()[1]
    assert said["status"] == "not ready"
    reason = f"the database file {file} was deleted or replaced"
    assert said["error"]["message"].startswith(reason)
    for path in reads:  # By connections that are still open.
        assert client.refused(503, "GET", path)["message"].startswith(reason)
    moved.replace(file)
    wait_until(lambda: ready()[0] == 200)
    assert client.get("/api/jobs").status_code == 200


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every question of a probe to the database hangs until the test ends."""
    free = threading.Event()

    def hang(*_: object, **__: object) -> None:
        free.wait(60)
        raise TimeoutError

    monkeypatch.setattr(routes, "PROBE_TIMEOUT", 0.2)
    monkeypatch.setattr(routes.Store, "require_schema", hang)
    monkeypatch.setattr(Monitor, "stats", hang)
    yield
    free.set()


def test_65_a_database_that_hangs_does_not_hold_up_a_probe(client: Client, hanging: None) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert client.get("/metrics").text.splitlines()[-1] == "jobqueue_up 0.0"


def test_an_answer_that_nobody_waits_for_any_more_leaves_no_traceback() -> None:
    free, complaints = threading.Event(), []

    def hang() -> None:
        free.wait(60)
        raise KeyError("too late for anybody")

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        cached = CachedCall(hang)
        with pytest.raises(TimeoutError):
            await cached.get(0.01)
        free.set()
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait({task})
        del cached, task
        gc.collect()

    asyncio.run(ask())
    assert complaints == []


@pytest.mark.databases("sqlite")
def test_a_file_that_was_moved_away_is_503_and_the_log_says_what_to_do(
    client: Client, jobs: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.enqueue(1, 2).status_code == 202
    file = Path(str(jobs.store.url.database))
    file.rename(file.with_name("aside.db"))
    error = client.refused(503, "POST", "/api/jobs", json={"task": "add", "args": [1, 2]})
    assert "was deleted or replaced while it was in use: stop all workers" in error["message"]
    assert f"503: the database file {file} was deleted or replaced" in caplog.text
