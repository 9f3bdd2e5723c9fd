"""Many queues, as teams with a queue per tenant have them: one worker drains the same jobs from one queue and from many.

The jobs of the queues alternate. Every drain has a fresh database, and is one of a pair with a drain of one queue right
before or after it.
"""

from contextlib import ExitStack
from statistics import median

from bench.drain import work
from bench.ground import Database
from bench.stage import ARGS, Record, Stage

JOBS = 40_000
QUEUES = [100, 2_000, 10_000]
PRIORITIES = 100
PAIRS = 5
"""Pairs of each kind in one run, whose medians count: single drains differ by ten percent and more."""


def measure(stage: Stage, record: Record) -> None:
    jobs = stage.count(JOBS)
    kinds = {f"{queues:,} queues": (queues, 1) for queues in map(stage.count, QUEUES)}
    kinds[f"{PRIORITIES} priorities"] = 1, PRIORITIES
    pairs = {kind: list[tuple[float, float]]() for kind in kinds}
    for number in range(PAIRS):
        for kind, many in kinds.items():
            pairs[kind].append(_pair(stage, jobs, many, one_first=number % 2 == 0))
    ones = [one for found in pairs.values() for one, _ in found]
    record(f"{jobs:,} jobs in one queue", median(ones), "jobs/s")
    for kind, found in pairs.items():
        record(f"in {kind}", median(rate for _, rate in found), "jobs/s")
        shares = [100 * rate / one for one, rate in found]
        record(f"in {kind}, of one queue beside it", median(shares), "%")


def _pair(
    stage: Stage, jobs: int, many: tuple[int, int], *, one_first: bool
) -> tuple[float, float]:
    """Return the rates of one queue and of many, one right after the other."""
    with ExitStack() as stack:
        filled = []
        for queues, priorities in ((1, 1), many):
            database = stack.enter_context(stage.fresh())
            _fill(database, jobs, queues, priorities)
            filled.append(database)
        rates = [work(database, jobs).rate for database in (filled if one_first else filled[::-1])]
    one, other = rates if one_first else rates[::-1]
    return one, other


def _fill(database: Database, jobs: int, queues: int, priorities: int) -> None:
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs})"
    database.execute(
        f"{numbers} INSERT INTO jobqueue_jobs (task, queue, priority, args)"
        f" SELECT 'add', 'tenant-' || (i % {queues}), i % {priorities}, '{ARGS}' FROM n WHERE true"
    )
