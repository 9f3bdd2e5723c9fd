"""One peer in a process of its own: enqueues, says `filled`, waits for a line, drains.

    python -m bench.peer huey|procrastinate|pgqueuer|celery|rq URL JOBS

For celery and rq a folder stands in place of the URL.

The rate is from the first handler's begin to the moment when the last outcome was stored. Runs in the peer's environment, not in ours.
"""

import asyncio
import json
import sys
import time

from bench import redis_peers
from bench.children import end_with_parent, say


def filled() -> None:
    """Everything is enqueued; wait for the sign to begin."""
    say("filled")
    sys.stdin.readline()
    end_with_parent()


def huey(url: str, total: int) -> tuple[float, str]:
    from huey import SqliteHuey
    from huey.signals import SIGNAL_COMPLETE

    queue = SqliteHuey(filename=url.removeprefix("sqlite:///"), fsync=True)
    began: list[float] = []
    ended: list[float] = []

    @queue.task()
    def add(x: int, y: int) -> int:
        if not began:
            began.append(time.perf_counter())
        return x + y

    @queue.signal(SIGNAL_COMPLETE)  # After the result was stored.
    def complete(*_: object) -> None:
        ended.append(time.perf_counter())

    for number in range(total):
        add(number, 2)
    filled()
    consumer = queue.create_consumer(workers=4, periodic=False, initial_delay=0.001, max_delay=0.01)
    consumer.start()
    while len(ended) < total:
        time.sleep(0.01)
    seconds = ended[-1] - began[0]
    consumer.stop(graceful=True)
    return seconds, "fsync, 4 threads"


def procrastinate(url: str, total: int) -> tuple[float, str]:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=url, min_size=4, max_size=10))
    began: list[float] = []

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        if not began:
            began.append(time.perf_counter())
        return x + y

    async def run() -> float:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            for start in range(0, total, 1000):
                await add.batch_defer_async(
                    *({"x": number, "y": 2} for number in range(start, min(total, start + 1000)))
                )
            filled()
            await app.run_worker_async(
                wait=False, concurrency=10, listen_notify=False, install_signal_handlers=False
            )
            ended = time.perf_counter()
            async with app.connector.pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
                )
                assert (await cursor.fetchone())[0] == total
            return ended - began[0]

    return asyncio.run(run()), "async tasks, concurrency 10"


def pgqueuer(url: str, total: int) -> tuple[float, str]:
    import asyncpg
    from pgqueuer import AsyncpgDriver, PgQueuer
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    began: list[float] = []

    async def run() -> float:
        connection = await asyncpg.connect(url)
        driver = AsyncpgDriver(connection)
        queries = Queries(driver)
        await queries.install()
        for start in range(0, total, 1000):
            size = min(1000, total - start)
            payloads = [json.dumps([number, 2]).encode() for number in range(start, start + size)]
            await queries.enqueue(["add"] * size, payloads, [0] * size)
        queue = PgQueuer(driver)

        @queue.entrypoint("add")
        async def add(job: object) -> None:
            if not began:
                began.append(time.perf_counter())
            sum(json.loads(job.payload))

        filled()
        await queue.qm.run(batch_size=500, mode=QueueExecutionMode.drain)
        return time.perf_counter() - began[0]

    return asyncio.run(run()), "async tasks, batch 500"


if __name__ == "__main__":
    peer, where, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if peer in ("celery", "rq"):
        seconds, settings = getattr(redis_peers, peer)(where, jobs, filled)
    else:
        peers = {"huey": huey, "procrastinate": procrastinate, "pgqueuer": pgqueuer}
        seconds, settings = peers[peer](where, jobs)
    say("drained", rate=jobs / seconds, settings=settings)
