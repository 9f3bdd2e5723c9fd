"""The ceiling: a bare loop of claim, run, complete on one table through SQLAlchemy Core, with four handler threads.

    python -m bench.ceiling URL JOBS BATCH

No retries, no leases, no errors, no counters: what this machine would give to a queue that did nothing else. Drain is held against it.
"""

import json
import queue
import sys
import threading
import time
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Index, Integer, MetaData, SmallInteger, Table, Text
from sqlalchemy import bindparam, cast, create_engine, event, func, insert, select, update
from sqlalchemy.dialects import postgresql

from bench.children import Child, end_with_parent, say
from bench.stage import Record, Stage

BATCH = 500

jobs = Table(
    "ceiling_jobs", MetaData(),
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("queue", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("args", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="available"),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("run_at", BigInteger),
    Column("attempt", SmallInteger, nullable=False, server_default="0"),
    Column("max_attempts", SmallInteger, nullable=False, server_default="5"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("worker_id", BigInteger),
    Column("unique_key", Text),
    Column("created_at", BigInteger),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("result", Text),
)
waiting = jobs.c.state == "available"
Index("ceiling_claim", jobs.c.queue, jobs.c.priority, jobs.c.id, postgresql_where=waiting, sqlite_where=waiting)

candidates = (
    select(jobs.c.id)
    .where(waiting, jobs.c.queue == "default", jobs.c.priority == 0, jobs.c.id > bindparam("cursor"))
    .order_by(jobs.c.id).limit(bindparam("limit")).with_for_update(skip_locked=True).cte("candidates")
)
CLAIM = (
    update(jobs).where(jobs.c.id == candidates.c.id)
    .values(state="running", attempt=jobs.c.attempt + 1, fence=jobs.c.fence + 1, worker_id=1, started_at=bindparam("now"))
    .returning(jobs.c.id, jobs.c.task, jobs.c.args, jobs.c.attempt, jobs.c.fence)
)


def finish_statement(*, on_postgres: bool) -> Any:
    if on_postgres:
        arrays = (("ids", BigInteger), ("fences", BigInteger), ("results", Text))
        outcomes: Any = func.unnest(
            *(cast(bindparam(name), postgresql.ARRAY(type_)) for name, type_ in arrays)
        ).table_valued("id", "fence", "result").render_derived()
    else:
        rows = func.json_each(bindparam("batch")).table_valued("value")
        columns = enumerate(("id", "fence", "result"))
        outcomes = select(*(func.json_extract(rows.c.value, f"$[{i}]").label(name) for i, name in columns)).subquery("outcomes")
    return (
        update(jobs).where(jobs.c.id == outcomes.c.id, jobs.c.fence == outcomes.c.fence)
        .values(state="succeeded", fence=jobs.c.fence + 1, worker_id=None, finished_at=bindparam("now"), result=outcomes.c.result)
        .returning(jobs.c.id)
    )


def connect(url: str) -> Engine:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    if engine.dialect.name == "sqlite":
        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: object) -> None:
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
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
                x, y = json.loads(arguments)["args"]
                outbox.put((id_, fence, json.dumps(x + y)))

    def claim(connection: Any, limit: int, cursor: int) -> list[Any]:
        return sorted(map(tuple, connection.execute(CLAIM, {"cursor": cursor, "limit": limit, "now": now()})))

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
        values = {"ids": ids, "fences": fences, "results": results} if on_postgres else {"batch": json.dumps(batch)}
        assert len(connection.execute(finish_sql, {**values, "now": now()}).all()) == len(batch), "a fence did not match"

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
                    limit = min(size, 2 * size - (count["claimed"] - count["finished"] - len(batch)))
                    if limit > 0 and count["claimed"] < total:
                        taken = claim(connection, limit, cursor)
                count["finished"] += len(batch)
                cursor = taken[-1][0] if taken else 0
                hand_out(taken)

    for _ in range(4):
        threading.Thread(target=handle, daemon=True).start()
    threads = [threading.Thread(target=part, daemon=True) for part in ([claimer, completer] if on_postgres else [both])]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if count["finished"] < total:
        raise SystemExit("ceiling: a thread failed, see above")
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    end_with_parent()
    total, size = int(sys.argv[2]), int(sys.argv[3])
    engine = connect(sys.argv[1])
    row = {"queue": "default", "task": "add", "args": json.dumps({"args": [1, 2], "kwargs": {}})}
    with engine.begin() as connection:
        jobs.create(connection)
        for start in range(0, total, 5000):
            connection.execute(insert(jobs), [row] * min(5000, total - start))
    wall, cpu = run(engine, total, size)
    say("drained", rate=total / wall, cpu=cpu / total)


def drain(stage: Stage, total: int) -> dict[str, float]:
    """Jobs per second, and seconds of this process's CPU per job, in a child process on a fresh database."""
    with stage.fresh(schema=False) as database, Child("bench.ceiling", database.url, total, BATCH) as child:
        return child.hear("drained", 600)


def measure(stage: Stage, record: Record) -> None:
    """Measure the ceiling alone."""
    drained = drain(stage, stage.count(100_000))
    record("bare loop, batch 500", drained["rate"], "jobs/s")
    record("bare loop, CPU of its process", 1e6 * drained["cpu"], "µs per job")


if __name__ == "__main__":
    main()
