"""Runs queries in threads, caches shared ones, and polls for jobs that requests wait for."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, ParamSpec, TypeVar

import anyio
from anyio import to_thread

from jobqueue.polling import PollInterval
from jobqueue.web.responses import RETRY_AFTER, HTTPError, log

P = ParamSpec("P")
T = TypeVar("T")

KEEP = 1.0
"""Seconds for which a CachedCall keeps its result."""
THREAD_WAIT_MAX = 15.0
"""Seconds that a request waits for a free thread, before it is refused with nothing done."""


class Threads:
    """A few threads. Requests queue for them, each for a limited time.

    `first` is called before each work, in its thread, and may refuse it.
    """

    def __init__(self, most: int, first: Callable[[], None]) -> None:
        self._first = first
        self._free = anyio.Semaphore(most)
        self._limiter = anyio.CapacityLimiter(most)

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread. Once started it is awaited to its end. Raises HTTPError 503."""
        try:
            with anyio.fail_after(THREAD_WAIT_MAX):
                await self._free.acquire()
        except TimeoutError:
            raise HTTPError(
                503,
                "the database is slow, and too many wait for it; nothing was done",
                headers={"Retry-After": str(RETRY_AFTER)},
            ) from None

        def run() -> T:
            self._first()
            return work(*args, **kwargs)

        try:
            return await to_thread.run_sync(run, limiter=self._limiter)
        finally:
            self._free.release()


class Pools(NamedTuple):
    """Threads by what they do, so that a slow list or bulk verb does not delay an enqueue."""

    reads: Threads
    writes: Threads
    """For what is done in one short transaction."""
    bulk: Threads
    """For what changes or counts any number of jobs, which may take minutes."""


class CachedCall(Generic[T]):
    """A call whose result is kept for a second; requests meanwhile share one call."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._limiter = anyio.CapacityLimiter(1)
        self._task: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self, within: float) -> T:
        """Return the answer. Raises TimeoutError if there is none within `within` seconds."""
        task = self._task
        if task is None or (task.done() and time.monotonic() >= self._until):
            task = self._task = asyncio.ensure_future(self._run())
            # Retrieve its exception: after a timeout no request does, and asyncio would log it.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.wait_for(asyncio.shield(task), within)

    async def _run(self) -> T:
        try:
            return await to_thread.run_sync(self._ask, limiter=self._limiter)
        finally:
            self._until = time.monotonic() + KEEP


FIRST_POLL = 0.01  # seconds
POLL_AFTER_ERROR = 0.5


class JobWaiter:
    """Polls for the end of all jobs that requests wait for, with one query."""

    def __init__(self, threads: Threads, ended: Callable[[list[int]], Iterable[int]]) -> None:
        self._threads = threads
        self._ended = ended
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._interval = PollInterval(FIRST_POLL)
        self._released = False

    def wait_for(self, id_: int) -> asyncio.Future[None]:
        """Return a future that is done when the job has ended, or when `release` is called."""
        future = asyncio.get_running_loop().create_future()
        if self._released:
            future.set_result(None)
            return future
        self._waiting.setdefault(id_, set()).add(future)
        self._interval = PollInterval(FIRST_POLL)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._watch())
        return future

    def stop_waiting(self, id_: int, future: asyncio.Future[None]) -> None:
        """Drop a future of `wait_for`."""
        same = self._waiting.get(id_, set())
        same.discard(future)
        if not same:
            self._waiting.pop(id_, None)

    def release(self) -> None:
        """Finish all futures, those of later calls too: the server stops."""
        self._released = True
        self._wake(list(self._waiting))

    def _wake(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            for future in self._waiting.pop(id_, ()):
                if not future.done():
                    future.set_result(None)

    async def _watch(self) -> None:
        while self._waiting:
            began = time.monotonic()
            try:
                self._wake(await self._threads(self._ended, list(self._waiting)))
            except Exception as error:  # noqa: BLE001 - each request has its own time limit.
                log.warning("jobs that are waited for: %s", type(error).__name__)
                await asyncio.sleep(POLL_AFTER_ERROR)
            await asyncio.sleep(self._interval.next(time.monotonic() - began))
