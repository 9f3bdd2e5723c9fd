"""Work for threads: the database is asked there, so that no answer waits for another's."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, ParamSpec, TypeVar

import anyio
from anyio import to_thread

from jobqueue.polling import PollInterval
from jobqueue.web.responses import RETRY_AFTER, HTTPError, log

P = ParamSpec("P")
T = TypeVar("T")

THREAD_WAIT_MAX = 15.0
"""Seconds that a request waits for a thread; it has not begun by then, so it is refused."""


class Threads:
    """A few threads, and a queue of requests for them that is bounded in time."""

    def __init__(self, most: int) -> None:
        self._free = anyio.Semaphore(most)
        self._limiter = anyio.CapacityLimiter(most)

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the work in a thread. What has begun is not given up, so its outcome is known."""
        try:
            with anyio.fail_after(THREAD_WAIT_MAX):
                await self._free.acquire()
        except TimeoutError:
            raise HTTPError(
                503,
                "the database is slow, and too many wait for it; nothing was done",
                headers={"Retry-After": str(RETRY_AFTER)},
            ) from None
        try:
            return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)
        finally:
            self._free.release()


class CachedCall(Generic[T]):
    """An answer that all who ask within a second share; one thread at most looks for it."""

    def __init__(self, ask: Callable[[], T], keep: float = 1.0) -> None:
        self._ask = ask
        self._keep = keep
        self._limiter = anyio.CapacityLimiter(1)
        self._task: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self, within: float) -> T:
        """Return the answer. Raises TimeoutError if there is none within `within` seconds."""
        task = self._task
        if task is None or (task.done() and time.monotonic() >= self._until):
            task = self._task = asyncio.ensure_future(self._run())
            # Perhaps nobody is there any more to be told; asyncio would log a traceback.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.wait_for(asyncio.shield(task), within)

    async def _run(self) -> T:
        try:
            return await to_thread.run_sync(self._ask, limiter=self._limiter)
        finally:
            self._until = time.monotonic() + self._keep


FIRST_POLL = 0.01  # seconds
POLL_AFTER_ERROR = 0.5


class JobWaiter:
    """Looks for the end of all jobs that somebody waits for, with one question for all."""

    def __init__(self, threads: Threads, ended: Callable[[list[int]], Iterable[int]]) -> None:
        self._threads = threads
        self._ended = ended
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._interval = PollInterval(FIRST_POLL)
        self._released = False

    def wait_for(self, id_: int) -> asyncio.Future[None]:
        """A future that is done when the job has ended, or nobody shall wait any longer."""
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
        """Nobody waits for this future any more."""
        same = self._waiting.get(id_, set())
        same.discard(future)
        if not same:
            self._waiting.pop(id_, None)

    def release(self) -> None:
        """Let all go that wait, now and from now on."""
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
            except Exception as error:  # noqa: BLE001 - those who wait have a limit of their own.
                log.warning("jobs that are waited for: %s", type(error).__name__)
                await asyncio.sleep(POLL_AFTER_ERROR)
            await asyncio.sleep(self._interval.next(time.monotonic() - began))
