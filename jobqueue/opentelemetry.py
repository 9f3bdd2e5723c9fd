"""OpenTelemetry: a trace from the enqueue to every attempt, and the metrics of messaging.

Names follow OpenTelemetry's semantic conventions for messaging. Needs the extra `opentelemetry`,
which is the API alone; without an SDK in the program all of this does nothing.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from jobqueue.optional_dependencies import required

with required("opentelemetry", "jobqueue.opentelemetry needs"):
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

from jobqueue.enqueue_hooks import Send
from jobqueue.handler_spans import (
    carried,
    carrying,
    harmless,
    installed,
    outcome_without_error,
    run_within,
)
from jobqueue.queue import JobQueue
from jobqueue.tasks import Call
from jobqueue.worker.handler.context import JobContext
from jobqueue.worker.handler.describe import type_name
from jobqueue.worker.observe.histograms import BOUNDS

Attributes = dict[str, AttributeValue]

_harmless = partial(harmless, "OpenTelemetry")


def instrument(
    jobs: JobQueue,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Trace and count what this object enqueues, and what its workers run.

    The providers are the program's own by default. Call it once, where the tasks are declared, so
    that workers and child processes do so too. The context of the trace travels in the job's
    headers, as the propagator of the program writes it. A second call for the same object changes
    nothing.
    """
    if installed(_Instrumentation, jobs.middleware):
        return
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
            "messaging.process.duration",
            "s",
            "How long attempts took.",
            # The default's are for milliseconds.
            explicit_bucket_boundaries_advisory=BOUNDS,
        )

    def send(self, call: Call[Any], send: Send) -> Call[Any]:
        """Make a span of an enqueue, and let the job's headers carry its context.

        It ends before the insert, which is one for all jobs of an `enqueue_many`.
        """
        sending = None
        with _harmless():
            queue = call.settings.queue
            about = _about("send", queue, call.task.name)
            span = self._tracer.start_span(
                f"send {queue}", kind=trace.SpanKind.PRODUCER, attributes=about
            )
            carrier: dict[str, str] = {}
            propagate.inject(carrier, trace.set_span_in_context(span))
            call = carrying(call, carrier)
            sending = _Span(span, partial(self._sending_ended, span, about))
        if sending is None:
            return send(call)
        sent: Call[Any] = run_within(sending, lambda: send(call))
        return sent

    def _sending_ended(
        self, span: trace.Span, about: Attributes, error: BaseException | None
    ) -> None:
        if error is None:
            self._sent.add(1, about)
        else:  # A hook after this one has refused the call.
            _failed(span, error)

    def process(self, context: JobContext, run: Callable[[], Any]) -> Any:
        """Run the handler of an attempt within its span."""
        attempt = None
        with _harmless():
            attempt = self._start(context)
        return run() if attempt is None else run_within(attempt, run)

    def _start(self, context: JobContext) -> "_Span":
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
        return _Span(span, partial(self._attempt_ended, span, about, time.perf_counter()))

    def _attempt_ended(
        self, span: trace.Span, about: Attributes, began: float, error: BaseException | None
    ) -> None:
        """Say how the handler ended, and count the attempt's time by that."""
        outcome = outcome_without_error(error)
        if outcome is not None:
            span.set_attribute("jobqueue.outcome", outcome)
        elif error is not None:
            about = about | {"error.type": type_name(type(error))}
            span.set_attributes(about)
            _failed(span, error)
        self._duration.record(time.perf_counter() - began, about)


class _Span:
    """A span around a call; `ended` records how that ended."""

    def __init__(self, span: trace.Span, ended: Callable[[BaseException | None], None]) -> None:
        self._span = span
        self._ended = ended

    def current(self) -> Any:
        """Return a block in which further spans become children of this one."""
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def end(self, error: BaseException | None) -> None:
        """End the span. Raises nothing, whatever the SDK or the error itself does."""
        with _harmless():
            self._ended(error)
        with _harmless():
            self._span.end()


def _failed(span: trace.Span, error: BaseException) -> None:
    span.record_exception(error)
    span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))


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
