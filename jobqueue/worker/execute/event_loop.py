"""Runs async handlers as asyncio tasks of one event loop, which has a thread of its own."""

import asyncio
import contextlib
import math
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from jobqueue import fork_guard
from jobqueue.errors import AttemptTimeout, JobCancelled
from jobqueue.records import Claim
from jobqueue.tasks import Task
from jobqueue.worker.execute.executor import Executor
from jobqueue.worker.handler import run
from jobqueue.worker.handler.context import Attempt, stack_of
from jobqueue.worker.handler.outcomes import interrupted, released
from jobqueue.worker.handler.run import EndForks
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import log, thread

ALIVE_INTERVAL = 0.25  # seconds between two timestamps that the loop sets
BLOCKED_AFTER = 1.0  # seconds without a timestamp after which the loop counts as blocked
_OURS = (__file__, run.__file__)
LEASE_POLL_INTERVAL = 0.1  # seconds between two checks whether the lease is good again


class AsyncRunner:
    """Runs the claims of async tasks. A cancel and a timeout cancel the asyncio task."""

    def __init__(
        self,
        inflight: InFlight,
        executor: Executor,
        finished: Callable[[], None],
        *,
        concurrency: int,
    ) -> None:
        self._inflight = inflight
        self._executor = executor
        self._finished = finished
        self._concurrency = concurrency
        self._loop: asyncio.AbstractEventLoop
        self._places = asyncio.Semaphore(concurrency)
        self._running: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        """Those of them whose handler has not started."""
        self._occupying: set[tuple[int, int]] = set()
        """(id, fence) of the claims that occupy a place."""
        self._closing = False
        self._forks = 0
        """The worker's. A process that a handler forks has a copy of the loop."""
        self._thread = thread(self._main, "jobqueue-loop")
        self._starting = threading.Lock()
        executor.handlers.complete = self.complete
        self.alive_at = math.inf
        """When the loop last ran a callback, by `time.monotonic()`."""
        self._reported = 0.0

    def submit(self, claim: Claim) -> None:
        """Run a claim soon; the first one starts the thread."""
        asynchronous = self._inflight.capacity.asynchronous
        asynchronous.enable(self._concurrency)
        self._start()
        asynchronous.open.add((claim.id, claim.fence))
        self._loop.call_soon_threadsafe(self._begin, claim)

    def complete(self, context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run the coroutine that a handler in a thread has returned; the thread waits for it."""
        self._start()
        done = asyncio.run_coroutine_threadsafe(self._complete(context, coroutine), self._loop)
        return done.result()

    async def run(self, claim: Claim) -> None:
        """Run a claim that was handed out on the loop that this is awaited on, without a thread."""
        self._loop, self._forks = asyncio.get_running_loop(), fork_guard.forks
        await self._begin(claim)

    async def run_rest(self, context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What `complete` does, on the loop that this is awaited on."""
        self._loop, self._forks = asyncio.get_running_loop(), fork_guard.forks
        return await self._complete(context, coroutine)

    def _start(self) -> None:
        with self._starting:
            if self._thread.ident is not None:
                return
            self._loop = asyncio.new_event_loop()
            try:
                self._thread.start()
            except RuntimeError:  # No thread can be started now.
                self._loop.close()
                raise

    async def _complete(self, context: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None, "this runs in one"
        self._running.add(task)
        context.interrupt_by(lambda: self._loop.call_soon_threadsafe(task.cancel))
        try:
            with EndForks(self._forks):
                return await self._await(context, coroutine)
        finally:
            self._running.discard(task)
            await context.aleave_transaction()

    async def _await(self, context: Attempt, awaitable: Awaitable[Any]) -> Any:
        """Await a handler for as long as it may run; raise what a cancellation of it stands for."""
        left = context.remaining()
        timer = None
        if left is not None:
            timer = self._loop.call_later(left, context.request_stop, AttemptTimeout)
        try:
            return await awaitable
        except asyncio.CancelledError as error:
            stands_for = meant(context, error)
            if stands_for is error:
                raise
            raise stands_for from None
        finally:
            if timer is not None:
                timer.cancel()

    def release_waiting(self) -> None:
        """Release the claims that wait for a place. The worker is stopping: no handler starts."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._release_waiting)

    def replace(self, context: Attempt) -> None:
        """Free the place of a handler that goes on although its claim was ended."""
        self._loop.call_soon_threadsafe(self._free_place, context.key)

    def close(self) -> None:
        """Stop the loop; cancel the handlers that still run, without waiting for their outcomes."""
        self._closing = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2 * BLOCKED_AFTER)

    def current(self) -> str:
        """Return what the loop runs at this moment: the name of a task, and the thread's stack."""
        task = asyncio.current_task(self._loop)
        name = "a callback" if task is None else task.get_name()
        return f"{name} at\n{stack_of(self._thread.ident or 0)}"

    def report_blocked(self) -> None:
        """Log what blocks the loop, once for each time: no other async job goes on meanwhile."""
        alive_at = self.alive_at
        silent = time.monotonic() - alive_at
        if silent > BLOCKED_AFTER and alive_at != self._reported:
            self._reported = alive_at
            log.warning("the event loop has been blocked for %.1f s by %s", silent, self.current())

    def _main(self) -> None:
        self._forks = fork_guard.forks
        asyncio.set_event_loop(self._loop)
        self._mark_alive()
        try:
            while not self._closing:
                try:
                    self._loop.run_forever()
                except (SystemExit, KeyboardInterrupt):  # From a task that a handler made.
                    log.exception("a task raised SystemExit in the event loop; ignored")
        finally:
            with contextlib.suppress(Exception):
                self._loop.run_until_complete(asyncio.wait_for(self._shutdown(), BLOCKED_AFTER))
            self._loop.close()

    async def _shutdown(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def _mark_alive(self) -> None:
        self.alive_at = time.monotonic()
        self._loop.call_later(ALIVE_INTERVAL, self._mark_alive)

    def _begin(self, claim: Claim) -> "asyncio.Task[None]":
        task = self._loop.create_task(
            self._run(claim),
            name=f"job {claim.id} ({claim.task})",
            context=self._executor.program_context.copy(),
        )
        self._running.add(task)
        self._waiting.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(self._waiting.discard)
        return task

    def _release_waiting(self) -> None:
        for task in self._waiting:
            # Not at once: a task that is cancelled before its first step would release nothing.
            self._loop.call_soon(task.cancel)

    def _free_place(self, key: tuple[int, int]) -> None:
        if key in self._occupying:  # Otherwise it has ended meanwhile.
            self._occupying.discard(key)
            self._places.release()

    async def _run(self, claim: Claim) -> None:
        inflight = self._inflight
        try:
            await self._in_turn(claim)
        except asyncio.CancelledError:  # The loop stops; run.py handles a cancelled handler.
            if inflight.is_held(claim):
                begun = inflight.drop((claim.id, claim.fence))
                inflight.outbox.put(interrupted(claim) if begun else released(claim))
        except BaseException as error:  # noqa: BLE001 - recorded with the outcome.
            self._executor.not_run(claim, error)
        finally:
            inflight.capacity.free_slot((claim.id, claim.fence))
            self._finished()

    async def _in_turn(self, claim: Claim) -> None:
        """Wait for a place, and then for a good lease."""
        key = (claim.id, claim.fence)
        await self._places.acquire()
        self._occupying.add(key)
        try:
            while (task := self._executor.may_start(claim)) is None:  # noqa: ASYNC110
                # The heartbeat that decides comes from another thread.
                await asyncio.sleep(LEASE_POLL_INTERVAL)
            await self._work(task, claim)
        finally:
            self._free_place(key)

    async def _work(self, task: Task[..., Any], claim: Claim) -> None:
        with EndForks(self._forks):  # If a handler forks and awaits, its child runs the loop.
            context, args, kwargs = self._executor.prepare(task, claim)
        coroutine = asyncio.current_task()
        assert coroutine is not None, "this runs in one"
        self._waiting.discard(coroutine)
        context.be_coroutine(
            lambda: self._loop.call_soon_threadsafe(coroutine.cancel),
            lambda: "".join(traceback.StackSummary.from_list(_frames(coroutine)).format()),
        )
        self._inflight.begin(context)
        handlers = self._executor.handlers
        self._inflight.end(context, await handlers.run_async(context, args, kwargs, self._await))


def meant(context: Attempt, error: BaseException) -> BaseException:
    """Return the error that a cancellation stands for, if the worker requested it."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    if context.stop_reason is JobCancelled:
        return JobCancelled(f"job {context.claim.id} was cancelled")
    if context.stop_reason is AttemptTimeout:
        return AttemptTimeout(f"job {context.claim.id} ran out of its {context.allowed()}")
    return error


def _frames(coroutine: "asyncio.Task[None]") -> list[Any]:
    """Return the frames in which the handler awaits, without those of this package."""
    frames: list[Any] = []
    awaited: Any = coroutine.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if frame is not None and frame.f_code.co_filename not in _OURS:
            frames += traceback.extract_stack(frame, limit=1)
        awaited = getattr(awaited, "cr_await", None)
    return frames
