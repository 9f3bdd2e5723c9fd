"""GET /metrics: the views' figures in Prometheus' text format."""

from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.store.stats import Monitor
from jobqueue.web import metrics
from tests.web.conftest import Client, working


def test_metrics_are_those_of_the_views(client: Client, jobs: JobQueue) -> None:
    client.id("no", task="fail")
    with working(jobs):
        client.get(f"/api/jobs/{client.id(2, 3)}", params={"wait": 30})
        client.get("/api/jobs/1", params={"wait": 30})
        client.enqueue(2, 3, queue="mail", delay=60)
        response = client.get("/metrics")
    assert response.headers["content-type"] == metrics.CONTENT_TYPE
    lines = response.text.splitlines()
    assert 'jobqueue_finished_jobs_total{outcome="succeeded",task="add"} 1.0' in lines
    assert 'jobqueue_finished_jobs_total{outcome="failed",task="fail"} 1.0' in lines
    assert 'jobqueue_errored_attempts_total{task="fail"} 1.0' in lines
    assert 'jobqueue_jobs{queue="mail",state="scheduled"} 1.0' in lines
    assert 'jobqueue_oldest_available_seconds{queue="mail"} 0.0' in lines
    assert "jobqueue_workers 1.0" in lines and "jobqueue_up 1.0" in lines


def test_metrics_are_asked_for_once_a_second_at_most(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    stats = Monitor.stats
    monkeypatch.setattr(Monitor, "stats", lambda self: asked.append(1) or stats(self))
    texts = {client.get("/metrics").text for _ in range(5)}
    assert len(asked) <= 2 and len(texts) <= 2


def test_labels_are_escaped() -> None:
    text = metrics.text(
        {"queues": [], "tasks": [_task('a"b\\c\nd')], "workers": 0, "throughput_per_second": 0}
    )
    assert 'errored_attempts_total{task="a\\"b\\\\c\\nd"} 0.0' in text


def _task(name: str) -> dict[str, Any]:
    counts = dict.fromkeys(["succeeded", "failed", "cancelled", "errored_attempts"], 0)
    return {"task": name, **counts}
