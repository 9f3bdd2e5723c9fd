"""pgqueuer on Postgres, through asyncpg and, as its own command does, on uvloop."""

import json
import time

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from bench.children import end_with_parent
from bench.peer import roles

SETTINGS = {
    "drain": "async tasks, batches of 500",
    "bulk": "batches of 1,000",
    "pickup": "async tasks, LISTEN",
}

began: list[float] = []


async def _open(url: str, *, install: bool = True) -> Queries:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    if install:
        await queries.install()
    return queries


def _app(queries: Queries) -> PgQueuer:
    queue = PgQueuer(queries.driver)

    @queue.entrypoint("add")
    async def add(job: object) -> None:
        if not began:
            began.append(time.perf_counter())
        x, y = json.loads(job.payload)
        roles.entered(x)
        assert x + y

    return queue


async def _fill(queries: Queries, total: int) -> None:
    for numbers in roles.batches(total, 1000):
        payloads = [json.dumps([number, 2]).encode() for number in numbers]
        await queries.enqueue(["add"] * len(numbers), payloads, [0] * len(numbers))


def drain(url: str, total: int) -> float:
    async def run() -> float:
        queries = await _open(url)
        await _fill(queries, total)
        queue = _app(queries)
        roles.filled()
        await queue.qm.run(batch_size=500, mode=QueueExecutionMode.drain)
        return time.perf_counter() - began[0]

    return uvloop.run(run())


def bulk(url: str, total: int) -> float:
    end_with_parent()

    async def run() -> float:
        queries = await _open(url)
        await _fill(queries, 1)
        start = time.perf_counter()
        await _fill(queries, total)
        return time.perf_counter() - start

    return uvloop.run(run())


def single(url: str, total: int) -> float:
    async def run() -> float:
        queries = await _open(url)
        return await roles.one_by_one_async(
            lambda number: queries.enqueue("add", json.dumps([number, 2]).encode()), total
        )

    return uvloop.run(run())


def work(url: str) -> None:
    async def run() -> None:
        queries = await _open(url)
        queue = _app(queries)
        roles.ready()
        await queue.qm.run()

    uvloop.run(run())


def produce(url: str, total: int) -> None:
    async def run() -> None:
        queries = await _open(url, install=False)
        await roles.produce_async(
            lambda number: queries.enqueue("add", json.dumps([number, 2]).encode()), total
        )

    uvloop.run(run())
