"""jobqueue.opentelemetry: one trace from the enqueue over every attempt, and the metrics of messaging."""

import asyncio
import json
import sys
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from jobqueue import JobFailed, JobQueue, Snooze, current_job, fixed
from jobqueue.opentelemetry import instrument
from tests import process_factory

WORKER = """
import sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from jobqueue import JobQueue, current_job
from jobqueue.opentelemetry import instrument

jobs = JobQueue(sys.argv[1])
provider = TracerProvider()
provider.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.to_json(None) + "\\n"))
)
instrument(jobs, tracer_provider=provider)

@jobs.task
def flaky() -> None:
    if current_job().attempt == 1:
        raise ConnectionError("no answer")

with jobs.worker(drain=True, poll=0.05) as worker:
    worker.wait()
"""


class Recorded:
    """A queue whose spans and metrics are kept in memory."""

    def __init__(self, jobs: JobQueue) -> None:
        self.jobs = jobs
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader])
        instrument(jobs, tracer_provider=self.tracers, meter_provider=meters)

    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        assert data is not None
        metrics = [metric for of in data.resource_metrics[0].scope_metrics for metric in of.metrics]
        return {metric.name: list(metric.data.data_points) for metric in metrics}


@pytest.fixture
def recorded(jobs: JobQueue) -> Recorded:
    return Recorded(jobs)


def run(jobs: JobQueue) -> None:
    with jobs.worker(drain=True, poll=0.05) as worker:
        worker.wait()


def ids(span: Any) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def test_an_attempt_is_a_child_of_its_enqueue_and_parent_of_what_its_handler_enqueues(
    recorded: Recorded,
) -> None:
    jobs = recorded.jobs

    @jobs.task(queue="mail")
    def child() -> None: ...

    @jobs.task
    def parent() -> int:
        return child.enqueue().id

    with recorded.tracers.get_tracer("app").start_as_current_span("request") as request:
        job = parent.enqueue()
    run(jobs)
    spans = {span.name: span for span in recorded.spans()}
    names = ["request", "send default", "process default", "send mail", "process mail"]
    for above, below in zip(names, names[1:], strict=False):
        span = spans[below]
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == ids(spans[above])
    assert not trace.get_current_span().is_recording()
    send, process = spans["send default"], spans["process default"]
    assert (send.kind, process.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    assert dict(process.attributes or {}) == {
        "messaging.system": "jobqueue",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": str(job.id),
        "jobqueue.task": "parent",
        "jobqueue.attempt": 1,
        "jobqueue.fence": 1,
    }
    assert request.get_span_context().trace_id == ids(process)[0]


@pytest.mark.parametrize("isolation", ["thread", "loop"])
def test_a_failed_attempt_is_an_error_and_the_next_one_is_linked_to_the_enqueue(
    recorded: Recorded, isolation: str
) -> None:
    jobs = recorded.jobs

    def fails() -> None:
        if current_job().attempt == 1:
            raise ConnectionError("no answer")

    async def afails() -> None:
        await asyncio.sleep(0)
        fails()

    task = jobs.task(backoff=fixed(0.01))(fails if isolation == "thread" else afails)
    task.enqueue()
    run(jobs)
    send, first, second = recorded.spans()
    assert (first.attributes or {})["error.type"] == "ConnectionError"
    assert not first.status.is_ok and first.events[0].name == "exception"
    assert second.status.is_unset and not second.events
    assert [link.context.span_id for link in first.links] == []
    assert [(link.context.trace_id, link.context.span_id) for link in second.links] == [ids(send)]
    assert {ids(span)[0] for span in (send, first, second)} == {ids(send)[0]}


def test_a_snooze_is_no_error(recorded: Recorded) -> None:
    jobs = recorded.jobs

    @jobs.task
    def later() -> None:
        if current_job().attempt == 1 and current_job().fence == 1:
            raise Snooze(0.0)

    later.enqueue()
    run(jobs)
    _, snoozed, done = recorded.spans()
    assert (snoozed.attributes or {})["jobqueue.outcome"] == "snoozed"
    assert snoozed.status.is_unset and not snoozed.events
    assert "jobqueue.outcome" not in (done.attributes or {})


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no way out")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "part", ["should_sample", "on_start", "on_end", "inject", "extract", "error"]
)
def test_an_error_of_the_telemetry_fails_no_enqueue_and_no_job(
    jobs: JobQueue, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no way out")

    processor = SpanProcessor()
    tracers = TracerProvider()
    tracers.add_span_processor(processor)
    if part == "should_sample":
        monkeypatch.setattr(tracers.sampler, part, broken)
    elif part in ("on_start", "on_end"):
        monkeypatch.setattr(processor, part, broken)
    elif part != "error":
        monkeypatch.setattr(propagate, part, broken)
    instrument(jobs, tracer_provider=tracers)

    @jobs.task(max_attempts=1)
    def halve(number: int) -> float:
        if number == 0:
            raise Unprintable
        return 1 / number

    works, fails = halve.enqueue(2), halve.enqueue(0)
    run(jobs)
    assert works.result() == 0.5
    assert "Unprintable" in str(fails.record().error)
    assert "not reported to OpenTelemetry: RuntimeError: no way out" in caplog.text


def test_a_queue_that_is_instrumented_twice_has_each_span_once(recorded: Recorded) -> None:
    jobs = recorded.jobs
    instrument(jobs, tracer_provider=recorded.tracers)

    @jobs.task
    def add() -> None: ...

    add.enqueue()
    run(jobs)
    assert [span.name for span in recorded.spans()] == ["send default", "process default"]


def test_the_metrics_count_enqueues_attempts_and_their_time_by_error(recorded: Recorded) -> None:
    jobs = recorded.jobs

    @jobs.task(max_attempts=1)
    def fails(n: int) -> None:
        if n:
            raise ValueError(n)

    made = jobs.enqueue_many([fails.call(n) for n in range(3)])
    run(jobs)
    with pytest.raises(JobFailed):
        made[1].result(timeout=60)
    metrics = recorded.metrics()
    assert [point.value for point in metrics["messaging.client.sent.messages"]] == [3]
    assert [point.value for point in metrics["messaging.client.consumed.messages"]] == [3]
    durations = metrics["messaging.process.duration"]
    assert durations[0].explicit_bounds[:2] == (0.005, 0.01)  # Seconds.
    assert {point.attributes.get("error.type"): point.count for point in durations} == {
        None: 1,
        "ValueError": 2,
    }


def test_the_trace_of_an_enqueue_goes_on_in_the_worker_process_and_over_a_retry(
    recorded: Recorded, url: str
) -> None:
    jobs = recorded.jobs

    @jobs.task
    def flaky() -> None: ...

    flaky.options(backoff=fixed(0.01)).enqueue()
    done = process_factory.run([sys.executable, "-c", WORKER, url])
    assert done.returncode == 0, done.stderr
    there = [json.loads(line) for line in done.stdout.splitlines()]
    (send,) = recorded.spans()
    assert [span["attributes"]["jobqueue.attempt"] for span in there] == [1, 2]
    assert {int(span["context"]["trace_id"], 16) for span in there} == {ids(send)[0]}
    assert {int(span["parent_id"], 16) for span in there} == {ids(send)[1]}
