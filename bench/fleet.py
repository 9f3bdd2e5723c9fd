"""What a fleet costs while it has nothing to do: transactions, rows read and the server's CPU, per second. Postgres only.

    python -m bench.fleet URL COUNT     so many workers in one process; it says `ready`, and stops at the end of its input

Real workers are embedded, ten in a process, with their default settings. Of a fleet of 1,000 all but ten are rows: their leases
beat, and whatever a real one does about the others it does about them; what the beats cost is measured before, and taken off.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench.app import app
from bench.children import Child, say
from bench.ground import Database
from bench.stage import Record, Stage
from jobqueue.store.leases import WORKER_ID_MAX

IN_A_PROCESS = 10
SIMULATED = 1000
BEATS_EVERY = 10  # seconds: a third of a lease
HOSTS = 20
SETTLE = 12.0  # seconds until all have begun, and have beaten once


class Cost(NamedTuple):
    """Per second."""

    transactions: float
    rows: float
    cpu: float  # seconds


def measure(stage: Stage, record: Record) -> None:
    """Fleets of 1, 10 and 100 real workers, and of ten among a thousand."""
    if stage.kind != "postgres":
        return
    seconds = 10.0 if stage.quick else 30.0
    for count in (1, 10) if stage.quick else (1, 10, 100):
        with stage.fresh() as database, fleet(database, count):
            tell(record, f"{count} real", cost(database, seconds), count)
    with stage.fresh() as database, beating(database, SIMULATED - IN_A_PROCESS):
        time.sleep(2)
        beats = cost(database, seconds)
        with fleet(database, IN_A_PROCESS):
            both = cost(database, seconds)
        own = Cost(*(with_ - without for with_, without in zip(both, beats, strict=True)))
        tell(record, f"{IN_A_PROCESS} real of {SIMULATED:,}", own, IN_A_PROCESS)


def tell(record: Record, fleet: str, cost: Cost, count: int) -> None:
    """Figures of one fleet, for each worker."""
    record(f"{fleet}: transactions of a worker", cost.transactions / count, "1/s")
    record(f"{fleet}: rows that a worker reads", cost.rows / count, "1/s")
    record(f"{fleet}: the server's CPU for a worker", 1e3 * cost.cpu / count, "ms/s")


@contextmanager
def fleet(database: Database, count: int) -> Iterator[None]:
    """So many real workers, settled."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                Child("bench.fleet", database.url, min(IN_A_PROCESS, count - begun))
            )
            for begun in range(0, count, IN_A_PROCESS)
        ]
        for child in children:
            child.hear("ready", 300)
        time.sleep(SETTLE)
        yield


@contextmanager
def beating(database: Database, count: int) -> Iterator[None]:
    """Leases that beat every ten seconds, spread over twenty hosts."""
    ended = threading.Event()
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO jobqueue_workers"
            " (id, name, host, pid, boot_id, pid_namespace, tasks, concurrency, lease)"
            f" SELECT floor(random() * {WORKER_ID_MAX}), 'w' || n, 'h' || n % {HOSTS}, n, 'boot' || n % {HOSTS}, 'ns', '[]', 4, 30"
            f" FROM generate_series(1, {count}) AS n"
        )
        connection.execute("ANALYZE jobqueue_workers")

        def beat() -> None:
            tick = 0
            while not ended.wait(0.1):
                tick += 1
                connection.execute(
                    "UPDATE jobqueue_workers SET heartbeats = heartbeats + 1, heartbeat_at = clock_timestamp()"
                    f" WHERE name LIKE 'w%' AND id % {10 * BEATS_EVERY} = {tick % (10 * BEATS_EVERY)}"
                )

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


COUNTS = """
SELECT (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()),
  (SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables), pg_backend_pid()
"""


def cost(database: Database, seconds: float) -> Cost:
    """What is done in the database in so many seconds."""
    with psycopg.connect(database.url, autocommit=True) as connection:

        def look() -> tuple[int, int, float, float]:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            [(transactions, rows, pid)] = connection.execute(COUNTS)
            return transactions, int(rows), server_cpu(pid), time.monotonic()

        own = 2  # transactions from the first look to the last
        before = look()
        time.sleep(seconds)
        after = look()
    passed = after[3] - before[3]
    return Cost(
        (after[0] - before[0] - own) / passed,
        (after[1] - before[1]) / passed,
        (after[2] - before[2]) / passed,
    )


def server_cpu(backend: int) -> float:
    """Seconds that the server's processes have worked, those that have ended included."""

    def fields(pid: int | str) -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

    server = int(fields(backend)[1])
    ticks = sum(map(int, fields(server)[11:15]))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                its = fields(entry.name)
            except OSError:
                continue
            if int(its[1]) == server:
                ticks += int(its[11]) + int(its[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    queues = [app(sys.argv[1])[0] for _ in range(int(sys.argv[2]))]
    workers = [queue.worker(name=f"{os.getpid()}-{n}") for n, queue in enumerate(queues)]
    for worker in workers:
        worker.start()
    say("ready")
    sys.stdin.read()
    last = threading.Timer(15, os._exit, [1])
    last.daemon = True
    last.start()
    for worker in workers:
        worker.stop(1)
    os._exit(0)


if __name__ == "__main__":
    main()
