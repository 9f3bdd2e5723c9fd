"""jobqueue.sentry: errors with their job, one trace from the enqueue over every attempt, check-ins of schedules."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from sqlalchemy import insert, update
from sqlalchemy.exc import OperationalError

from jobqueue import Cancel, JobQueue, Snooze, cron, current_job, every, fixed
from jobqueue.handler_spans import carrying
from jobqueue.sentry import JobqueueIntegration, instrument
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.schema import schedules


class Sent(Transport):
    """Keeps in memory what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[tuple[str, dict[str, Any]]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.items += [(item.type, json.loads(item.payload.get_bytes())) for item in envelope.items]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item for name, item in self.items if name == kind]

    def errors(self) -> list[dict[str, Any]]:
        return [event for event in self.of("event") if "exception" in event]

    def trace(self, name: str) -> dict[str, Any]:
        """The trace's part of the one transaction of that name."""
        (found,) = [one for one in self.of("transaction") if one["transaction"] == name]
        context: dict[str, Any] = found["contexts"]["trace"]
        return context


@pytest.fixture
def init() -> Iterator[Callable[..., Sent]]:
    """Starts Sentry without the integrations that change the interpreter for all further tests."""

    def init(**options: Any) -> Sent:
        sent = Sent()
        defaults: dict[str, Any] = {"traces_sample_rate": 1.0, "default_integrations": False}
        sentry_sdk.init(
            **{"dsn": "https://key@sentry.invalid/1", "transport": sent} | defaults | options
        )
        return sent

    with sentry_sdk.isolation_scope():
        yield init
    sentry_sdk.get_global_scope().clear()
    sentry_sdk.get_global_scope().set_client(None)


def run(jobs: JobQueue) -> None:
    with jobs.worker(drain=True, poll=0.05) as worker:
        worker.wait()


def test_an_attempt_continues_the_trace_of_its_enqueue_and_its_handlers_that_of_the_attempt(
    jobs: JobQueue, init: Any
) -> None:
    sampled = []
    sent = init(traces_sampler=lambda context: sampled.append(context.get("jobqueue")) or 1.0)
    instrument(jobs)

    @jobs.task(queue="mail")
    def child() -> None: ...

    @jobs.task
    def parent(_x: int) -> None:
        child.enqueue()

    with sentry_sdk.start_transaction(name="request") as request:
        parent.enqueue(7)
    run(jobs)
    publish = next(
        span
        for one in sent.of("transaction")
        if one["transaction"] == "request"
        for span in one["spans"]
        if span["op"] == "queue.publish"
    )
    assert publish["description"] == "parent"
    described = {name: value for name, value in publish["data"].items() if "messaging" in name}
    assert described == {
        "messaging.system": "jobqueue",
        "messaging.destination.name": "default",
        "messaging.message.body.size": len('{"args":[7],"kwargs":{}}'),
    }
    first, second = sent.trace("parent"), sent.trace("child")
    assert (first["op"], first["parent_span_id"]) == ("queue.process", publish["span_id"])
    assert first["status"] == "ok"
    waited = first["data"].pop("messaging.message.receive.latency")
    assert 0 <= waited < 60_000
    assert {name: value for name, value in first["data"].items() if "messaging" in name} == {
        "messaging.system": "jobqueue",
        "messaging.destination.name": "default",
        "messaging.message.id": "1",
        "messaging.message.retry.count": 0,
    }
    assert second["data"]["messaging.destination.name"] == "mail"
    assert {"task": "child", "queue": "mail", "job": 2, "attempt": 1} in sampled
    assert {first["trace_id"], second["trace_id"]} == {request.trace_id}


@pytest.mark.databases("sqlite")
def test_jobs_without_a_trace_begin_one_each_and_a_trace_without_a_span_goes_on(
    jobs: JobQueue, init: Any
) -> None:
    sent = init()
    instrument(jobs)

    @jobs.task
    def bare() -> None: ...

    @jobs.task
    def traced() -> None: ...

    row = {"task": "bare", "args": '{"args": [], "kwargs": {}}', "headers": None}
    with jobs.store.write() as connection:
        connection.execute(insert(jobs_table), [row, row | {"headers": "[]"}])
    traced.enqueue()
    trace_id = sentry_sdk.get_traceparent().partition("-")[0]
    run(jobs)
    ids = [one["contexts"]["trace"]["trace_id"] for one in sent.of("transaction")]
    assert len(set(ids)) == 3
    assert sent.trace("traced")["trace_id"] == trace_id


@pytest.mark.parametrize(("isolation", "every_attempt"), [("thread", False), ("loop", True)])
@pytest.mark.databases("sqlite")
def test_the_exception_of_the_last_attempt_is_captured_with_its_job_or_of_every_attempt(
    jobs: JobQueue, init: Any, isolation: str, every_attempt: bool
) -> None:
    sent = init()
    instrument(jobs, every_attempt=every_attempt)

    def fails() -> None:
        sentry_sdk.set_tag("shop", current_job().attempt)
        sentry_sdk.add_breadcrumb(message=f"in attempt {current_job().attempt}")
        raise ConnectionError("no answer")

    async def afails() -> None:
        await asyncio.sleep(0)
        fails()

    task = jobs.task(name="fails", max_attempts=2, backoff=fixed(0.01))
    job = task(fails if isolation == "thread" else afails).enqueue()
    run(jobs)
    captured = sent.errors()
    attempts = [1, 2] if every_attempt else [2]
    assert [event["tags"] for event in captured] == [
        {
            "jobqueue.task": "fails",
            "jobqueue.queue": "default",
            "jobqueue.job": job.id,
            "jobqueue.attempt": attempt,
            "shop": attempt,
        }
        for attempt in attempts
    ]
    (error,) = captured[-1]["exception"]["values"]
    assert (error["type"], error["value"]) == ("ConnectionError", "no answer")
    assert error["mechanism"] == {"type": "jobqueue", "handled": False}
    assert error["stacktrace"]["frames"][-1]["function"] == "fails"
    crumbs = [crumb["message"] for crumb in captured[-1]["breadcrumbs"]["values"]]
    assert crumbs == ["in attempt 2"]
    of_job = captured[-1]["contexts"]["jobqueue"]
    assert (of_job["attempt"], of_job["max_attempts"]) == (2, 2)
    assert of_job["worker"]
    traces = [one["contexts"]["trace"] for one in sent.of("transaction")]
    assert [trace["status"] for trace in traces] == ["internal_error"] * 2
    assert len({trace["trace_id"] for trace in traces}) == 1
    assert "shop" not in sentry_sdk.get_isolation_scope()._tags


@pytest.mark.databases("sqlite")
def test_what_a_handler_raises_without_having_failed_is_not_captured(
    jobs: JobQueue, init: Any, wait_until: Any
) -> None:
    sent = init()
    instrument(jobs, every_attempt=True)

    @jobs.task
    def later() -> None:
        if current_job().fence == 1:
            raise Snooze(0.0)

    @jobs.task(max_attempts=1)
    def leaves() -> None:
        raise Cancel("not needed")

    begun = threading.Event()

    @jobs.task(max_attempts=1)
    async def hangs() -> None:
        begun.set()
        await asyncio.sleep(60)

    later.enqueue()
    leaves.enqueue()
    run(jobs)
    job = hangs.enqueue()
    with jobs.worker(poll=0.05):
        assert begun.wait(60)  # What is cancelled before has no attempt.
        job.cancel()
        wait_until(lambda: job.state == "cancelled")
    assert sent.errors() == []
    ends = [(one["transaction"], one["contexts"]["trace"]) for one in sent.of("transaction")]
    assert sorted(
        (name, end["status"], end["data"].get("jobqueue.outcome", "")) for name, end in ends
    ) == [
        ("hangs", "cancelled", "cancelled"),
        ("later", "ok", ""),
        ("later", "ok", "snoozed"),
        ("leaves", "cancelled", "cancelled"),
    ]


@pytest.mark.databases("sqlite")
def test_a_coroutine_whose_time_is_up_is_captured_as_such(jobs: JobQueue, init: Any) -> None:
    sent = init()
    instrument(jobs)

    @jobs.task(max_attempts=1, timeout=0.05)
    async def hangs() -> None:
        await asyncio.sleep(60)

    hangs.enqueue()
    run(jobs)
    (event,) = sent.errors()
    assert event["exception"]["values"][-1]["type"] == "AttemptTimeout"


@pytest.mark.parametrize("collected", [False, True])
@pytest.mark.databases("sqlite")
def test_arguments_are_sent_only_where_data_of_queues_is_collected_and_hidden_ones_never(
    jobs: JobQueue, init: Any, collected: bool
) -> None:
    sent = init(data_collection={"queues": collected})
    instrument(jobs)

    @jobs.task(max_attempts=1, redact=("pin",))
    def charge(user: str, pin: str) -> None:
        copy = pin
        raise ValueError(len(copy))

    @jobs.task(max_attempts=1)
    def greet(user: str) -> None:
        raise ValueError(len(user))

    @jobs.use
    def between(_context: Any, run: Callable[[], Any]) -> Any:
        return run()

    pin = "-".join(("my", "pin"))  # Frames show the source, and ids have any digits.
    charge.enqueue("ada", pin=pin)
    greet.enqueue("ada")
    run(jobs)
    by_task = {event["transaction"]: event for event in sent.errors()}
    assert pin not in json.dumps(sent.items)
    given = {"args": ["ada"], "kwargs": {"pin": "‹hidden›"}} if collected else {}
    context = by_task["charge"]["contexts"]["jobqueue"]
    assert {name: context[name] for name in ("args", "kwargs") if name in context} == given
    frames = by_task["greet"]["exception"]["values"][0]["stacktrace"]["frames"]
    variables = {frame["function"]: frame.get("vars") for frame in frames}
    assert variables.pop("greet") == {"user": "'ada'"}  # Sentry's own option: of the app's frames.
    assert variables.pop("between") is not None
    assert set(variables.values()) == {None}


@pytest.mark.databases("sqlite")
def test_an_enqueue_that_the_database_refuses_sends_no_argument(jobs: JobQueue, init: Any) -> None:
    sent = init()
    instrument(jobs)

    @jobs.task
    def charge(pin: str) -> None: ...

    with jobs.store.write() as connection:
        connection.exec_driver_sql("ALTER TABLE jobqueue_jobs RENAME TO gone")
    pin = "-".join(("my", "pin"))  # Frames show the source.
    try:
        charge.enqueue(pin)
    except OperationalError as error:
        pin = ""
        sentry_sdk.capture_exception(error)
    (event,) = sent.errors()
    frames = [f for each in event["exception"]["values"] for f in each["stacktrace"]["frames"]]
    assert [frame["function"] for frame in frames if "my-pin" in json.dumps(frame)] == []
    assert "my-pin" not in json.dumps(event)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("part", "warnings", "captured"),
    [
        ("transport", 2, 0),
        ("traces_sampler", 0, 1),
        ("start_transaction", 2, 1),  # As with a sampler, in older versions of the SDK.
        ("before_send", 0, 0),
        ("before_send_transaction", 0, 1),
    ],
)
def test_an_error_in_the_reporting_fails_no_job(
    jobs: JobQueue,
    init: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
    warnings: int,
    captured: int,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no way out")

    options = {}
    if part == "transport":
        monkeypatch.setattr(Sent, "capture_envelope", broken)
    elif part == "start_transaction":
        monkeypatch.setattr(sentry_sdk, part, broken)
    else:
        options[part] = broken
    sent = init(**options)
    instrument(jobs)

    @jobs.task(max_attempts=1)
    def halve(number: int) -> float:
        return 1 / number

    works, fails = halve.enqueue(2), halve.enqueue(0)
    run(jobs)
    assert works.result() == 0.5
    assert "ZeroDivisionError" in str(fails.record().error)
    assert caplog.text.count("not reported to Sentry: RuntimeError: no way out") == warnings
    assert len(sent.errors()) == captured


def due(jobs: JobQueue, name: str, ticks: int, period: timedelta) -> None:
    """Write what the app declares, and move a schedule back so that so many ticks are due."""
    jobs.worker()._declared(jobs.store)
    before = jobs.schedules.get(name).next_at
    assert before is not None
    with jobs.store.write() as connection:
        moved = {"next_at": before - ticks * period}
        connection.execute(update(schedules).where(schedules.c.name == name).values(moved))


def test_a_schedules_job_checks_in_once_over_all_its_attempts(
    jobs: JobQueue, init: Any, wait_until: Any
) -> None:
    sent = init(traces_sample_rate=None)
    instrument(jobs)

    @jobs.task(schedule=every(minutes=90), catch_up="all", backoff=fixed(0.01), max_attempts=2)
    def sync() -> None:
        if current_job().id == 1 or current_job().attempt == 1:
            raise ConnectionError

    due(jobs, "sync", 2, timedelta(minutes=90))
    with jobs.worker(poll=0.05):
        wait_until(lambda: {job.state.value for job in jobs.list()} == {"failed", "succeeded"})
        jobs.schedules.run("sync").cancel()
    check_ins: dict[str, list[str]] = {}
    for one in sent.of("check_in"):
        assert one["monitor_slug"] == "sync"
        when = {"type": "interval", "value": 90, "unit": "minute"}
        assert one["monitor_config"] == {"schedule": when}
        assert ("duration" in one and one["duration"] is not None) == (
            one["status"] != "in_progress"
        )
        check_ins.setdefault(one["check_in_id"], []).append(one["status"])
    again = ["in_progress", "in_progress"]
    assert sorted(check_ins.values()) == [[*again, "error"], [*again, "ok"]]


@pytest.mark.databases("sqlite")
def test_a_monitor_has_the_cron_expression_and_its_zone_and_sentrys_units_alone(
    jobs: JobQueue, init: Any, wait_until: Any
) -> None:
    sent = init()
    instrument(jobs)

    @jobs.task(schedule=cron("0 3 * * *", tz="Europe/Zurich"))
    def nightly() -> None: ...

    @jobs.task(schedule=every(seconds=90))
    def often() -> None: ...

    due(jobs, "nightly", 1, timedelta(days=1))
    due(jobs, "often", 1, timedelta(seconds=90))
    with jobs.worker(poll=0.05):
        wait_until(lambda: len([*jobs.list(state="succeeded")]) == 2)
    assert {one["monitor_slug"] for one in sent.of("check_in")} == {"nightly"}
    assert sent.of("check_in")[0]["monitor_config"] == {
        "schedule": {"type": "crontab", "value": "0 3 * * *"},
        "timezone": "Europe/Zurich",
    }


@pytest.mark.databases("sqlite")
def test_headers_carry_the_baggage_of_others_and_never_refuse_a_job(
    jobs: JobQueue, init: Any
) -> None:
    init()
    instrument(jobs)

    @jobs.task
    def quiet() -> dict[str, str]:
        return current_job().headers

    job = quiet.options(headers={"baggage": "tenant=7,sentry-trace_id=old"}).enqueue()
    full = quiet.options(headers={"all": "x" * 4000}).enqueue()
    run(jobs)
    first, *own = job.result(timeout=60)["baggage"].split(",")
    assert first == "tenant=7"
    assert own
    assert all(item.startswith("sentry-") and "old" not in item for item in own)
    assert full.result(timeout=60) == {"all": "x" * 4000}
    assert carrying(quiet.call(), {}).headers == {}


@pytest.mark.databases("sqlite")
def test_it_may_be_given_as_an_integration_and_does_nothing_without_a_client(
    jobs: JobQueue, init: Any
) -> None:
    @jobs.task(max_attempts=1)
    def fail() -> None:
        raise ValueError

    sentry_sdk.get_global_scope().set_client(None)
    integration = JobqueueIntegration(jobs, every_attempt=False)
    instrument(jobs, every_attempt=True)
    before = fail.enqueue()
    sent = init(integrations=[integration])
    fail.enqueue()
    run(jobs)
    assert [event["tags"]["jobqueue.task"] for event in sent.errors()] == ["fail", "fail"]
    assert len(sent.of("transaction")) == 2
    (record,) = [record for record in jobs.list() if record.id == before.id]
    assert record.to_json()["headers"] == {}
