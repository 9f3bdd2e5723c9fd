"""Tasks that look at context variables, for a thread, the event loop and a child process; the program sets some as it is imported."""

import asyncio
import contextvars
import decimal
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobqueue import JobQueue, current_job

jobs = JobQueue(os.environ["CONTEXTS_URL"])
TENANT = contextvars.ContextVar("tenant", default="nobody")
OF_PROGRAM = contextvars.ContextVar("of_program", default="nothing")

OF_PROGRAM.set("set by the program")
decimal.setcontext(decimal.Context(prec=7))
SEEN: list[str] = []
"""By the middleware, in the worker."""


@jobs.use
def middleware(_context: Any, run: Any) -> Any:
    SEEN.append(TENANT.get())
    return run()


def look_and_set() -> list[str]:
    seen = [TENANT.get(), OF_PROGRAM.get(), str(decimal.Decimal(1) / 3)]
    TENANT.set("alice")
    OF_PROGRAM.set("set by a job")
    decimal.getcontext().prec = 3
    return [*seen, str(decimal.Decimal(1) / 3)]


@jobs.task
def in_a_thread() -> list[str]:
    return look_and_set()


@jobs.task(isolation="process")
def in_a_child() -> list[str]:
    return look_and_set()


@jobs.task
async def on_the_loop() -> list[str]:
    return look_and_set()


@jobs.task(isolation="process")
async def on_the_loop_of_a_child() -> list[str]:
    return look_and_set()


async def _family() -> list[int]:
    async def child() -> int:
        return current_job().id

    async with asyncio.TaskGroup() as group:
        task = group.create_task(child())
    copied = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        by_copy = pool.submit(copied.run, lambda: current_job().id).result()
    return [task.result(), await asyncio.to_thread(lambda: current_job().id), by_copy]


@jobs.task(max_attempts=1)
async def family() -> list[int]:
    return await _family()


@jobs.task(max_attempts=1, isolation="process")
async def family_of_a_child() -> list[int]:
    return await _family()
