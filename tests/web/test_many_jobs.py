"""What the API answers where jobs are many: bounds."""

from typing import Any

import pytest

from jobqueue.store import queue_figures
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
