"""What the API answers where jobs are many: bounds, and lists that need not be looked for to their end."""

import asyncio
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.store import job_pages, queue_figures
from jobqueue.store.job_pages import JobPages
from jobqueue.web import create_app
from tests.web.conftest import Client


def test_numbers_of_jobs_that_wait_are_bounds_where_many_do(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[tuple[Any, ...]]:
        of_stats = client.get("/api/stats").json()
        queues, tasks = client.get("/api/queues").json(), client.get("/api/tasks").json()
        add = next(row for row in tasks if row["task"] == "add")
        assert of_stats["queues"][0]["available"] == queues[0]["available"]
        assert of_stats["tasks"][0].items() <= add.items()
        return [(row["available"], row["available_more"]) for row in queues] + [
            (add["waiting"], add["waiting_more"])
        ]

    client.post("/api/jobs", json=[{"task": "add", "args": [n, 0]} for n in range(5)])
    assert told() == [(5, False), (5, False)]
    for name, bound in {"EACH": 2, "BUDGET": 2, "AVAILABLE_MAX": 2}.items():
        monkeypatch.setattr(queue_figures, name, bound)
    monkeypatch.setattr(queue_figures, "TASKS_MAX", 3)
    assert told() == [(2, True), (3, True)]


def test_a_list_stops_to_look_when_its_client_has_gone(
    jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, looked, sent, newest = jobs.registry["add"], [], [], JobPages.newest
    jobs.enqueue_many([add.call(n, n) for n in range(60)])
    monkeypatch.setattr(job_pages, "WINDOW", 1)
    monkeypatch.setattr(JobPages, "newest", lambda *given: looked.append(1) or newest(*given))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/jobs",
        "query_string": b"task=echo",
        "headers": [(b"host", b"localhost")],
        "scheme": "http",
        "http_version": "1.1",
    }

    async def receive() -> Any:
        while len(looked) < 3:
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app(jobs)(scope, receive, send))
    assert 3 <= len(looked) < 30 and sent == []
