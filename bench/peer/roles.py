"""What the peers' programs have in common: how they talk with the bench, and the loops that are the same for all.

A pickup is the time from the call of enqueue in one process to the first line of the handler in another. Each job carries its number, and both
sides note the moment of each number by CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import NoReturn

from bench.children import end_with_parent, say

WARM_UP = 100
"""Single enqueues before the clock starts."""


def filled() -> None:
    """Everything is enqueued; wait for the sign to begin."""
    say("filled")
    sys.stdin.readline()
    end_with_parent()


def batches(total: int, size: int) -> Iterator[range]:
    """The numbers of the jobs, a batch at a time."""
    for start in range(0, total, size):
        yield range(start, min(total, start + size))


# One by one


def one_by_one(enqueue: Callable[[int], object], total: int) -> float:
    """Seconds for that many calls."""
    end_with_parent()
    for number in range(WARM_UP):
        enqueue(number)
    began = time.perf_counter()
    for number in range(total):
        enqueue(number)
    return time.perf_counter() - began


async def one_by_one_async(enqueue: Callable[[int], Awaitable[object]], total: int) -> float:
    """The same for a coroutine, of which one at a time is awaited."""
    end_with_parent()
    for number in range(WARM_UP):
        await enqueue(number)
    began = time.perf_counter()
    for number in range(total):
        await enqueue(number)
    return time.perf_counter() - began


# Pickup: the producer's side


def _pauses(total: int) -> Iterator[float]:
    """Seconds before each job: 40 to 60 ms, so that they meet no rhythm of the worker's. The worker gets some time to become idle first."""
    end_with_parent()
    random.seed(1)
    yield 1.0
    for _ in range(total - 1):
        yield random.uniform(0.040, 0.060)


def produce(enqueue: Callable[[int], object], total: int) -> None:
    """Enqueue one job after each pause, and tell the moments of the calls."""
    called = []
    for number, pause in enumerate(_pauses(total)):
        time.sleep(pause)
        called.append((number, time.monotonic_ns()))
        enqueue(number)
    say("called", moments=called)


async def produce_async(enqueue: Callable[[int], Awaitable[object]], total: int) -> None:
    """The same for a coroutine."""
    called = []
    for number, pause in enumerate(_pauses(total)):
        await asyncio.sleep(pause)
        called.append((number, time.monotonic_ns()))
        await enqueue(number)
    say("called", moments=called)


# Pickup: the worker's side

_entered: list[tuple[int, int]] = []


def entered(number: int) -> None:
    """The first line of the handler."""
    _entered.append((number, time.monotonic_ns()))


def ready() -> None:
    """The worker is about to run: from now on tell the moments when asked, and end with the standard input."""

    def answer() -> NoReturn:
        unread = b""
        while chunk := os.read(0, 1024):  # Not sys.stdin, whose lock the interpreter wants.
            *words, unread = (unread + chunk).split(b"\n")
            for _ in words:
                say("moments", moments=_entered)
        os._exit(0)

    threading.Thread(target=answer, daemon=True).start()
    say("ready")
