"""What data may do in a terminal and in a log: nothing. Plain SQL may have written any text anywhere."""

import json
import re
from typing import Any

import pytest
from sqlalchemy import insert, update

from jobqueue import JobQueue, prometheus
from jobqueue.cli import completion
from jobqueue.store.clock import now
from jobqueue.store.schema import attempts, audit, counters, error_counts, history, pauses, queues
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.schema import schedules, workers
from jobqueue.printable_text import escape_controls
from tests.cli.conftest import Cli

EVIL = "x\x1b[31m\x1b]0;t\x07\n\rforged \u202e\u200b\x9b1m\u2028y"
APP = f"""
from jobqueue import Cancel, JobQueue, current_job, every

EVIL = {EVIL!r}
jobs = JobQueue()

@jobs.task(max_attempts=1, schedule=every(hours=1))
def fail(*values) -> None:
    current_job().progress(0.5, EVIL)
    raise type(EVIL, (ValueError,), {{}})(EVIL)

@jobs.task
def gives_up() -> None:
    raise Cancel(EVIL)
"""
COMMANDS = (
    *("list", "errors", "doctor", "stats", "queues", "tasks", "workers", "schedules", "log"),
    *("show 1", "why 1", "show 5", "why 6"),
    *(
        "top --once",
        "list --task EVIL",
        "list --task EVILx",
        "pause EVIL",
        "cancel --task EVIL --yes",
    ),
    *("show EVIL", "schedules preview EVIL", "retry --error EVIL --yes"),
    *(
        "list --json",
        "show 1 --json",
        "stats --json",
        "errors --json",
        "log --json",
        "show x --json",
    ),
)

# What a terminal gets is the same on both databases.
pytestmark = pytest.mark.databases("sqlite")


def put_everywhere(jobs: JobQueue) -> None:
    """Write it into each text that a row may have, as plain SQL can."""
    tags, headers = json.dumps([EVIL]), json.dumps({EVIL: EVIL})
    named: dict[str, Any] = {"task": EVIL, "queue": EVIL, "tags": tags, "headers": headers}
    said = {"reason": EVIL, "worker": EVIL, "progress_message": EVIL, "result": json.dumps(EVIL)}
    given = {"args": json.dumps({"args": [EVIL], "kwargs": {EVIL: EVIL}})}
    with jobs.store.write() as connection:
        for table, values in (
            (jobs_table, named | said | {"unique_key": EVIL}),
            (attempts, {"worker": EVIL, "error_type": EVIL, "traceback": EVIL, "outcome": EVIL}),
            (attempts, {"error_message": EVIL, "exit_signal": EVIL}),
            (counters, {"task": EVIL, "queue": EVIL}),
            (error_counts, {"task": EVIL, "error_type": EVIL, "place": EVIL, "message": EVIL}),
            (history, {"worker": EVIL}),
            (schedules, {"name": EVIL, "task": EVIL, "paused_by": EVIL, "paused_at": now()}),
        ):
            first = jobs_table.c.id == 1 if table is jobs_table else True
            connection.execute(update(table).where(first).values(values))
        more = named | given
        connection.execute(insert(jobs_table), [more, more | {"lane": EVIL}])
        connection.execute(insert(queues).values(name=EVIL, paused_at=now(), max_running=0))
        for kind in ("task", "tag"):
            connection.execute(insert(pauses).values(kind=kind, name=EVIL, paused_by=EVIL))
        lease = {"name": EVIL, "host": EVIL, "pid": 7, "concurrency": 1, "lease": 3600.0}
        lists = {"queues": tags, "tasks": tags}
        connection.execute(insert(workers).values(lease | lists))
        target = json.dumps({EVIL: EVIL, "queue": EVIL})
        connection.execute(insert(audit).values(actor=EVIL, verb=EVIL, target=target))


def inert(text: str) -> bool:
    return all(line == escape_controls(line) for line in text.split("\n")) and not re.search(
        r"^\s*forged", text, re.MULTILINE
    )


def test_what_data_holds_is_inert_in_each_command_and_log(it: Cli, url: str) -> None:
    for task in ("fail", "gives_up"):
        it.id(task)
    for form in ("text", "json"):
        ran = it("worker", "--drain", "--log-format", form)
        assert ran.exit_code == 0 and inert(ran.stderr), ran.stderr
        it.id("fail")
    with JobQueue(url) as jobs:
        put_everywhere(jobs)
        exposed = prometheus.exposition(prometheus.Collector(jobs).collect())
    assert "forged" in exposed and inert(exposed)
    shown = []
    for command in COMMANDS:
        result = it(*(word.replace("EVIL", EVIL) for word in command.split()))
        assert "this is a bug" not in result.stderr, (command, result.stderr)
        assert inert(result.stdout) and inert(result.stderr), (command, result.output)
        shown += [command] if "forged" in result.output else []
    assert len(shown) > len(COMMANDS) - 5, shown
    assert [each.value for each in completion.words(EVIL, "xy")(None, None, "x")] == ["xy"]


def test_our_lines_are_inert_in_the_logging_of_a_program_too(
    it: Cli, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with JobQueue(url) as jobs:

        @jobs.task(max_attempts=1)
        def fail() -> None:
            raise ValueError(EVIL)

        fail.enqueue()
        with jobs.worker(drain=True, poll=0.05) as worker:
            worker.wait()
    assert "forged" in caplog.text and inert(caplog.text), caplog.text
