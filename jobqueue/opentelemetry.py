"""OpenTelemetry: a trace from the enqueue to every attempt, and the metrics of messaging.

Names follow OpenTelemetry's semantic conventions for messaging. Needs the extra `opentelemetry`,
which is the API alone; without an SDK in the program all of this does nothing.
"""

import time
from collections.abc import Callable
from typing import Any

from jobqueue.extras import missing

try:
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue
except ModuleNotFoundError as error:
    raise missing(error, "opentelemetry", "jobqueue.opentelemetry needs") from None

from jobqueue.calls import Send
from jobqueue.handler_spans import carried, carrying, outcome_without_error, run_within
from jobqueue.queue import JobQueue
from jobqueue.tasks import Call
from jobqueue.worker.handler.context import JobContext
from jobqueue.worker.handler.describe import type_name

Attributes = dict[str, AttributeValue]


def instrument(
    jobs: JobQueue,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Trace and count what this object enqueues, and what its workers run.

    The providers are the program's own by default. Call it once, where the tasks are declared, so
    that workers and child processes do so too. The context of the trace travels in the job's
    headers, as the propagator of the program writes it.
    """
    traces = _Instrumentation(
        trace.get_tracer("jobqueue", tracer_provider=tracer_provider),
        metrics.get_meter("jobqueue", meter_provider=meter_provider),
    )
    jobs.use(enqueue=traces.send)
    jobs.use(traces.process)


class _Instrumentation:
    """The hook at the enqueue, and the middleware."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Jobs that were enqueued."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Attempts that started."
        )
        self._duration = meter.create_histogram(
            "messaging.process.duration", "s", "How long attempts took."
        )

    def send(self, call: Call[Any], send: Send) -> Call[Any]:
        """Make a span of an enqueue, and let the job's headers carry its context.

        It ends before the insert, which is one for all jobs of an `enqueue_many`.
        """
        queue, task = call.settings.queue, call.task.name
        about = _about("send", queue, task)
        with self._tracer.start_as_current_span(
            f"send {queue}", kind=trace.SpanKind.PRODUCER, attributes=about
        ):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            sent = send(carrying(call, carrier))
        self._sent.add(1, about)
        return sent

    def process(self, context: JobContext, run: Callable[[], Any]) -> Any:
        """Run the handler of an attempt within its span."""
        return run_within(self._start(context), run)

    def _start(self, context: JobContext) -> "_Attempt":
        about = _about("process", context.queue, context.task)
        sender = propagate.extract(carried(context))
        span = self._tracer.start_span(
            f"process {context.queue}",
            context=sender,
            kind=trace.SpanKind.CONSUMER,
            attributes=about
            | {
                "messaging.message.id": str(context.id),
                "jobqueue.attempt": context.attempt,
                "jobqueue.fence": context.fence,
            },
            # A later attempt is in the trace of the enqueue too; the link says that it is not the
            # direct effect of it.
            links=_links(sender) if context.attempt > 1 else [],
        )
        self._consumed.add(1, about)
        return _Attempt(span, self._duration, about)


class _Attempt:
    """A running attempt: its span, and when it began."""

    def __init__(self, span: trace.Span, duration: metrics.Histogram, about: Attributes) -> None:
        self._span = span
        self._duration = duration
        self._about = about
        self._began = time.perf_counter()

    def current(self) -> Any:
        """Return a block in which spans of the handler become children of this one."""
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def end(self, error: BaseException | None) -> None:
        """End the span and count the attempt's time, by how the handler ended."""
        about = self._about
        outcome = outcome_without_error(error)
        if outcome is not None:
            self._span.set_attribute("jobqueue.outcome", outcome)
        elif error is not None:
            about = about | {"error.type": type_name(type(error))}
            self._span.set_attributes(about)
            self._span.record_exception(error)
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
        self._duration.record(time.perf_counter() - self._began, about)
        self._span.end()


def _about(operation: str, queue: str, task: str) -> Attributes:
    return {
        "messaging.system": "jobqueue",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "jobqueue.task": task,
    }


def _links(sender: Context) -> list[trace.Link]:
    found = trace.get_current_span(sender).get_span_context()
    return [trace.Link(found)] if found.is_valid else []
