"""A limit in the whole fleet: jobs of one concurrency key, over as many slots as its limit, beside the same jobs without a key.

Four processes with ten threads each run jobs that wait for 100 ms. What the limit costs is the time in which slots are free.
"""

from bench.drain import work
from bench.stage import Record, Stage

JOBS = 2_000
PROCESSES, THREADS = 4, 10
SECONDS = 0.1


def measure(stage: Stage, record: Record) -> None:
    jobs = stage.count(JOBS)
    plain, keyed = _drain(stage, jobs), _drain(stage, jobs, limit=PROCESSES * THREADS)
    record(f"{jobs:,} jobs of 100 ms, {PROCESSES} × {THREADS} slots", plain, "jobs/s")
    record("of one key with as large a limit, of the same without", 100 * keyed / plain, "%")


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
