"""Pages: how long each page of the dashboard takes at ten million jobs, of which a million have failed and a million wait in one queue.

    python -m bench.pages URL PORT fresh

The server is a real `jobqueue web`, asked over HTTP. With `fresh` it keeps nothing that viewers share: each look reads the database. What `doctor`
finds is asked for every 15 s, as always: that is in the slowest look at the first page. Every page is looked at 21 times, and so is its part that lives; both again after an ANALYZE.
"""

import http.client
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from jobqueue.error_groups import error_id, signature_of

from bench.children import Child, end_with_parent
from bench.ground import Database
from bench.stage import Record, Stage
from bench.views import ago, fill, numbers

LOOKS = 21
TAGS = "CASE WHEN i % 10 = 3 THEN '[\"tag' || (i / 10 % 7) || '\"]' END"
TASKS = [f"task{number}" for number in range(8)]
TYPES = [f"app.Error{number}" for number in range(25)]
PLACE = "app/mail.py:send"
OUTAGE = ("outage", "ConnectionError", PLACE)
"""Task, type and place of half of the failures."""
TABLES = (
    "jobs",
    "counters",
    "attempts",
    "history",
    "audit",
    "error_counts",
    "workers",
    "schedules",
)


def measure(stage: Stage, record: Record) -> None:
    """The worst of all looks at a page: with and without statistics, as a whole and its part that lives."""
    with stage.fresh() as database:
        load(database, stage.count(10_000_000))
        looked = look(database)
    for path, took in looked.items():
        record(f"{path}, median", max(each.median for each in took), "ms")
        record(f"{path}, slowest of {LOOKS}", max(each.slowest for each in took), "ms")


class Took(NamedTuple):
    """Milliseconds."""

    median: float
    slowest: float


def look(database: Database) -> dict[str, list[Took]]:
    """The times of each page, and of its part that lives, before and after an ANALYZE."""
    paths = pages(database)
    looked: dict[str, list[Took]] = {path: [] for path in paths}
    for analyzed in (False, True):
        if analyzed:
            database.execute("ANALYZE")
        with served(database, "fresh") as client:
            for path in paths:
                for headers in ({}, {"HX-Request": "true"}):
                    looked[path].append(_took(client, path, headers))
    return looked


def _took(client: "Client", path: str, headers: dict[str, str]) -> Took:
    took = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        client.get(path, headers)
        took.append(1000 * (time.perf_counter() - began))
    return Took(statistics.median(took), max(took))


# The jobs


def load(database: Database, jobs: int) -> None:
    """Ten in a hundred have failed, one in twenty of one cause, and one in ten waits in one queue."""
    if database.name == "postgres":  # Its statistics would come at some moment in between.
        for table in TABLES:
            database.execute(f"ALTER TABLE jobqueue_{table} SET (autovacuum_enabled = off)")
    fill(database, jobs * 17 // 20, failed=6, more={"tags": TAGS})
    _insert_jobs(database, jobs)
    _insert_errors(database)
    _insert_figures(database)
    _insert_others(database)
    database.settle()


def _insert_jobs(database: Database, jobs: int) -> None:
    names = "queue, task, args, state, run_at, finished_at, attempt, fence, tags, unique_key, unique_until"
    into = f"INSERT INTO jobqueue_jobs ({names}) SELECT"
    args = "'{\"args\":[' || i || '],\"kwargs\":{}}'"
    end = ago(database, f"172800.0 * (1 - i / {jobs // 20}.0)")
    task = OUTAGE[0]
    database.execute(
        f"{into} 'queue0', '{task}', {args}, 'failed', {end}, {end}, 1, 3, {TAGS}, NULL, NULL {numbers(1, jobs // 20)}"
    )
    key = "CASE WHEN i % 20 = 7 THEN 'key-' || i END, CASE WHEN i % 20 = 7 THEN 'finished' END"
    due = ago(database, "i / 1000.0")
    database.execute(
        f"{into} 'deep', 'task1', {args}, 'available', {due}, NULL, 0, 0, {TAGS}, {key} {numbers(1, jobs // 10)}"
    )
    at = ago(database, "300.0 * i")
    database.execute(
        "INSERT INTO jobqueue_jobs (queue, task, state, run_at, finished_at, attempt, fence, scheduled_for)"
        f" SELECT 'queue0', 'task' || (i % 8), 'succeeded', {at}, {at}, 1, 2, {at} {numbers(1, 1000)}"
    )
    old = ago(database, "2505600")
    for state, ended in (("failed", old), ("available", "NULL"), ("succeeded", old)):
        database.execute(
            f"{into} 'queue0', 'rare', {args}, '{state}', {old}, {ended}, 1, 3, NULL, NULL, NULL {numbers(1, 1)}"
        )


def _insert_errors(database: Database) -> None:
    """An attempt of each job that failed, and their counts: by hour, and as totals."""
    of_task = f"CASE task WHEN '{OUTAGE[0]}' THEN '{OUTAGE[1]}' ELSE 'app.Error' || (id % 25) END"
    traceback = (
        "Traceback (most recent call last):\n" + '  File "app/mail.py", line 7, in send\n' * 8
    )
    database.execute(
        "INSERT INTO jobqueue_attempts (job_id, fence, attempt, started_at, finished_at, outcome, error_type,"
        " error_message, traceback, error_signature)"
        f" SELECT id, 2, 1, finished_at, finished_at, 'errored', {of_task}, 'no answer', '{traceback}',"
        f" task || ' ' || {of_task} || ' {PLACE}' FROM jobqueue_jobs WHERE state = 'failed'"
    )
    groups = [OUTAGE, *((task, type_, PLACE) for task in TASKS for type_ in TYPES)]
    causes = ", ".join(
        f"('{error_id(signature_of(*group))}', '{group[0]}', '{group[1]}', '{group[2]}')"
        for group in groups
    )
    names = "error_id, task, error_type, place"
    into = f"INSERT INTO jobqueue_error_counts ({names}, message, attempts, failed, hour, first_at, last_at, kind)"
    with_ = f"WITH causes ({names}) AS (VALUES {causes})"
    for kind, hours in ((2, 168), (1, 1), (0, 1)):
        at = ago(database, "3600 * i")
        database.execute(
            f"{with_} {into} SELECT {names}, 'no answer', 20, 10, {at}, {at}, {at}, {kind} FROM causes, (SELECT i {numbers(0, hours - 1)}) AS hours"
        )


def _insert_figures(database: Database) -> None:
    """A day of the minutes of ten workers, and the totals of tasks that `fill` does not have."""
    at = ago(database, "60 * (i / 90)")
    task = "CASE i % 9 WHEN 8 THEN '' ELSE 'task' || (i % 9) END"
    queue = "CASE WHEN i % 9 < 8 THEN 'queue' || (i % 3) END"
    database.execute(
        "INSERT INTO jobqueue_history (minute, worker, task, processed, errored, failed, duration, duration_p95, wait, wait_p95, busy, slots, queue, duration_p50, wait_p50, waiting)"
        f" SELECT {at}, 'w' || (i / 9 % 10), {task}, 60, 2, 1, 30.0, 1.5, 6.0, 0.3, 30.0, 240.0, {queue}, 0.4, 0.1, CASE WHEN i % 90 = 8 THEN 1000 END {numbers(0, 1440 * 90 - 1)}"
    )
    for queue, task in (("queue0", OUTAGE[0]), ("queue0", "rare"), ("deep", "task1")):
        database.execute(
            "INSERT INTO jobqueue_counters (minute, queue, task, failed, kind)"
            f" VALUES ({ago(database, '0')}, '{queue}', '{task}', 1, 1)"
        )


def _insert_others(database: Database) -> None:
    """Workers that stay alive, a day of what operators did, schedules, switches."""
    names = json.dumps([*TASKS, OUTAGE[0], "rare"])
    ahead = ago(database, "-864000")
    database.execute(f"UPDATE jobqueue_workers SET tasks = '{names}', heartbeat_at = {ahead}")
    target = "CASE i % 50 WHEN 0 THEN '{\"queue\": \"queue' || (i % 3) || '\"}' ELSE '{\"ids\": [' || i || ']}' END"
    verb = "CASE i % 50 WHEN 0 THEN 'pause' ELSE 'retry' END"
    database.execute(
        "INSERT INTO jobqueue_audit (at, actor, verb, target, changed)"
        f" SELECT {ago(database, '200000 - i')}, 'ada@host', {verb}, {target}, 1 {numbers(1, 200_000)}"
    )
    database.execute(
        "INSERT INTO jobqueue_schedules (name, task, kind, expression, catch_up, overlap, source, next_at, last_job_id)"
        f" SELECT 'schedule' || i, 'task' || (i % 8), 'cron', '*/5 * * * *', 'latest', 'skip', 'operator', {ago(database, '-300')}, 1000 * i {numbers(1, 100)}"
    )
    database.execute(
        f"INSERT INTO jobqueue_queues (name, paused_at, max_running) VALUES ('queue1', {ago(database, '60')}, NULL), ('queue2', NULL, 50)"
    )


# The pages


def pages(database: Database) -> list[str]:
    """The paths of all pages, each filter, and the pairs that people use; what is rare is the worst for a filter without an index."""
    failed, succeeded, last, running, rare = (
        database.execute(f"SELECT max(id) FROM jobqueue_jobs WHERE {where}")[0][0]
        for where in (
            "state = 'failed' AND finished_at IS NOT NULL",
            "state = 'succeeded' AND finished_at IS NOT NULL",
            "state = 'available' AND task = 'task1'",
            "state = 'running'",
            "state = 'available' AND task = 'rare'",
        )
    )
    ((ended,),) = database.execute(
        "SELECT CAST(finished_at AS text) FROM jobqueue_jobs WHERE state = 'failed' AND finished_at IS NOT NULL ORDER BY finished_at LIMIT 1 OFFSET 50000"
    )
    at = datetime.fromisoformat(ended)
    deep = quote(f"{(at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()}~1")
    outage, usual = (
        error_id(signature_of(*group)) for group in (OUTAGE, ("task2", "app.Error2", PLACE))
    )
    filters = [
        *(
            f"state={state}"
            for state in ("scheduled", "available", "running", "succeeded", "failed", "cancelled")
        ),
        *("task=task3", "task=rare", "queue=queue3", "queue=deep", "tag=tag3", "tag=none"),
        *(f"error={outage}", f"error={usual}", f"state=failed&error={outage}"),
        *(
            "state=failed&task=task3",
            "state=failed&task=rare",
            "state=succeeded&task=rare",
            "state=available&task=rare",
        ),
        *(
            "state=failed&queue=queue3",
            "state=failed&tag=none",
            "state=available&queue=deep",
            "state=available&queue=queue3",
        ),
        *(
            "state=scheduled&queue=queue3",
            "state=running&queue=queue3",
            "state=available&tag=none",
            "task=task3&queue=queue3",
        ),
        *(f"q={failed}", "q=key-7", "q=ta", "q=rare", "state=failed&q=ra"),
        *(f"after={failed // 2}", f"state=failed&after={deep}", f"task=rare&after={failed // 2}"),
        f"state=failed&task=rare&after={deep}",
    ]
    verbs = [
        *(
            "retry?all=yes&state=failed",
            "retry?all=yes&state=failed&task=task3",
            "retry?all=yes&state=failed&task=rare",
        ),
        *(
            f"retry?all=yes&state=failed&error={outage}",
            f"retry?all=yes&error={usual}",
            "retry?all=yes&state=failed&queue=queue3",
        ),
        *(
            "retry?all=yes&task=task3",
            "cancel?all=yes&queue=deep",
            "cancel?all=yes&task=rare",
            "delete?all=yes&tag=tag3",
        ),
        *(
            "update?all=yes&state=available&queue=queue3",
            f"delete?id={failed}&id={succeeded}",
            "cancel?all=yes",
        ),
    ]
    return [
        *("/", "/?span=24h", "/jobs", *(f"/jobs?{each}" for each in filters)),
        *(f"/jobs/{id_}" for id_ in (failed, succeeded, last, running, rare)),
        *(f"/errors?since={since}" for since in ("1h", "24h", "7d")),
        *(
            "/queues",
            "/queues/queue3",
            "/queues/deep",
            "/queues/deep/purge",
            "/tasks",
            "/workers",
            "/schedules",
            "/log",
            "/log?before=1000",
        ),
        *(f"/jobs/{verb}" for verb in verbs),
    ]


# The server


class Client:
    """Asks one server over one connection, as a browser does."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def get(self, path: str, headers: dict[str, str]) -> int:
        """The status: 200 or 304."""
        self._connection.request("GET", path, headers={"Accept": "text/html", **headers})
        response = self._connection.getresponse()
        text = response.read()
        assert response.status in (200, 304), f"{path}: {response.status}: {text[-2000:]!r}"
        self.tag = response.headers.get("ETag", "")
        return response.status

    def close(self) -> None:
        self._connection.close()


@contextmanager
def served(database: Database, *words: str) -> Iterator[Client]:
    """A client of a server of its own, which has answered once."""
    with serving(database, *words) as (port, _):
        yield Client(port)


@contextmanager
def serving(database: Database, *words: str) -> Iterator[tuple[int, int]]:
    """The port and the process of a server that has answered once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Child("bench.pages", database.url, port, *words) as child:
        _awaited(port).close()
        yield port, child.pid


def _awaited(port: int) -> Client:
    until = time.monotonic() + 60
    while True:
        client = Client(port)
        try:
            client.get("/log", {})
            return client
        except OSError:
            client.close()
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.1)


def main() -> None:
    from jobqueue.cli.main import cli
    from jobqueue.web import live

    os.environ["JOBQUEUE_URL"], port, *words = sys.argv[1:]
    if "fresh" in words:
        live.KEEP_MIN, live.COST_MAX = 0.0, float("inf")
    end_with_parent()
    sys.stderr = open(os.devnull, "w")
    os.dup2(sys.stderr.fileno(), 2)
    cli.main(["web", "--port", port])


if __name__ == "__main__":
    main()
