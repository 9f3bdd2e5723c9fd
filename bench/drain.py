"""Drain: no-op jobs that are already enqueued, claimed, run and completed by workers with four threads each, in their own processes.

The rate is from the first claim to the last completion, by the database's clock. Every measurement has a fresh database.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from itertools import count
from statistics import median
from typing import Any, NamedTuple

from bench import ceiling
from bench.app import app
from bench.ground import Database
from bench.stage import Record, Stage, fill
from bench.worker import WorkerChild

PAIRS = 5
"""Drains beside the bare loop in one run, whose medians count."""

runs = count()


class Drained(NamedTuple):
    """What one drain gave."""

    rate: float  # jobs per second
    cpu: float  # seconds of the workers' processes per job
    least: float  # the smallest share of a worker, 0 … 1


def enqueue(database: Database, jobs: int) -> None:
    """Enqueue as a user does."""
    queue, add, *_ = app(database.url)
    with queue:
        for start in range(0, jobs, 10_000):
            queue.enqueue_many(
                add.call(number, 2) for number in range(start, min(jobs, start + 10_000))
            )


def work(database: Database, jobs: int, *, processes: int = 1, **ends: Any) -> Drained:
    """Let workers drain; `ends` says when they end by themselves."""
    run = f"run{next(runs)}"
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                WorkerChild(database.url, name=f"{run}-{number}", **(ends or {"drain": True}))
            )
            for number in range(processes)
        ]
        database.settle()
        for child in children:
            child.tell("start")
        cpu = sum(child.hear("done", 600)["cpu"] for child in children)
    rows = database.execute(
        "SELECT count(*), min(started_at), max(finished_at) FROM jobqueue_jobs"
        f" WHERE state = 'succeeded' AND worker LIKE '{run}-%' GROUP BY worker"
    )
    done = sum(row[0] for row in rows)
    assert done == jobs, f"{done} of {jobs} jobs were done"
    wall = (
        max(_instant(row[2]) for row in rows) - min(_instant(row[1]) for row in rows)
    ).total_seconds()
    shares = [row[0] / done for row in rows] + [0.0] * (processes - len(rows))
    return Drained(done / wall, cpu / done, min(shares))


def _instant(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


@contextmanager
def snapshot(database: Database) -> Iterator[None]:
    """Another connection that holds what it sees, as a long report or a backup does."""
    with closing(database.connect()) as connection:
        connection.execute(
            "BEGIN" if database.name == "sqlite" else "BEGIN ISOLATION LEVEL REPEATABLE READ"
        )
        connection.execute("SELECT count(*) FROM jobqueue_jobs").fetchall()
        yield
        connection.execute("ROLLBACK")


def measure(stage: Stage, record: Record) -> None:
    """One process beside the bare loop, then two processes, a backlog and a held snapshot."""
    jobs = stage.count(100_000)
    one = _beside_bare_loop(stage, record, jobs)
    with stage.fresh() as database:
        enqueue(database, jobs)
        two = work(database, jobs, processes=2)
    record("two processes, together", two.rate, "jobs/s")
    record("two processes, of one", 100 * two.rate / one, "%")
    record("two processes, the smaller share", 100 * two.least, "%")
    _backlog(stage, record, jobs, one)
    _pinned(stage, record, one)


def _beside_bare_loop(stage: Stage, record: Record, jobs: int) -> float:
    """Record medians of alternating pairs; return the rate of one process.

    The machine's speed changes within seconds, by half and more: a single pair tells little.
    """
    pairs = []
    for number in range(PAIRS):
        with stage.fresh() as database:
            enqueue(database, jobs)
            if number % 2:
                pairs.append((work(database, jobs), ceiling.drain(stage, jobs)))
            else:
                top = ceiling.drain(stage, jobs)
                pairs.append((work(database, jobs), top))
    rate = median(one.rate for one, _ in pairs)
    record("one process", rate, "jobs/s")
    record("bare loop (ceiling), beside it", median(top["rate"] for _, top in pairs), "jobs/s")
    record(
        "one process, of the ceiling",
        median(100 * one.rate / top["rate"] for one, top in pairs),
        "%",
    )
    record("one process, its CPU", median(1e6 * one.cpu for one, _ in pairs), "µs per job")
    record("bare loop, its CPU", median(1e6 * top["cpu"] for _, top in pairs), "µs per job")
    return rate


def _backlog(stage: Stage, record: Record, jobs: int, empty: float) -> None:
    """A large table, first with the planner's statistics from when it was empty, then with fresh ones."""
    before = f"{stage.count(1_000_000):,} finished, {stage.count(200_000):,} waiting"
    with stage.fresh() as database:
        if stage.kind == "postgres":
            database.execute("ANALYZE jobqueue_jobs")
            database.execute("ALTER TABLE jobqueue_jobs SET (autovacuum_enabled = off)")
        fill(database, stage.count(1_000_000), finished=True)
        fill(database, stage.count(200_000))
        enqueue(database, 2 * jobs)
        stale = work(database, jobs, max_jobs=jobs)
        database.execute("ANALYZE")
        fresh = work(database, jobs, max_jobs=jobs)
    record(f"{before}, stale statistics", stale.rate, "jobs/s")
    record(f"{before}, stale statistics, of empty", 100 * stale.rate / empty, "%")
    record(f"{before}, after ANALYZE", fresh.rate, "jobs/s")
    record(f"{before}, after ANALYZE, of empty", 100 * fresh.rate / empty, "%")


def _pinned(stage: Stage, record: Record, unpinned: float) -> None:
    jobs = stage.count(200_000)
    with stage.fresh() as database:
        enqueue(database, jobs)
        with snapshot(database):
            pinned = work(database, jobs)
    record(f"{jobs:,} jobs while a snapshot is held", pinned.rate, "jobs/s")
    record("while a snapshot is held, of without", 100 * pinned.rate / unpinned, "%")
