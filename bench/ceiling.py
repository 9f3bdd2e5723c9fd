"""The ceiling: a bare loop of claim, run, complete on one table through SQLAlchemy Core, with four handler threads.

    python -m bench.ceiling URL JOBS BATCH [BYTES]

No retries, no leases, no errors, no counters: what this machine would give to a queue that did nothing else. Drain is held against it.
"""

import json
import queue
import sys
import threading
import time
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert

from bench.ceiling_table import CLAIM, finish_statement, jobs
from bench.children import Child, end_with_parent, say
from bench.ground import PRAGMAS
from bench.stage import Record, Stage

BATCH = 500


def connect(url: str) -> Engine:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: object) -> None:
            connection.isolation_level = None
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def run(engine: Engine, total: int, size: int) -> tuple[float, float]:
    """Drain; returns seconds of wall and of this process's CPU."""
    on_postgres = engine.dialect.name == "postgresql"
    finish_sql = finish_statement(on_postgres=on_postgres)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    count = {"claimed": 0, "finished": 0}
    room = threading.Condition()

    def now() -> int:
        return int(time.time() * 1e6)

    def handle() -> None:
        while True:
            for id_, _task, arguments, _attempt, fence in inbox.get():
                x, *more = json.loads(arguments)["args"]
                for y in more:
                    x += y
                outbox.put((id_, fence, json.dumps(x)))

    def claim(connection: Any, limit: int, cursor: int) -> list[Any]:
        return sorted(
            map(tuple, connection.execute(CLAIM, {"cursor": cursor, "limit": limit, "now": now()}))
        )

    def hand_out(batch: list[Any]) -> None:
        """Only after the claim's commit: a faster handler's outcome would not find its fence."""
        count["claimed"] += len(batch)
        share = max(1, len(batch) // 4)
        for start in range(0, len(batch), share):
            inbox.put(batch[start : start + share])

    def gather(*, block: bool) -> list[Any]:
        batch = [outbox.get()] if block else []
        while len(batch) < size and not outbox.empty():
            batch.append(outbox.get())
        return batch

    def finish(connection: Any, batch: list[Any]) -> None:
        ids, fences, results = map(list, zip(*batch, strict=True))
        values = (
            {"ids": ids, "fences": fences, "results": results}
            if on_postgres
            else {"batch": json.dumps(batch)}
        )
        assert len(connection.execute(finish_sql, {**values, "now": now()}).all()) == len(batch), (
            "a fence did not match"
        )

    def claimer() -> None:
        cursor = 0
        with engine.connect() as connection:
            while count["claimed"] < total:
                with room:
                    while count["claimed"] - count["finished"] > 2 * size:
                        room.wait(1)
                with connection.begin():
                    batch = claim(connection, size, cursor)
                cursor = batch[-1][0] if batch else 0
                hand_out(batch)

    def completer() -> None:
        with engine.connect() as connection:
            while count["finished"] < total:
                batch = gather(block=True)
                with connection.begin():
                    finish(connection, batch)
                with room:
                    count["finished"] += len(batch)
                    room.notify()

    def both() -> None:
        cursor = 0
        with engine.connect() as connection:
            while count["finished"] < total:
                batch = gather(block=count["claimed"] > count["finished"])
                taken: list[Any] = []
                with connection.begin():
                    if batch:
                        finish(connection, batch)
                    limit = min(
                        size, 2 * size - (count["claimed"] - count["finished"] - len(batch))
                    )
                    if limit > 0 and count["claimed"] < total:
                        taken = claim(connection, limit, cursor)
                count["finished"] += len(batch)
                cursor = taken[-1][0] if taken else 0
                hand_out(taken)

    for _ in range(4):
        threading.Thread(target=handle, daemon=True).start()
    threads = [
        threading.Thread(target=part, daemon=True)
        for part in ([claimer, completer] if on_postgres else [both])
    ]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if count["finished"] < total:
        raise SystemExit("ceiling: a thread failed, see above")
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    total, size = int(sys.argv[2]), int(sys.argv[3])
    engine = connect(sys.argv[1])
    given: list[Any] = ["x" * int(sys.argv[4])] if sys.argv[4:] else [1, 2]
    row = {"queue": "default", "task": "add", "args": json.dumps({"args": given, "kwargs": {}})}
    with engine.begin() as connection:
        jobs.create(connection)
        for start in range(0, total, 500):
            connection.execute(insert(jobs), [row] * min(500, total - start))
    say("filled")
    sys.stdin.readline()
    end_with_parent()
    wall, cpu = run(engine, total, size)
    say("drained", rate=total / wall, cpu=cpu / total)


def drain(stage: Stage, total: int, payload: int = 0) -> dict[str, float]:
    """Jobs per second, and seconds of this process's CPU per job, in a child process on a fresh database.

    `payload`: bytes of arguments, and of the result; 0 for two numbers.
    """
    more = [payload] if payload else []
    with (
        stage.fresh(schema=False) as database,
        Child("bench.ceiling", database.url, total, BATCH, *more) as child,
    ):
        child.hear("filled")
        database.settle()
        child.tell("go")
        return child.hear("drained")


def measure(stage: Stage, record: Record) -> None:
    """The ceiling alone."""
    drained = drain(stage, stage.count(100_000))
    record("bare loop", drained["rate"], "jobs/s")
    record("its CPU", 1e6 * drained["cpu"], "µs per job")


if __name__ == "__main__":
    main()
