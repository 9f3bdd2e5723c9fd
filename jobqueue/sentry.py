"""Sentry: errors with their job, a trace from the enqueue to every attempt, check-ins of schedules.

Needs the extra `sentry`. Without `sentry_sdk.init()` in the program all of this does nothing.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from jobqueue.optional_dependencies import required

with required("sentry", "jobqueue.sentry needs"):
    import sentry_sdk
    from sentry_sdk.crons import MonitorStatus, capture_checkin
    from sentry_sdk.integrations import Integration
    from sentry_sdk.scope import should_send_default_pii, use_isolation_scope
    from sentry_sdk.tracing import NoOpSpan, Span, TransactionSource
    from sentry_sdk.tracing_utils import Baggage
    from sentry_sdk.utils import event_from_exception

from jobqueue.enqueue_hooks import Send
from jobqueue.errors import Snooze
from jobqueue.handler_spans import (
    carried,
    carrying,
    harmless,
    installed,
    outcome_without_error,
    run_within,
)
from jobqueue.queue import JobQueue
from jobqueue.redaction import Hidden
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.states import OutcomeKind
from jobqueue.tasks import Call
from jobqueue.worker.handler.context import Attempt, JobContext, running_attempt
from jobqueue.worker.handler.describe import type_name
from jobqueue.worker.log_context import worker_name

FLUSH_TIMEOUT = 2.0  # seconds
MONITOR_ID, MONITOR_SLUG, MONITOR_CONFIG = (
    f"sentry-monitor-{name}" for name in ("check-in-id", "slug", "config")
)
"""Headers of the jobs of schedules, as Celery's integration names them."""
_harmless = partial(harmless, "Sentry")
_ORIGIN = "auto.queue.jobqueue"
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))
"""Seconds, and Sentry's unit."""
_STATUS = {"cancelled": "cancelled", "lost": "aborted"}


def instrument(jobs: JobQueue, *, every_attempt: bool = False, check_ins: bool = True) -> None:
    """Report to Sentry what this object enqueues, and what its workers run.

    Call it once, where the tasks are declared, so that workers and child processes do so too;
    before or after `sentry_sdk.init()`. An exception is captured when it was raised by the last
    attempt of a job; with `every_attempt`, by each. `check_ins=False` reports no schedules. A
    second call for the same object changes nothing.
    """
    if installed(_Reports, jobs.middleware):
        return
    reports = _Reports(every_attempt=every_attempt, check_ins=check_ins)
    jobs.use(enqueue=reports.send)
    jobs.use(reports.process)
    sentry_sdk.get_global_scope().add_event_processor(reports.look_through)


class JobqueueIntegration(Integration):
    """`instrument` as an entry of `sentry_sdk.init(integrations=[…])`."""

    identifier = "jobqueue"

    def __init__(self, jobs: JobQueue, **options: bool) -> None:
        instrument(jobs, **options)

    @staticmethod
    def setup_once() -> None:
        """Do nothing: each queue has been instrumented by itself."""


class _Reports:
    """The hook at the enqueue, the middleware, and the look through all events."""

    def __init__(self, *, every_attempt: bool, check_ins: bool) -> None:
        self._every_attempt = every_attempt
        self._check_ins = check_ins

    def send(self, call: Call[Any], send: Send) -> Call[Any]:
        """Let the job's headers carry its trace and its monitor; make a span within a transaction.

        The span ends before the insert, which is one for all jobs of an `enqueue_many`.
        """
        if sentry_sdk.get_client().is_active():
            with _harmless():
                call = self._published(call)
        return send(call)

    def _published(self, call: Call[Any]) -> Call[Any]:
        if self._check_ins and call.schedule is not None:
            call = carrying(call, _monitor(call.schedule))
        if sentry_sdk.get_current_span() is None:
            return _traced(call)
        with sentry_sdk.start_span(op="queue.publish", name=call.task.name, origin=_ORIGIN) as span:
            _describe(span, call.settings.queue)
            span.set_data("messaging.message.body.size", len(call.args.encode()))
            return _traced(call)

    def process(self, context: JobContext, run: Callable[[], Any]) -> Any:
        """Run the handler of an attempt within a scope and a transaction of its own."""
        attempt = running_attempt()
        if attempt is None or not sentry_sdk.get_client().is_active():
            return run()
        reported = None
        with _harmless():
            headers = carried(context)
            check_in = _CheckIn.of(attempt, headers) if self._check_ins else None
            reported = _Reported(attempt, headers, check_in, self._every_attempt)
        return run() if reported is None else run_within(reported, run)

    def look_through(self, event: Any, hint: dict[str, Any]) -> Any:
        """Drop what this package's frames hold, and lines of which there is an event already.

        Those are the worker's about an exception that was captured, and those of a child process.
        Lines about other failures have no exception: name their job, and group them by cause.
        """
        record: Any = hint.get("log_record")
        if getattr(record, "process", None) not in (None, os.getpid()):
            return None
        if getattr(record, "name", "") == "jobqueue.worker" and hasattr(record, "outcome"):
            if self._is_captured(record):
                return None
            about = {name: getattr(record, name) for name in ("task", "queue", "job", "attempt")}
            event["tags"] = {**(event.get("tags") or {}), **_tags(about)}
            event["fingerprint"] = ["jobqueue", record.task, record.error_type or record.outcome]
        return _without_variables(event, of_all=False)

    def _is_captured(self, record: Any) -> bool:
        """Return whether a line of the worker is about an exception that was captured."""
        raised = record.outcome == OutcomeKind.ERRORED and record.error_type != type_name(Snooze)
        if record.outcome == OutcomeKind.TIMED_OUT:
            # Otherwise the text is where the handler still is.
            raised = (record.exc_text or "").startswith("Traceback")
        return raised and (self._every_attempt or record.attempt >= record.max_attempts)


class _Reported:
    """A running attempt: its scope and its transaction."""

    def __init__(
        self,
        attempt: Attempt,
        headers: dict[str, str],
        check_in: "_CheckIn | None",
        every_attempt: bool,  # noqa: FBT001 - an option of `instrument`.
    ) -> None:
        self._attempt = attempt
        self._check_in = check_in
        claim = attempt.claim
        self._is_last = claim.attempt >= claim.max_attempts
        self._captures = self._is_last or every_attempt
        about = {"task": claim.task, "queue": claim.queue, "job": claim.id}
        about["attempt"] = claim.attempt
        self._scope = scope = sentry_sdk.get_isolation_scope().fork()
        scope.clear_breadcrumbs()
        for name, value in _tags(about).items():
            scope.set_tag(name, value)
        more = {"max_attempts": claim.max_attempts, "worker": worker_name()}
        scope.set_context("jobqueue", about | more | _arguments(attempt))
        if attempt.task.settings.redact:
            scope.add_event_processor(lambda event, _hint: _without_variables(event, of_all=True))
        self._transaction: Span = NoOpSpan()
        with use_isolation_scope(scope), _harmless():  # Errors are captured without a trace, too.
            self._transaction = sentry_sdk.start_transaction(
                sentry_sdk.continue_trace(
                    headers,
                    op="queue.process",
                    name=claim.task,
                    source=TransactionSource.TASK,
                    origin=_ORIGIN,
                ),
                custom_sampling_context={"jobqueue": about},
            )
        transaction = self._transaction
        _describe(transaction, claim.queue)
        waited = max(0.0, (claim.started_at - claim.run_at).total_seconds())
        transaction.set_data("messaging.message.id", str(claim.id))
        transaction.set_data("messaging.message.retry.count", claim.attempt - 1)
        transaction.set_data("messaging.message.receive.latency", waited * 1000)  # milliseconds

    @contextmanager
    def current(self) -> Iterator[None]:
        """Return a block in which events and spans of the handler are those of its job."""
        with use_isolation_scope(self._scope):
            sentry_sdk.get_current_scope().span = self._transaction
            yield

    def end(self, error: BaseException | None) -> None:
        """Capture an error of the last attempt, check in, and send the transaction."""
        outcome = outcome_without_error(error)
        failed = error is not None and outcome is None and not isinstance(error, GeneratorExit)
        with _harmless(), self.current():
            if error is not None and failed and self._captures:
                _capture(error)
            if self._check_in is not None and (error is None or outcome == "cancelled"):
                self._check_in.end(MonitorStatus.OK if error is None else MonitorStatus.ERROR)
            elif self._check_in is not None and failed and self._is_last:
                self._check_in.end(MonitorStatus.ERROR)
            if outcome is not None:
                self._transaction.set_data("jobqueue.outcome", outcome)
            self._transaction.set_status(
                "internal_error" if failed else _STATUS.get(outcome or "", "ok")
            )
            self._transaction.finish()
        if failed and self._captures and self._attempt.in_child:
            with _harmless():
                sentry_sdk.flush(timeout=FLUSH_TIMEOUT)


class _CheckIn:
    """A check-in at a schedule's monitor: that its job runs, and how it ended."""

    def __init__(self, slug: str, config: Any, id_: str) -> None:
        self._about = {"monitor_slug": slug, "check_in_id": id_, "monitor_config": config}
        self._began = time.monotonic()
        capture_checkin(**self._about, status=MonitorStatus.IN_PROGRESS)

    @classmethod
    def of(cls, attempt: Attempt, headers: Mapping[str, str]) -> "_CheckIn | None":
        """Begin the check-in of a tick's job; None for any other job."""
        if attempt.claim.scheduled_for is None:
            return None
        try:
            config = json.loads(headers[MONITOR_CONFIG])
            # One tick may make several jobs; each keeps its check-in over all its attempts.
            id_ = uuid.uuid5(uuid.UUID(headers[MONITOR_ID]), str(attempt.claim.id))
            return cls(headers[MONITOR_SLUG], config, id_.hex)
        except (KeyError, ValueError):  # Its enqueue was not instrumented, or Sentry has no unit.
            return None

    def end(self, status: str) -> None:
        """Say how the job ended."""
        capture_checkin(**self._about, status=status, duration=time.monotonic() - self._began)


def _capture(error: BaseException) -> None:
    options = sentry_sdk.get_client().options
    mechanism = {"type": "jobqueue", "handled": False}
    event, hint = event_from_exception(error, client_options=options, mechanism=mechanism)
    sentry_sdk.capture_event(event, hint=hint)


def _traced(call: Call[Any]) -> Call[Any]:
    """Return a call whose job continues the present trace."""
    trace = dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers())
    others = Baggage.strip_sentry_baggage(call.headers.get("baggage", ""))
    if others and "baggage" in trace:
        trace["baggage"] = f"{others},{trace['baggage']}"
    return carrying(call, trace)


def _tags(about: Mapping[str, Any]) -> dict[str, Any]:
    return {f"jobqueue.{name}": value for name, value in about.items()}


def _describe(span: Span, queue: str) -> None:
    span.set_data("messaging.system", "jobqueue")
    span.set_data("messaging.destination.name", queue)


def _monitor(schedule: ScheduleRecord) -> dict[str, str]:
    """Return the headers that name a schedule's monitor; none if Sentry has no unit for it."""
    definition = schedule.definition
    if definition.kind == "cron":
        when = {"type": "crontab", "value": definition.expression}
        config: dict[str, Any] = {"schedule": when, "timezone": definition.tz or "UTC"}
    else:
        seconds = int(definition.expression)
        size, unit = next((pair for pair in _UNITS if seconds % pair[0] == 0), (0, ""))
        if not size:
            return {}
        config = {"schedule": {"type": "interval", "value": seconds // size, "unit": unit}}
    return {
        MONITOR_ID: uuid.uuid4().hex,
        MONITOR_SLUG: schedule.name,
        MONITOR_CONFIG: json.dumps(config),
    }


def _arguments(attempt: Attempt) -> dict[str, Any]:
    """Return the arguments for the context of events, if the program's options allow it."""
    collected = sentry_sdk.get_client().options.get("data_collection")
    # The older option, for versions of the SDK without the other.
    if not (collected["queues"] if collected else should_send_default_pii()):
        return {}
    given, task = json.loads(attempt.claim.args), attempt.task
    hidden = Hidden.of(task.function, task.settings.redact)
    return dict(zip(("args", "kwargs"), hidden.apply(given["args"], given["kwargs"]), strict=True))


def _without_variables(event: Any, *, of_all: bool) -> Any:
    """Drop the local variables of frames, which hold arguments.

    Of all frames; or of this package's and, in an event that has some, of SQLAlchemy's with what
    it calls: the parameters of an enqueue are there too.
    """
    stacks = [
        [((frame.get("module") or "").partition(".")[0], frame) for frame in frames]
        for kind in ("exception", "threads")
        for value in (event.get(kind) or {}).get("values", ())
        for frames in [(value.get("stacktrace") or {}).get("frames", ())]
    ]
    if not of_all and not any(package == "jobqueue" for stack in stacks for package, _ in stack):
        return event
    for stack in stacks:
        is_of_statement = False
        for package, frame in stack:
            is_of_statement = is_of_statement or package == "sqlalchemy"
            if of_all or is_of_statement or package == "jobqueue":
                frame.pop("vars", None)
    return event
