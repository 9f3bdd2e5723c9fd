"""The slots: threads that run handlers. Their number may change; a stuck one is replaced."""

import threading
import time

from jobqueue.loggers import get_logger
from jobqueue.worker import log_context
from jobqueue.worker.execute.executor import Executor
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.signal_safe_event import SignalSafeEvent

log = get_logger("jobqueue.worker")


class ThreadPool:
    """The slots of one worker. May be used from any thread."""

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
        """Those that may still run a handler whose outcome counts."""
        with self._lock:
            return [slot for slot in self._threads if slot.is_alive()]

    @property
    def stuck(self) -> int:
        """Threads that were given up and have not ended yet."""
        with self._lock:
            self._stuck = [slot for slot in self._stuck if slot.is_alive()]
            return len(self._stuck)

    def resize(self, count: int) -> None:
        """Open slots, or close some that are idle, or become so: no handler is interrupted."""
        with self._lock:
            if self._closed:
                return
            present = self._inflight.capacity.threads
            self._inflight.capacity.resize(count)
            self._threads = [slot for slot in self._threads if slot.is_alive()]
            if not self._threads:
                present = self._missing = 0
            for _ in range(count - present):
                self._start_thread()
            for _ in range(present - count):
                if self._missing:
                    self._missing -= 1
                else:
                    self._inflight.inbox.put(None)  # Whoever takes it ends.

    def restore_missing(self) -> None:
        """Open the slots that no thread could be started for."""
        with self._lock:
            missing, self._missing = self._missing, 0
            for _ in range(0 if self._closed else missing):
                self._start_thread()

    def replace(self, thread: int) -> None:
        """Open another slot for the thread of that id, whose claim was given up.

        It ends by itself once its handler has: see `InFlight.end`.
        """
        with self._lock:
            given_up = [slot for slot in self._threads if slot.ident == thread]
            # An id is used again: the one that lives is meant, if there is one.
            given_up.sort(key=threading.Thread.is_alive)
            if not given_up or self._closed:
                return
            self._threads.remove(given_up[-1])
            self._stuck.append(given_up[-1])
            self._start_thread()

    def close(self) -> None:
        """Let every slot end when it is idle."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._inflight.inbox.put(None)

    def join(self, until: float, aborted: SignalSafeEvent) -> bool:
        """Wait for their ends, after `close()`; False if that takes too long, or was aborted."""
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
        except RuntimeError as error:  # The system has no thread to give, now.
            if not self._warned:
                log.warning("%s for a slot: trying again until it can be opened", error)
            self._warned = True
            self._missing += 1
            return
        self._warned = False
        self._threads.append(slot)
