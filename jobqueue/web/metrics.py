"""Metrics in Prometheus' text format, from the monitoring views."""

from types import SimpleNamespace
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import Metric

from jobqueue.states import FINAL, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def unreachable() -> str:
    """Return the metrics while the database does not answer."""
    return _text(_up(0))


def text(stats: dict[str, Any]) -> str:
    """Return the metrics of `Monitor.stats()`."""
    jobs = Gauge(
        "jobqueue_jobs",
        "Jobs that have not ended, by queue and state.",
        labels=["queue", "state"],
    )
    oldest = Gauge(
        "jobqueue_oldest_available_seconds",
        "For how long the oldest job that could run has waited.",
        labels=["queue"],
    )
    paused = Gauge(
        "jobqueue_queue_paused", "1 if nothing may begin in the queue.", labels=["queue"]
    )
    finished = Counter(
        "jobqueue_finished_jobs_total",
        "Jobs that have ended, by task and outcome.",
        labels=["task", "outcome"],
    )
    errored = Counter(
        "jobqueue_errored_attempts_total", "Attempts that errored, by task.", labels=["task"]
    )
    workers = Gauge("jobqueue_workers", "Live workers.", value=stats["workers"])
    for row in stats["queues"]:
        for state in State:
            if state not in FINAL:
                jobs.add_metric([row["queue"], state.value], row[state.value])
        oldest.add_metric([row["queue"]], row["oldest_available_seconds"] or 0)
        paused.add_metric([row["queue"]], row["paused"])
    for row in stats["tasks"]:
        for state in State:
            if state in FINAL:
                finished.add_metric([row["task"], state.value], row[state.value])
        errored.add_metric([row["task"]], row["errored_attempts"])
    return _text(_up(1), jobs, oldest, paused, finished, errored, workers)


def _up(value: int) -> Metric:
    return Gauge("jobqueue_up", "1 if the database answers.", value=value)


def _text(*families: Metric) -> str:
    return generate_latest(SimpleNamespace(collect=lambda: families)).decode()
