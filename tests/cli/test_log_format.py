"""What a worker writes to stderr: every line in one format, with the job that it is of."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobqueue.errors import JobNotFound
from jobqueue.logs import JsonFormatter
from jobqueue.worker.isolate.log_forwarding import ForwardingHandler
from tests.cli.conftest import Cli, Process, Spawn

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]
Records = list[dict[str, Any]]

ONE_DATABASE = pytest.mark.databases("sqlite")

APP = """
import logging, sys, threading, warnings
import structlog
from jobqueue import JobQueue, fixed

logging.warning("said at import")  # Without a configuration this makes a handler for the root.
print("printed at import", file=sys.stderr)
jobs = JobQueue()
log = logging.getLogger("myapp")
warnings.simplefilter("always")

def speak() -> None:
    structlog.contextvars.bind_contextvars(tenant="acme", order=0, args="none", job="bound")
    log.info("hello %s", "you", extra={"order": 7, "what": object, "level": "mine"})
    log.info("bad %d", "x")
    print("on stdout")
    print("on", "stderr", file=sys.stderr)
    warnings.warn("careful")
    thread = threading.Thread(target=lambda: {}["gone"])
    thread.start()
    thread.join()

@jobs.task(max_attempts=2, backoff=fixed(0.05))
def retried() -> None:
    speak()
    raise ValueError("the-cause")

@jobs.task(isolation="process", max_attempts=1)
def apart() -> None:
    speak()
    raise ValueError("the-cause")

@jobs.task(max_attempts=1)
async def awaited() -> None:
    speak()
    raise ValueError("the-cause")
"""
TASKS = {"retried": 2, "apart": 1, "awaited": 1}
"""How many attempts each has."""


def enqueue(it: Cli, task: str) -> int:
    """Without the app: what it does to logging when it is imported is for a process of its own."""
    return int(Cli(it.url).ok("enqueue", task, "--max-attempts", TASKS.get(task, 1)))


def test_every_line_of_a_worker_is_json_and_says_which_job_it_is_of(it: Cli, spawn: Spawn) -> None:
    ids = {task: enqueue(it, task) for task in TASKS}
    worker = spawn("worker", "--drain", "--name=Ada", "--log-format=json", env=it.env)
    code, _, err = worker.end(100)
    assert code == 0
    records: Records = [json.loads(line) for line in err.splitlines()]
    keys = {"time", "level", "logger", "message", "job", "task", "queue", "attempt", "worker"}
    assert all({*keys, "event", "duration", "error_type"} <= set(record) for record in records)
    assert "said at import" in err
    assert "printed at import" in err
    for task, attempts in TASKS.items():
        own = [record for record in records if record["job"] == ids[task]]
        for attempt in range(1, attempts + 1):
            check_attempt([r for r in own if r["attempt"] == attempt], task, attempt == attempts)
        assert {(r["task"], r["queue"], r["worker"]) for r in own} == {(task, "default", "Ada")}
    events = [record["event"] for record in records if record["worker"] == "Ada"]
    assert {"began", "ended"} <= set(events)


def check_attempt(records: Records, task: str, over: bool) -> None:
    """What `speak()` said in an attempt, and how that ended; the traceback is told once."""
    said = {(record["logger"], record["message"]): record for record in records}
    hello = said["myapp", "hello you"]
    assert (hello["order"], hello["what"]) == (7, "<class 'object'>")
    assert (hello["level"], hello["extra_level"]) == ("info", "mine")
    assert (hello["tenant"], hello["extra_args"], hello["extra_job"]) == ("acme", "none", "bound")
    assert [logger for logger, text in said if text.startswith("bad %d")] == ["myapp"]
    assert said["stderr", "on stderr"]["level"] == "warning"
    assert [logger for logger, text in said if "careful" in text] == ["py.warnings"]
    (end,) = [record for record in records if "the-cause" in json.dumps(record)]
    assert (end["level"], end["event"]) == (("error", "failed") if over else ("warning", "errored"))
    assert end["error_type"] == "ValueError"
    assert end["traceback"].count("the-cause") == 2
    assert 0 <= end["duration"] < 100


@ONE_DATABASE
def test_in_text_handlers_lines_look_like_ours_and_tracebacks_are_told_once(
    it: Cli, spawn: Spawn
) -> None:
    first, second = enqueue(it, "retried"), enqueue(it, "apart")
    worker = spawn("worker", "--drain", "--log-level=info", env=it.env)
    code, _, err = worker.end(100)
    assert code == 0
    assert err.count(f" INFO    myapp: job {first} (retried): hello you\n") == 2
    assert err.count(f" INFO    myapp: job {second} (apart): hello you\n") == 1
    assert err.count(f" WARNING worker: job {first} (retried): attempt 1 of 2 errored, again") == 1
    assert err.count(f" ERROR   worker: job {first} (retried) failed, attempt 2 of 2: Value") == 1
    assert err.count(f" ERROR   worker: job {second} (apart) failed, attempt 1 of 1: Value") == 1
    assert err.count("  ValueError: the-cause\n") == 3


@ONE_DATABASE
def test_the_level_and_the_format_are_those_of_every_process(it: Cli, spawn: Spawn) -> None:
    ids = {enqueue(it, "awaited"), enqueue(it, "awaited")}
    given = ("worker", "--processes=2", "--drain", "--log-format=json", "--log-level=ERROR")
    code, out, _ = spawn(*given, "--json", env=it.env, stderr=subprocess.STDOUT).end(100)
    assert code == 0
    *lines, summary = out.splitlines()
    assert json.loads(summary)["processed"] == 2
    err = "\n".join(lines)
    records: Records = [json.loads(line) for line in err.splitlines()]
    failed = [record for record in records if record["event"] == "failed"]
    assert {record["job"] for record in failed} == ids
    assert {r["level"] for r in records if r["logger"] not in ("stderr", "stdout")} == {"error"}
    assert "hello" not in err
    assert {r["job"] for r in records if r["message"] == "on stdout"} == ids


@ONE_DATABASE
def test_the_web_command_logs_alike(it: Cli, spawn: Spawn) -> None:
    id_ = enqueue(it, "awaited")
    given = ("web", "--port=0", "--with-worker", "--log-format=json", "--log-level=info")
    web = spawn(*given, env=it.env)
    lines = []
    while not lines or '"failed"' not in lines[-1]:
        lines.append(web.popen.stderr.readline())
    web.popen.send_signal(signal.SIGTERM)
    code, _, err = web.end()
    assert code == 0
    records = [json.loads(line) for line in [*lines, *err.splitlines()]]
    assert any(record["message"].startswith("listening on") for record in records)
    assert {(r["job"], r["error_type"]) for r in records if r["event"] == "failed"} == {
        (id_, "ValueError")
    }


@ONE_DATABASE
@pytest.mark.parametrize(
    ("given", "code", "error_type"),
    [
        (["--app=missing:jobs"], 2, "ConfigurationError"),
        (["--concurrency=0"], 2, "InvalidOption"),
        (["--processes=0", "--debug"], 2, "InvalidOption"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_json_too(
    it: Cli, given: list[str], code: int, error_type: str
) -> None:
    result = it("worker", "--log-format", "json", *given)
    assert result.exit_code == code
    *_, last = map(json.loads, result.stderr.splitlines())
    assert (last["level"], last["error_type"]) == ("error", f"jobqueue.errors.{error_type}")
    assert ("traceback" in last) == ("--debug" in given)


def test_the_type_of_an_error_has_its_module_in_the_log_of_a_child_too() -> None:
    try:
        raise JobNotFound("no")
    except JobNotFound:
        record = logging.makeLogRecord({"exc_info": sys.exc_info()})
    sent: list[Any] = []
    ForwardingHandler(lambda log: sent.append(log), lambda send: send())._forward(record)
    types = [line["error_type"] for line in (json.loads(JsonFormatter().format(record)), *sent)]
    assert types == ["jobqueue.errors.JobNotFound"] * 2


def test_a_level_that_does_not_exist_is_bad_usage(it: Cli) -> None:
    assert "'LOUD' is not one of" in it.refused(2, "worker", "--log-level", "LOUD")


HANDLERS = '{"h": {"class": "logging.StreamHandler", "formatter": "f"}}'
FORMATTERS = '{"f": {"()": "jobqueue.logs.JsonFormatter"}}'
OWN = """
import logging, logging.config, sys
from jobqueue import JobQueue
logging.config.dictConfig({"version": 1, "handlers": %s, "formatters": %s, %s})
jobs = JobQueue()

def speak() -> None:
    logging.getLogger("myapp").warning("said by the app")
    print("on stderr", file=sys.stderr)
    raise ValueError("the-cause")

@jobs.task(max_attempts=1)
def fail() -> None:
    speak()

@jobs.task(max_attempts=1, isolation="process")
def fail_apart() -> None:
    speak()
"""


@ONE_DATABASE
@pytest.mark.parametrize(
    ("settings", "others"),
    [
        ('"root": {"handlers": ["h"], "level": "WARNING"}', "on stderr"),
        ('"loggers": {"myapp": {"handlers": ["h"]}, "jobqueue": {"handlers": ["h"]}}', None),
    ],
    ids=["root", "loggers"],
)
def test_an_apps_own_logging_is_respected_and_says_each_thing_once(
    url: str, make_app: Any, spawn: Spawn, settings: str, others: str | None
) -> None:
    it = Cli(url)
    it.app = make_app(OWN % (HANDLERS, FORMATTERS, settings))
    ids = {enqueue(it, "fail"), enqueue(it, "fail_apart")}
    worker = spawn("worker", "--drain", "--log-format=json", env=it.env)
    code, _, err = worker.end(100)
    assert code == 0
    lines = err.splitlines()
    assert [line for line in lines if not line.startswith("{")] == ([others] * 2 if others else [])
    records: Records = [json.loads(line) for line in lines if line.startswith("{")]
    for part in ("said by the app", "the-cause"):
        about = [record["job"] for record in records if part in record["message"]]
        assert sorted(about, key=str) == sorted(ids), part
