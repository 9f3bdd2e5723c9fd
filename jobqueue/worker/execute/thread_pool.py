"""The threads that run handlers. Their number may change; a stuck one is replaced."""

import threading
import time

from jobqueue.worker import log_context
from jobqueue.worker.execute.executor import Executor
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import log
from jobqueue.worker.signal_safe_event import SignalSafeEvent


class ThreadPool:
    """The handler threads of one worker. May be used from any thread."""

    def __init__(self, executor: Executor, inflight: InFlight) -> None:
        self._executor = executor
        self._inflight = inflight
        self._threads: list[threading.Thread] = []
        self._stuck: list[threading.Thread] = []
        self._missing = 0
        self._warned = False
        self._number = 0
        self._lock = threading.Lock()
        self._closed = False

    @property
    def threads(self) -> list[threading.Thread]:
        """The live threads, without those that are stuck."""
        with self._lock:
            return [slot for slot in self._threads if slot.is_alive()]

    @property
    def stuck(self) -> int:
        """The number of threads that were replaced and still run their handler."""
        with self._lock:
            self._stuck = [slot for slot in self._stuck if slot.is_alive()]
            return len(self._stuck)

    def resize(self, count: int) -> None:
        """Start threads, or let some end when they are idle; no handler is interrupted."""
        with self._lock:
            if self._closed:
                return
            present = self._inflight.capacity.threads
            self._inflight.capacity.threads = count
            self._threads = [slot for slot in self._threads if slot.is_alive()]
            if not self._threads:
                present = self._missing = 0
            for _ in range(count - present):
                self._start_thread()
            for _ in range(present - count):
                if self._missing:
                    self._missing -= 1
                else:
                    self._inflight.inbox.put(None)  # The thread that takes it ends.

    def restore_missing(self) -> None:
        """Start the threads that could not be started before."""
        with self._lock:
            missing, self._missing = self._missing, 0
            for _ in range(0 if self._closed else missing):
                self._start_thread()

    def replace(self, thread: int) -> None:
        """Start another thread in place of the one with that id, whose claim was ended.

        It ends by itself once its handler has: see `InFlight.end`.
        """
        with self._lock:
            given_up = [slot for slot in self._threads if slot.ident == thread]
            # Ids are reused: a live thread is preferred.
            given_up.sort(key=threading.Thread.is_alive)
            if not given_up or self._closed:
                return
            self._threads.remove(given_up[-1])
            self._stuck.append(given_up[-1])
            self._start_thread()

    def close(self) -> None:
        """Let every thread end when it is idle."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._inflight.inbox.put(None)

    def join(self, until: float, aborted: SignalSafeEvent) -> bool:
        """Wait for the threads to end, after `close()`; False after `until`, or if aborted."""
        for thread in self.threads:
            while thread.is_alive() and thread in self.threads:
                thread.join(max(0.0, min(0.05, until - time.monotonic())))
                if thread.is_alive() and (time.monotonic() >= until or aborted.is_set()):
                    return False
        return True

    def _start_thread(self) -> None:
        slot = log_context.thread(self._executor.loop, f"jobqueue-slot-{self._number}")
        self._number += 1
        try:
            slot.start()
        except RuntimeError as error:  # No thread can be started now.
            if not self._warned:
                log.warning("%s for a slot: trying again until it can be opened", error)
            self._warned = True
            self._missing += 1
            return
        self._warned = False
        self._threads.append(slot)
