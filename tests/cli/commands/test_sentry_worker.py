"""jobqueue.sentry with Sentry's own defaults in real processes: a worker and its children, whose last events are not lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Spawn

APP = """
import json, logging, os, signal
import sentry_sdk
from sentry_sdk.transport import Transport
from jobqueue import JobQueue
from jobqueue.sentry import instrument

class Unsent(Transport):
    # Keeps everything until it is flushed, as a connection to a slow server does.
    waiting = []

    def capture_envelope(self, envelope):
        self.waiting += [(item.type, json.loads(item.payload.get_bytes())) for item in envelope.items]

    def flush(self, timeout, callback=None):
        with open("sent", "a") as file:
            for item in self.waiting:
                file.write(json.dumps([os.getpid(), *item]) + "\\n")
        self.waiting.clear()

sentry_sdk.init(dsn="https://key@sentry.invalid/1", transport=Unsent, traces_sample_rate=1.0)
jobs = JobQueue()
instrument(jobs)

@jobs.task(max_attempts=1)
def in_thread() -> None:
    raise ConnectionError("in the worker")

@jobs.task(max_attempts=1, isolation="process")
def in_child() -> None:
    logging.getLogger("shop").error("said in a child")
    raise ConnectionError("in a child")

@jobs.task(max_attempts=1, isolation="process")
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.databases("sqlite")
def test_a_worker_and_its_children_send_each_failure_once_before_they_exit(
    bare: Cli, make_app: Callable[..., str], spawn: Spawn, tmp_path: Path
) -> None:
    for task in ("in_thread", "in_child", "dies"):
        bare.id(task, "--max-attempts", 1)  # The app would start Sentry in this process.
    bare.app = make_app(APP)
    process = spawn("worker", "--drain", "-c", 1, env=bare.env)  # Of one child the last job dies.
    code, _, log = process.end()
    assert code == 0, log
    sent = [json.loads(line) for line in (tmp_path / "sent").read_text().splitlines()]
    events = [(pid, event) for pid, kind, event in sent if kind == "event"]
    raised = {said(event): pid for pid, event in events}
    assert list(raised.values()).count(process.popen.pid) == 2
    errors = ["ConnectionError: in a child", "ConnectionError: in the worker"]
    expected = [*errors, "dies", "said in a child"]
    assert sorted(raised) == expected
    assert len(events) == len(expected)


def said(event: dict[str, Any]) -> str:
    """The exception, or the task that the worker's line is about."""
    if event.get("logger") == "shop":
        return str(event["logentry"]["message"])
    if "exception" not in event:
        assert event["fingerprint"] == ["jobqueue", "dies", "Crashed"]
        return str(event["tags"]["jobqueue.task"])
    (error,) = event["exception"]["values"]
    assert event["tags"]["jobqueue.task"].startswith("in_")
    return f"{error['type']}: {error['value']}"
