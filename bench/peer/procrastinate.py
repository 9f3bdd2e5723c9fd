"""procrastinate on Postgres: async tasks, enqueued through its synchronous connector."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from bench.children import end_with_parent
from bench.peer import roles

SETTINGS = {
    "drain": "async tasks, concurrency 10",
    "bulk": "batches of 1,000",
    "pickup": "async tasks, concurrency 10, LISTEN",
}

began: list[float] = []
ended: list[float] = []


def _app(connector: Any) -> tuple[App, Any]:
    app = App(connector=connector)

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        if not began:
            began.append(time.perf_counter())
        roles.entered(x)
        return x + y

    return app, add


def _fill(add: Any, total: int) -> None:
    for numbers in roles.batches(total, 1000):  # 10,000 is no faster.
        add.batch_defer(*({"x": number, "y": 2} for number in numbers))


@contextmanager
def _producer(url: str) -> Iterator[Any]:
    """The task, to be deferred through the synchronous connector, which is twice as fast at it."""
    app, add = _app(SyncPsycopgConnector(conninfo=url))
    with app.open():
        yield add


def _install(url: str) -> None:
    app, _ = _app(SyncPsycopgConnector(conninfo=url))
    with app.open():
        app.schema_manager.apply_schema()


def _run_worker(url: str, **settings: Any) -> None:
    app, _ = _app(PsycopgConnector(conninfo=url, min_size=4, max_size=10))

    async def run() -> None:
        async with app.open_async():
            await app.run_worker_async(concurrency=10, install_signal_handlers=False, **settings)
            ended.append(time.perf_counter())

    asyncio.run(run())


def drain(url: str, total: int) -> float:
    _install(url)
    with _producer(url) as add:
        _fill(add, total)
    roles.filled()
    _run_worker(url, wait=False, listen_notify=False)
    with psycopg.connect(url) as connection:
        cursor = connection.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
        )
        assert cursor.fetchone()[0] == total
    return ended[0] - began[0]


def bulk(url: str, total: int) -> float:
    end_with_parent()
    _install(url)
    with _producer(url) as add:
        _fill(add, 1)
        start = time.perf_counter()
        _fill(add, total)
        return time.perf_counter() - start


def single(url: str, total: int) -> float:
    _install(url)
    with _producer(url) as add:
        return roles.one_by_one(lambda number: add.defer(x=number, y=2), total)


def work(url: str) -> None:
    _install(url)
    roles.ready()
    _run_worker(url)


def produce(url: str, total: int) -> None:
    with _producer(url) as add:
        roles.produce(lambda number: add.defer(x=number, y=2), total)
