"""A limit in the whole fleet: jobs of one concurrency key, over as many slots as its limit, beside the same jobs without a key.

Four processes with ten threads each run jobs that wait for 100 ms. What the limit costs is the time in which slots are free.

And what blocked jobs cost others: when a job begins that is enqueued behind 10,000 of a full key, of a paused task or with a paused tag,
in an idle worker in another process.
"""

import random
import time

from jobqueue import JobQueue, State

from bench.app import app
from bench.drain import work
from bench.ground import Database
from bench.stage import ARGS, Record, Stage
from bench.worker import WorkerChild

JOBS = 2_000
PROCESSES, THREADS = 4, 10
SECONDS = 0.1
BLOCKED = 10_000
SAMPLES = 20


def measure(stage: Stage, record: Record) -> None:
    jobs = stage.count(JOBS)
    plain, keyed = _drain(stage, jobs), _drain(stage, jobs, limit=PROCESSES * THREADS)
    record(f"{jobs:,} jobs of 100 ms, {PROCESSES} × {THREADS} slots", plain, "jobs/s")
    record("of one key with as large a limit, of the same without", 100 * keyed / plain, "%")
    for what, columns in {
        "of a full key": "lane, lane_limit) SELECT 'add', 'key', 1",
        "of a paused task": "queue) SELECT 'add', 'default'",
        "with a paused tag": """tags) SELECT 'add', '["a", "bulk"]'""",
    }.items():
        begun = _begins_behind(stage, what, columns)
        record(f"behind {BLOCKED:,} jobs {what}, a job begins (must be at most 100)", begun, "ms")


def _begins_behind(stage: Stage, what: str, columns: str) -> float:
    """The longest time from the call of `enqueue` here until the handler begins, in ms."""
    random.seed(1)
    with stage.fresh() as database:
        queue, _, moment, _ = app(database.url)
        with queue, WorkerChild(database.url, queues="other") as other:
            other.tell("start")
            _block(database, queue, what, columns)
            database.settle()
            waits: list[float] = []
            with WorkerChild(database.url, queues="default") as worker:
                worker.tell("start")
                moment.enqueue().result(timeout=30)
                for _ in range(SAMPLES):
                    time.sleep(random.uniform(0.1, 0.6))
                    called = time.monotonic_ns()
                    waits.append((moment.enqueue().result(timeout=30) - called) / 1e6)
    return max(waits)


def _block(database: Database, queue: JobQueue, what: str, columns: str) -> None:
    names, _, values = columns.partition(") ")
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {BLOCKED})"
    if "key" in what:  # One of them runs in another worker, for longer than is measured.
        one = {"queue": "other", "concurrency_key": "key", "concurrency_limit": 1}
        holder = queue.registry["nap"].options(**one).enqueue(60.0)
        while holder.state is not State.RUNNING:
            time.sleep(0.01)
    database.execute(
        f"{numbers} INSERT INTO jobqueue_jobs (task, {names}, args) {values}, '{ARGS}' FROM n WHERE true"
    )
    if "task" in what:
        queue.pause(task="add")
    if "tag" in what:
        queue.pause(tag="bulk")


def _drain(stage: Stage, jobs: int, *, limit: int | None = None) -> float:
    lane = "NULL, NULL" if limit is None else f"'key', {limit}"
    args = f'{{"args":[{SECONDS}],"kwargs":{{}}}}'
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs})"
    with stage.fresh() as database:
        database.execute(
            f"{numbers} INSERT INTO jobqueue_jobs (task, args, lane, lane_limit)"
            f" SELECT 'nap', '{args}', {lane} FROM n WHERE true"
        )
        return work(database, jobs, processes=PROCESSES, concurrency=THREADS, drain=True).rate
