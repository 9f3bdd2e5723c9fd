"""Many queues, as teams with a queue per tenant have them: one worker drains the same jobs from one queue and from many.

The jobs of the queues alternate. Every drain has a fresh database, and each ratio is to the one queue of the same run.
"""

from bench.drain import work
from bench.ground import Database
from bench.stage import ARGS, Record, Stage

JOBS = 40_000
QUEUES = [100, 2_000, 10_000]
PRIORITIES = 100


def measure(stage: Stage, record: Record) -> None:
    jobs = stage.count(JOBS)
    one = _drain(stage, jobs)
    record(f"{jobs:,} jobs in one queue", one, "jobs/s")
    for full in QUEUES:
        queues = stage.count(full)
        rate = _drain(stage, jobs, queues=queues)
        record(f"in {queues:,} queues", rate, "jobs/s")
        record(f"in {queues:,} queues, of one queue", 100 * rate / one, "%")
    rate = _drain(stage, jobs, priorities=PRIORITIES)
    record(f"in {PRIORITIES} priorities of one queue", rate, "jobs/s")
    record(f"in {PRIORITIES} priorities, of one priority", 100 * rate / one, "%")


def _drain(stage: Stage, jobs: int, *, queues: int = 1, priorities: int = 1) -> float:
    with stage.fresh() as database:
        _fill(database, jobs, queues, priorities)
        return work(database, jobs).rate


def _fill(database: Database, jobs: int, queues: int, priorities: int) -> None:
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs})"
    database.execute(
        f"{numbers} INSERT INTO jobqueue_jobs (task, queue, priority, args)"
        f" SELECT 'add', 'tenant-' || (i % {queues}), i % {priorities}, '{ARGS}' FROM n WHERE true"
    )
