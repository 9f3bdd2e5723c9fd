"""The slots: threads that run handlers. Their number may change; a stuck one is replaced."""

import logging
import threading

from jobqueue.worker.executor import Executor
from jobqueue.worker.inflight import InFlight

log = logging.getLogger("jobqueue.worker")


class Slot:
    """One thread around an executor."""

    def __init__(self, executor: Executor, number: int) -> None:
        self.retired = threading.Event()
        """Set: the thread ends as soon as its handler has; it fills no slot any longer."""
        self.thread = threading.Thread(
            target=executor.loop,
            args=(self.retired,),
            name=f"jobqueue-slot-{number}",
            daemon=True,
        )


class Slots:
    """The slots of one worker. May be used from any thread."""

    def __init__(self, executor: Executor, inflight: InFlight) -> None:
        self._executor = executor
        self._inflight = inflight
        self._slots: list[Slot] = []
        self._stuck: list[Slot] = []
        self._number = 0
        self._lock = threading.Lock()
        self._closed = False

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that may still run a handler whose outcome counts."""
        with self._lock:
            return [slot.thread for slot in self._slots if slot.thread.is_alive()]

    @property
    def stuck(self) -> int:
        """Threads that were given up and have not ended yet."""
        with self._lock:
            self._stuck = [slot for slot in self._stuck if slot.thread.is_alive()]
            return len(self._stuck)

    def resize(self, count: int) -> None:
        """Open slots, or close some that are idle, or become so: no handler is interrupted."""
        with self._lock:
            if self._closed:
                return
            present = self._inflight.concurrency
            self._inflight.concurrency = count
            self._slots = [slot for slot in self._slots if slot.thread.is_alive()]
            if not self._slots:
                present = 0
            for _ in range(count - present):
                self._open()
            for _ in range(present - count):
                self._inflight.inbox.put(None)  # Whoever takes it ends.

    def replace(self, thread: int) -> None:
        """The handler in the thread of that id does not end: give it up, and open another slot."""
        with self._lock:
            slot = next((slot for slot in self._slots if slot.thread.ident == thread), None)
            if slot is None or self._closed:
                return
            slot.retired.set()
            self._slots.remove(slot)
            self._stuck.append(slot)
            self._open()

    def close(self) -> None:
        """Let every slot end when it is idle."""
        with self._lock:
            self._closed = True
            for _ in self._slots:
                self._inflight.inbox.put(None)

    def _open(self) -> None:
        slot = Slot(self._executor, self._number)
        self._number += 1
        self._slots.append(slot)
        slot.thread.start()
