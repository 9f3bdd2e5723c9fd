"""Enqueue: one job per commit from one thread beside the driver's bare INSERT and COMMIT of the same row; and many at once.

    python -m bench.enqueue URL ONE MANY

The two take turns of 100 on the same tables, in a process of their own.
"""

import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from bench.app import app
from bench.children import Child, end_with_parent, say
from bench.ground import PRAGMAS
from bench.stage import ARGS, Record, Stage

TURN = 100
INSERT = "INSERT INTO jobqueue_jobs (task, queue, priority, args, max_attempts, state) VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
ROW = ("add", "default", 0, ARGS, 10, "available")


def bare(url: str) -> tuple[Any, str]:
    """A connection of the driver's, and its INSERT; what is not named has the same default."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")))
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection, INSERT
    import psycopg

    return psycopg.connect(url), INSERT.replace("?", "%s")


def one_per_commit(url: str, total: int) -> tuple[float, float]:
    """Jobs per second through the API, and rows per second of the driver."""
    queue, add, *_ = app(url)
    connection, statement = bare(url)
    ours = theirs = 0.0
    for turn in range(total // TURN + 1):  # The first one warms up.
        began = time.perf_counter()
        for _ in range(TURN):
            connection.execute(statement, ROW).fetchone()
            connection.commit()
        middle = time.perf_counter()
        for _ in range(TURN):
            add.enqueue(1, 2)
        if turn:
            theirs += middle - began
            ours += time.perf_counter() - middle
    connection.close()
    queue.close()
    counted = total // TURN * TURN
    return counted / ours, counted / theirs


def many(url: str, total: int) -> float:
    """Jobs per second: arguments checked against the signature, one transaction per 10,000, a handle for each."""
    queue, add, *_ = app(url)
    size = min(total, 10_000)
    with queue:
        queue.enqueue_many([add.call(1, 2)])
        began = time.perf_counter()
        for start in range(0, total, size):
            handles = queue.enqueue_many(
                add.call(number, 2) for number in range(start, start + size)
            )
            assert len(handles) == size
        return total / (time.perf_counter() - began)


def measure(stage: Stage, record: Record) -> None:
    """Both, on one fresh database."""
    with (
        stage.fresh() as database,
        Child("bench.enqueue", database.url, stage.count(3000), stage.count(100_000)) as child,
    ):
        measured = child.hear("enqueued")
    record("one per commit, one thread", measured["ours"], "jobs/s")
    record("the driver's INSERT and COMMIT", measured["bare"], "jobs/s")
    record("one per commit, of the driver", 100 * measured["ours"] / measured["bare"], "%")
    record("enqueue_many, 10,000 at once", measured["many"], "jobs/s")


if __name__ == "__main__":
    end_with_parent()
    ours, theirs = one_per_commit(sys.argv[1], int(sys.argv[2]))
    say("enqueued", ours=ours, bare=theirs, many=many(sys.argv[1], int(sys.argv[3])))
