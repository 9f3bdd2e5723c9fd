"""Views: how long the slowest of the monitoring views takes at ten million jobs, and the slowest question of docs/monitoring.md.

Nearly all jobs are final, over 30 days, of 40 pairs of queue and task; 2 % wait, 1 % are scheduled, 1,000 run. Counts are as workers leave
them: totals, a day of minutes, and the present one. Each time is the median of five looks after a first one.
"""

import re
import statistics
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from bench.children import ROOT
from bench.ground import Database
from bench.stage import Record, Stage

VIEWS = ("queue_stats", "task_stats", "worker_stats", "throughput")
CHUNK = 500_000  # rows per transaction
LOOKS = 5
KIND = "'queue' || (i / 8 % 5), 'task' || (i % 8)"  # each combination in 40 successive numbers
JOBS = "queue, task, args, state, run_at, started_at, finished_at, worker_id, attempt, fence"
COUNTS = "INSERT INTO jobqueue_counters (minute, queue, task, succeeded, failed, errored_attempts, runs, duration, kind)"
ERRORS = (
    "INSERT INTO jobqueue_attempts (job_id, fence, attempt, finished_at, outcome, error_type, error_message)"
    " SELECT id, 1, 1, run_at, 'errored', 'ValueError', 'no good' FROM jobqueue_jobs WHERE id % 50 = 0"
)
WORKERS = (
    "INSERT INTO jobqueue_workers (name, host, pid, tasks, concurrency, lease)"
    """ SELECT 'w' || i, 'host', 1, '["task1"]', 100, 30"""
)


def measure(stage: Stage, record: Record) -> None:
    jobs = stage.count(10_000_000)
    with stage.fresh() as database:
        if stage.kind == "postgres":  # Its statistics would come at some moment in between.
            for table in ("jobs", "counters", "attempts"):
                database.execute(f"ALTER TABLE jobqueue_{table} SET (autovacuum_enabled = off)")
        fill(database, jobs)
        database.settle()
        views = [f"SELECT * FROM jobqueue_{name}" for name in VIEWS[:-1]]
        views.append(f"SELECT * FROM jobqueue_throughput WHERE minute > {ago(database, '3600')}")
        for when in ("without statistics", "after ANALYZE"):
            if when == "after ANALYZE":
                database.execute("ANALYZE")
            what = f"slowest view of {jobs:,} jobs {when} (must be at most 100)"
            record(what, slowest(database, views), "ms")
        record("slowest question of docs/monitoring.md", slowest(database, questions(stage)), "ms")


def fill(
    database: Database, jobs: int, *, failed: int = 1, more: Mapping[str, str] | None = None
) -> None:
    """Jobs, of which so many percent have failed, attempts, workers and counts.

    `more` are columns of the jobs and what they have, in SQL, by the number i.
    """
    more = more or {}
    into = f"INSERT INTO jobqueue_jobs ({', '.join([JOBS, *more])})"
    available, scheduled, running = jobs // 50, jobs // 100, min(1000, jobs // 10)
    final = jobs - available - scheduled - running
    args = '\'{"args":[\' || i || \',"as long as they usually are"],"kwargs":{}}\''
    end = ago(database, f"2592000.0 * (1 - i / {final}.0)")
    state = f"CASE WHEN i % 100 < {failed} THEN 'failed' WHEN i % 100 = 99 THEN 'cancelled' ELSE 'succeeded' END"
    ended = f"{state}, {end}, {end}, {end}, NULL, 1, 2"
    due = ago(database, "i / 1000.0")
    parts = [(ended, first, min(first + CHUNK - 1, final)) for first in range(1, final + 1, CHUNK)]
    parts += [
        (f"'available', {due}, NULL, NULL, NULL, 0, 0", 1, available),
        (f"'scheduled', {ago(database, '-600 - i')}, NULL, NULL, NULL, 1, 2", 1, scheduled),
        (f"'running', {due}, {due}, NULL, 1 + i % 10, 1, 1", 1, running),
    ]
    for rest, first, last in parts:
        values = ", ".join([KIND, args, rest, *more.values()])
        database.execute(f"{into} SELECT {values} {numbers(first, last)}")
    database.execute(f"{WORKERS} {numbers(1, 10)}")
    database.execute(ERRORS)
    for kind, count in ((1, 1), (2, 1440), (0, 60)):  # Totals, minutes, and batches of this one.
        at = ago(database, "60 * (i / 40)" if kind == 2 else "0")
        counts = f"{COUNTS} SELECT {at}, {KIND}, 5, 1, 2, 6, 3.5, {kind}"
        database.execute(f"{counts} {numbers(0, 40 * count - 1)}")


def numbers(first: int, last: int) -> str:
    """A FROM clause with a row for each number i."""
    recursion = f"SELECT {first} AS i UNION ALL SELECT i + 1 FROM n WHERE i < {last}"
    return f"FROM (WITH RECURSIVE n AS ({recursion}) SELECT i FROM n) AS numbers"


def ago(database: Database, seconds: str) -> str:
    if database.name == "sqlite":
        return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', -({seconds})))"
    return f"now() - ({seconds}) * interval '1 second'"


def questions(stage: Stage) -> list[str]:
    """The SQL of the page, but for its inserts."""
    page = (
        (ROOT / "docs" / "monitoring.md").read_text("utf-8").partition("## What operators ask")[2]
    )
    tag = {"sqlite": "sqlite", "postgres": "postgresql"}[stage.kind]
    blocks = re.findall(r"^```sql ?(\w*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return [sql for of, sql in blocks if of in ("", tag)]


def slowest(database: Database, queries: Iterable[str]) -> float:
    """Milliseconds."""
    with closing(database.connect()) as connection:
        return max(1000 * _median(connection, query) for query in queries)


def _median(connection: Any, query: str) -> float:
    took = []
    for _ in range(1 + LOOKS):
        began = time.perf_counter()
        connection.execute(query).fetchall()
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])
