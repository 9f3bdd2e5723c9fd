"""Reads the database in a thread of its own, so that the screen never waits for it."""

import threading
import time
from collections.abc import Callable

from jobqueue.cli.commands.top.views import Picture, View

COST_MAX = 0.05
"""The part of the time for which it may read: a slow database is read less often."""
PAUSE_MAX = 30.0
"""Seconds after which it reads again, however long the last answer took."""
END_WAIT = 0.5
"""Seconds to wait at the end for what is being read."""


class Poller(threading.Thread):
    """Polls the view on the screen until `end()`.

    `deliver` gets what was read of a view, or the error; it is called in this thread.
    """

    def __init__(
        self,
        read: Callable[[View], Picture],
        deliver: Callable[[View, Picture | Exception], object],
        interval: float,
    ) -> None:
        # A daemon: the process may end while the database does not answer.
        super().__init__(name="jobqueue-top", daemon=True)
        self._read, self._deliver, self._interval = read, deliver, interval
        self._view: View | None = None
        self._wake = threading.Event()
        self._ended = False
        self._began: float | None = None

    def look_at(self, view: View | None) -> None:
        """Read this view from now on, at once; None: nothing."""
        self._view = view
        self._wake.set()

    @property
    def reads_for(self) -> float:
        """Seconds for which the database has been asked; 0 between two readings."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def end(self) -> None:
        """Stop polling, and wait for the thread."""
        self._ended = True
        self.look_at(None)
        self.join(END_WAIT)

    def run(self) -> None:
        """Read and wait in turn."""
        pause = None
        while not self._ended:
            self._wake.wait(pause)
            self._wake.clear()
            view = self._view
            if view is None:
                pause = None
                continue
            began = self._began = time.monotonic()
            try:
                found: Picture | Exception = self._read(view)
            except Exception as error:  # noqa: BLE001 - the screen shows it.
                found = error
            self._began = None
            pause = max(self._interval, min(PAUSE_MAX, (time.monotonic() - began) / COST_MAX))
            if not self._ended:
                self._deliver(view, found)
