"""Why: how long `job.why()` takes at sixteen million jobs, with a million of them in front.

Nine million have ended. Each case has a million of its own: without a key, of a full key, in a queue with a limit, of a key in order, of a
paused task, of the heavy tenant of a fair queue, and of a key where the last one may have more places. One task is paused in all cases, so that
no answer is spared the look at pauses. Each job is asked about 21 times, on a store that is open, before and after an ANALYZE; what it says is checked.
"""

import json
import statistics
import time
from typing import NamedTuple

from jobqueue import JobQueue
from jobqueue.store.lanes import Lanes

from bench.app import app
from bench.ground import Database
from bench.stage import Record, Stage
from bench.views import CHUNK, ago, numbers

LOOKS = 21
TENANTS = 10_000
TABLES = ("jobs", "lanes", "counters", "attempts", "workers", "queues", "pauses")


class Case(NamedTuple):
    """A job, and how the answer about it must begin."""

    what: str
    id: int
    code: str
    sentence: str


def measure(stage: Stage, record: Record) -> None:
    """The worst of before and after an ANALYZE, of each case."""
    with stage.fresh() as database, app(database.url)[0] as queue:
        cases = load(database, queue, stage.count(9_000_000), stage.count(1_000_000))
        looked: dict[str, list[list[float]]] = {case.what: [] for case in cases}
        for analyzed in (False, True):
            if analyzed:
                database.execute("ANALYZE")
            for case in cases:
                looked[case.what].append(_took(queue, case))
    for what, took in looked.items():
        record(f"{what}, median", max(statistics.median(each) for each in took), "ms")
        record(f"{what}, slowest of {LOOKS} (at most 100)", max(map(max, took)), "ms")


def _took(queue: JobQueue, case: Case) -> list[float]:
    job = queue.get(case.id)
    took = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        said = job.why()
        took.append(1000 * (time.perf_counter() - began))
        is_right = said.code == case.code and said.sentence.startswith(case.sentence)
        assert is_right, f"{case.what}: {said}"
    return took


# The jobs


class Rows:
    """Inserts jobs with SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, columns: str, values: str, count: int = 1) -> int:
        """Insert so many alike; return the last id. `i` is the number of each in `values`."""
        for first in range(1, count + 1, CHUNK):
            last = min(first + CHUNK - 1, count)
            self._database.execute(
                f"INSERT INTO jobqueue_jobs ({columns}) SELECT {values} {numbers(first, last)}"
            )
        ((id_,),) = self._database.execute("SELECT max(id) FROM jobqueue_jobs")
        return int(id_)

    def waiting(self, queue: str, count: int = 1, task: str = "add", **key: object) -> int:
        """Insert available jobs; `key` has columns of their concurrency key."""
        columns = ", ".join(["queue", "task", "args", *key])
        args = "'{\"args\":[' || i || ',2],\"kwargs\":{}}'"
        values = ", ".join([f"'{queue}'", f"'{task}'", args, *map(str, key.values())])
        return self.insert(columns, values, count)

    def begun(self, queue: str, state: str, at: str, **key: object) -> int:
        """Insert a job that runs, or awaits its next attempt at `at`."""
        runs = state == "running"
        columns = ["queue", "task", "state", "attempt", "fence", "worker_id", "worker", *key]
        columns.append("started_at" if runs else "run_at")
        worker = ("1", "'w1'") if runs else ("NULL", "NULL")
        first = (f"'{queue}'", "'add'", f"'{state}'", "1", "1" if runs else "2", *worker)
        return self.insert(", ".join(columns), ", ".join([*first, *map(str, key.values()), at]))


def load(database: Database, queue: JobQueue, ended: int, waiting: int) -> list[Case]:
    """Fill the database, and return what to ask of it."""
    if database.name == "postgres":  # Its statistics would come at some moment in between.
        for table in TABLES:
            database.execute(f"ALTER TABLE jobqueue_{table} SET (autovacuum_enabled = off)")
    _insert_worker(database)
    rows = Rows(database)
    cases = [*_of_queues(database, rows, waiting), *_of_keys(database, rows, waiting)]
    cases += _others(database, rows, ended)
    Lanes(queue.store).sweep()  # As workers do: the keys have rows from here on.
    keys = "kind = 0 AND name LIKE 'tenant-%'"
    turn = f"CAST(substr(name, 8) AS INTEGER) / {2.0 * TENANTS}"
    database.execute(f"UPDATE jobqueue_lanes SET turn = {turn} WHERE {keys}")
    database.settle()
    return cases


def _insert_worker(database: Database) -> None:
    """A worker that stays alive, and an hour of what it has ended."""
    known, ahead = json.dumps(["add", "nap"]), ago(database, "-864000")
    database.execute(
        "INSERT INTO jobqueue_workers (name, host, pid, tasks, concurrency, lease, heartbeat_at)"
        f" VALUES ('w1', 'host', 1, '{known}', 4, 30, {ahead})"
    )
    minute = ago(database, "60 * (i % 59)")
    database.execute(
        "INSERT INTO jobqueue_counters (minute, queue, task, succeeded, kind)"
        f" SELECT {minute}, 'queue' || (i % 40), 'add', 7, 2 {numbers(1, 59 * 40)}"
    )
    database.execute("INSERT INTO jobqueue_pauses (kind, name) VALUES ('task', 'nap')")


def _of_queues(database: Database, rows: Rows, many: int) -> list[Case]:
    """Cases of jobs without a key."""
    last = rows.waiting("queue0", many + 1)
    unknown = rows.waiting("queue0", task="mystery")
    running = rows.begun("limited", "running", ago(database, "60"))
    limited = rows.waiting("limited", many + 1)
    paused = rows.waiting("paused", many + 1, "nap")
    behind_paused = rows.waiting("paused")
    database.execute("INSERT INTO jobqueue_queues (name, max_running) VALUES ('limited', 4)")
    database.execute("INSERT INTO jobqueue_queues (name, fair) VALUES ('fair', 1)")
    beyond = "behind more than 10,000 jobs"
    return [
        Case("the last of a queue", last, "behind", f"{beyond}, more than "),
        Case("the last of a queue with a limit", limited, "behind", beyond),
        Case("of a paused task behind paused ones", paused, "task_paused", "task nap paused"),
        Case("behind paused ones", behind_paused, "behind", "behind more than "),
        Case("of a task that no worker knows", unknown, "unknown_task", "no live worker knows"),
        Case("running", running, "running", "running on w1 for "),
    ]


def _of_keys(database: Database, rows: Rows, many: int) -> list[Case]:
    """Cases of jobs with a key."""
    full: dict[str, object] = {"lane": "'full'", "lane_limit": 1}
    wide: dict[str, object] = {"lane": "'wide'", "lane_limit": 1}
    strict: dict[str, object] = {"lane": "'strict'", "lane_limit": 1, "lane_strict": 1}
    rows.begun("keyed", "running", ago(database, "60"), **full)
    last = rows.waiting("keyed", many + 1, **full)
    rows.begun("wide", "running", ago(database, "60"), **wide)
    rows.waiting("wide", many, **wide)
    wider = rows.waiting("wide", **{**wide, "lane_limit": 2})
    rows.begun("strict", "scheduled", ago(database, "-864000"), **strict)
    in_order = rows.waiting("strict", many + 1, **strict)
    rows.waiting("fair", many, lane="'heavy'")
    light = rows.waiting("fair", TENANTS, lane="'tenant-' || i")
    beyond = "behind more than 10,000 jobs of its key"
    return [
        Case("the last of a full key", last, "lane_full", "lane full full: 1 of 1, held by "),
        Case("with more places than those before", wider, "behind", beyond),
        Case("in order, behind a retry", in_order, "in_order", "in order: behind job "),
        Case("of a light tenant beside a heavy one", light, "behind", "behind 10,000 other keys"),
    ]


def _others(database: Database, rows: Rows, ended: int) -> list[Case]:
    end = ago(database, f"2592000.0 * (1 - i / {ended}.0)")
    state = "CASE WHEN i % 100 < 6 THEN 'failed' ELSE 'succeeded' END"
    columns = "queue, task, args, attempt, fence, worker, state, run_at, started_at, finished_at"
    args = '\'{"args":[\' || i || \',"as long as they usually are"],"kwargs":{}}\''
    values = (
        f"'queue' || (i % 40), 'task' || (i % 8), {args}, 1, 2, 'w1', {state}, {end}, {end}, {end}"
    )
    rows.insert(columns, values, ended)
    ((failed,),) = database.execute("SELECT max(id) FROM jobqueue_jobs WHERE state = 'failed'")
    database.execute(
        "INSERT INTO jobqueue_attempts (job_id, fence, attempt, finished_at, outcome, error_type, error_message)"
        f" VALUES ({failed}, 2, 1, {ago(database, '60')}, 'errored', 'ValueError', 'no good')"
    )
    return [Case("failed", failed, "failed", "failed: 1 of 10 attempts, last ValueError")]
