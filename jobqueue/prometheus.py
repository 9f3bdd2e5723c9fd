"""Prometheus: what the queues hold, and what a worker does, for any registry.

Needs the extra `prometheus`. `jobqueue web` and `worker --metrics-port` expose the same;
docs/metrics.md lists all metrics.
"""

import collections
import itertools
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

from sqlalchemy.exc import SQLAlchemyError

from jobqueue.optional_dependencies import required

with required("prometheus", "metrics for Prometheus need"):
    from prometheus_client import generate_latest
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge
    from prometheus_client.core import HistogramMetricFamily, Metric

from jobqueue.doctor_findings import Finding
from jobqueue.errors import JobQueueError
from jobqueue.overview import recent_findings
from jobqueue.printable_text import escape_controls
from jobqueue.queue import JobQueue
from jobqueue.states import FINAL, WAITING, State
from jobqueue.store.stats import Monitor, Rows
from jobqueue.worker.observe.histograms import BOUNDS, Histogram
from jobqueue.worker.worker import Worker

CONTENT_TYPE = "text/plain; version=0.0.4"
"""Of `exposition`, without the charset: UTF-8."""

TIMES = 10
"""How much further than for a page jobs that wait are counted: a million in a queue."""
_LABELS = ["task", "queue"]
_LIMITS = [*(str(bound) for bound in BOUNDS), "+Inf"]


class Collector:
    """Reads the database at each scrape: `REGISTRY.register(Collector(jobs))`.

    Every process exposes the same, so one that is scraped is enough. May be used by any thread.
    """

    def __init__(self, jobs: JobQueue) -> None:
        self._store, self._monitor = jobs.store, Monitor(jobs.store)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; only `jobqueue_up`, 0, while the database does not answer."""
        try:
            queues, tasks = self._monitor.bounded_queues(TIMES), self._monitor.tasks()
            workers = self._monitor.live_workers()
            findings = recent_findings(self._store)
        except (SQLAlchemyError, JobQueueError, OSError):
            yield from unreachable()
        else:
            yield from _of_fleet(queues, tasks, workers)
            yield _found(findings)

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without values. A registry asks at `register`; no database needed."""
        yield from _of_fleet([], [], 0)
        yield _found(())


class WorkerCollector:
    """Reads the figures of a worker of this process; asks no database.

    Create it before the worker starts: its histograms begin then. A registry takes one.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._histograms = worker.health.metrics.histograms()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        health = self._worker.health
        for sample in health.samples():
            kind = Gauge if sample.kind == "gauge" else Counter
            family = kind(f"jobqueue_worker_{sample.name}", sample.what, labels=["worker"])
            family.add_metric([health.name], sample.value)
            yield family
        duration = HistogramMetricFamily(
            "jobqueue_job_duration_seconds", "How long attempts took.", labels=_LABELS
        )
        wait = HistogramMetricFamily(
            "jobqueue_job_wait_seconds", "From being due to being claimed.", labels=_LABELS
        )
        for (queue, task), timings in self._histograms.read().items():
            labels = [escape_controls(task), escape_controls(queue)]
            duration.add_metric(labels, _buckets(timings.duration), timings.duration.total)
            wait.add_metric(labels, _buckets(timings.wait), timings.wait.total)
        yield from (duration, wait)

    describe = collect


def exposition(families: Iterable[Metric]) -> str:
    """Return metrics in Prometheus' text format."""
    return generate_latest(SimpleNamespace(collect=lambda: families)).decode()


def unreachable() -> Iterator[Metric]:
    """Yield the metrics while the database does not answer."""
    yield _up(0)


def _of_fleet(queues: Rows, tasks: Rows, workers: int) -> Iterator[Metric]:
    """Yield the metrics of `Monitor`'s bounded queues, tasks and live workers."""
    jobs = Gauge(
        "jobqueue_jobs", "Jobs that have not ended, by queue and state.", labels=["queue", "state"]
    )
    more = Gauge(
        "jobqueue_jobs_more",
        "1 if more jobs may wait than jobqueue_jobs has counted.",
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
    bound = Gauge(
        "jobqueue_queue_max_pending", "The most jobs that may wait in the queue.", labels=["queue"]
    )
    finished = Counter(
        "jobqueue_finished_jobs_total",
        "Jobs that have ended, by task and outcome.",
        labels=["task", "outcome"],
    )
    errored = Counter(
        "jobqueue_errored_attempts_total", "Attempts that errored, by task.", labels=["task"]
    )
    for row in queues:
        queue = escape_controls(row["queue"])  # Plain SQL may have written any text.
        for state in State:
            if state not in FINAL:
                jobs.add_metric([queue, state.value], row[state.value])
            if state in WAITING:
                more.add_metric([queue, state.value], row[f"{state.value}_more"])
        oldest.add_metric([queue], row["oldest_available_seconds"] or 0)
        paused.add_metric([queue], row["paused"])
        if row["max_pending"] is not None:
            bound.add_metric([queue], row["max_pending"])
    for row in tasks:
        task = escape_controls(row["task"])
        for state in State:
            if state in FINAL:
                finished.add_metric([task, state.value], row[state.value])
        errored.add_metric([task], row["errored_attempts"])
    yield from (_up(1), jobs, more, oldest, paused, bound, finished, errored)
    yield Gauge("jobqueue_workers", "Live workers.", value=workers)


def _found(findings: Iterable[Finding]) -> Metric:
    found = Gauge("jobqueue_findings", "What `jobqueue doctor` finds, by check.", labels=["check"])
    for check, count in sorted(collections.Counter(each.check for each in findings).items()):
        found.add_metric([check], count)
    return found


def _up(value: int) -> Metric:
    return Gauge("jobqueue_up", "1 if the database answers.", value=value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the bounds, each with the number of durations up to it."""
    return list(zip(_LIMITS, itertools.accumulate(histogram.counts), strict=True))
