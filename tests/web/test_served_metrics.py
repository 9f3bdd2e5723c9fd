"""Prometheus: GET /metrics, the port of a worker, registries of a program, and docs/metrics.md, which lists all."""

import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from jobqueue import JobQueue
from jobqueue import prometheus
from jobqueue.cli.commands.probe_options import bound, serve
from jobqueue.store import queue_figures
from jobqueue.store.stats import Monitor
from tests.web.conftest import Client, working


def test_metrics_are_those_of_the_views(client: Client, jobs: JobQueue) -> None:
    client.id("no", task="fail")
    with working(jobs):
        client.get(f"/api/jobs/{client.id(2, 3)}", params={"wait": 30})
        client.get("/api/jobs/1", params={"wait": 30})
        client.enqueue(2, 3, queue="mail", delay=60)
        response = client.get("/metrics")
    assert response.headers["content-type"] == f"{prometheus.CONTENT_TYPE}; charset=utf-8"
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
    live = Monitor.live_workers
    monkeypatch.setattr(Monitor, "live_workers", lambda self: asked.append(1) or live(self))
    texts = {client.get("/metrics").text for _ in range(5)}
    assert len(asked) <= 2 and len(texts) <= 2


def test_jobs_that_wait_are_counted_up_to_a_bound_that_is_said(
    client: Client, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting ten million takes longer than a scrape may."""
    for name in ("EACH", "AVAILABLE_MAX", "BUDGET", "SCHEDULED_MAX"):
        monkeypatch.setattr(queue_figures, name, 1)
    add = jobs.registry["add"]
    jobs.enqueue_many([add.call(n, n) for n in range(12)])
    add.options(queue="few", delay=60).enqueue(1, 1)
    lines = client.get("/metrics").text.splitlines()
    for queue, available, more, later in (("default", 10, 1, 0), ("few", 0, 0, 1)):
        labels = f'{{queue="{queue}",state="available"}}'
        assert f"jobqueue_jobs{labels} {available:.1f}" in lines
        assert f"jobqueue_jobs_more{labels} {more:.1f}" in lines
        labels = labels.replace("available", "scheduled")
        assert f"jobqueue_jobs{labels} {later:.1f}" in lines
        assert f"jobqueue_jobs_more{labels} 0.0" in lines


def test_labels_are_escaped() -> None:
    counts = dict.fromkeys(["succeeded", "failed", "cancelled", "errored_attempts"], 0)
    tasks = [{"task": 'a"b\\c\nd\x1b[31m', **counts}]
    text = prometheus.exposition(prometheus._of_fleet([], tasks, 0))
    assert 'errored_attempts_total{task="a\\"b\\\\c\\\\nd\\\\x1b[31m"} 0.0' in text


PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")

Exposed = dict[str, tuple[str, set[str]]]
"""Type and labels, by the name of a metric."""


def documented(heading: str) -> Exposed:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| .+ \|$", section, re.MULTILINE)
    return {name: (kind, {*re.findall(r"`(\w+)`", labels)}) for name, kind, labels in rows}


def exposed(text: str) -> Exposed:
    found: Exposed = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.samples, family.name
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = (family.type, labels - {"le"})
    return found


def test_every_metric_of_the_page_is_exposed_with_its_type_and_labels_and_no_other(
    client: Client, jobs: JobQueue, wait_until: Any
) -> None:
    jobs.queue("mail", max_pending=10, limit=0)  # Which `doctor` finds.
    worker = jobs.worker(poll=0.05)
    with bound({"metrics_port": 0}, worker) as probes, worker:
        serve(probes)
        client.get(f"/api/jobs/{client.id(2, 3)}", params={"wait": 30})
        wait_until(lambda: worker.processed)  # It counts an outcome after the commit.
        with urllib.request.urlopen(f"http://127.0.0.1:{probes[0].port}/metrics") as answer:
            of_worker = answer.read().decode()
        of_fleet = client.get("/metrics").text
    assert exposed(of_fleet) == documented("Of the fleet")
    assert exposed(of_worker) == documented("Of a worker process")
    assert not of_worker.count("_created")


def test_a_collector_joins_a_registry_without_a_database_and_says_when_it_is_away() -> None:
    registry = CollectorRegistry(auto_describe=True)
    away = JobQueue("postgresql://127.0.0.1:1/none?connect_timeout=1")
    registry.register(prometheus.Collector(away))
    assert [family.name for family in registry.collect()] == ["jobqueue_up"]
    registry.register(prometheus.WorkerCollector(away.worker()))
    assert registry.get_sample_value("jobqueue_worker_busy", {"worker": ""}) == 0
    assert registry.get_sample_value("jobqueue_up") == 0
    with pytest.raises(ValueError, match="Duplicated"):
        Gauge("jobqueue_workers", "Not exposed now, and taken all the same.", registry=registry)


@pytest.mark.databases("sqlite")
def test_the_histograms_of_a_worker_count_attempts_from_its_start(
    client: Client, jobs: JobQueue
) -> None:
    worker = jobs.worker(poll=0.05)
    registry = CollectorRegistry()
    registry.register(prometheus.WorkerCollector(worker))
    client.id("no", task="fail", queue="mail")
    with worker:
        client.get("/api/jobs/1", params={"wait": 30})
        client.get(f"/api/jobs/{client.id(2, 3)}", params={"wait": 30})
    for kind in ("duration", "wait"):
        counts = {
            (sample.labels["task"], sample.labels["queue"]): sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == f"jobqueue_job_{kind}_seconds_count"
        }
        assert counts == {("fail", "mail"): 1, ("add", "default"): 1}
