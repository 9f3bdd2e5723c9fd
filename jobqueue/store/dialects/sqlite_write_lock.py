"""A lock that the kernel queues and that dies with its process, taken with a deadline.

SQLite's own busy handler sleeps and polls: two busy writers share 95 to 5, and one waits for over a
second. A blocking `flock` on a file of our own beside the database gives turns (measured 51 to 49).
It is only a courtesy between our processes: SQLite's locks still guard the data, so after the
deadline the caller goes on without it, and a stopped process that holds it stops nobody.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; SQLite's own lock has to do there.
    fcntl = None  # type: ignore[assignment]

PATIENCE = 1.0  # seconds
MISSES_UNTIL_HASTY = 1


class WriteLock:
    """An advisory lock on one file. Each thread opens the file for itself and counts as another."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._misses = 0
        self.local = _Local()

    @property
    def waited(self) -> bool:
        """Whether this thread had to wait for its turn, the last time."""
        return self.local.waited

    def held(self) -> "_Hold":
        """Hold the lock, or go on without it after the deadline; yields whether it is held."""
        return _Hold(self)

    def take(self) -> "_OpenFile | None":
        """Take the lock for this thread; None if it goes on without it. See `held`."""
        if fcntl is None:
            return None
        try:
            own = self._own()
        except OSError:  # Not ours to open: it is only a courtesy.
            return None
        return own.file if self._take(own) else None

    def close(self) -> None:
        """End the thread that has waited for the calling one; another thread's ends with it."""
        own, self.local.own = self.local.own, None
        if own is not None:
            own.end()

    def _own(self) -> "_Waiter":
        """This thread's own open file: flock tells open files apart, not threads."""
        own = self.local.own
        if own is None or own.file.pid != os.getpid():
            own = self.local.own = _Waiter(_OpenFile(self._path))
        return own

    def _take(self, own: "_Waiter") -> bool:
        self.local.waited = False
        try:
            fcntl.flock(own.file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.local.waited = True
        else:
            self._misses = 0
            return True
        if self._misses >= MISSES_UNTIL_HASTY:  # Its holder seems stopped: ask, but do not wait.
            return False
        taken = False
        try:
            taken = own.wait()
        finally:
            if not taken:
                self.local.own = None  # It may get the lock yet, on the file that it was given.
        self._misses += not taken
        return taken


class _Hold:
    """A lock's context. Not a generator: those cost as much as the two system calls."""

    def __init__(self, lock: WriteLock) -> None:
        self._lock = lock
        self._file: _OpenFile | None = None
        self._is_outer = False

    def __enter__(self) -> bool:
        """Take the lock, unless this thread has it already."""
        local = self._lock.local
        if not local.inside:
            self._file = self._lock.take()
            local.inside = self._is_outer = True
        return self._file is not None

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        if self._is_outer:
            self._lock.local.inside = False
            if self._file is not None:
                fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)


class _Local(threading.local):
    """What a thread has of a lock."""

    own: "_Waiter | None" = None
    inside = False
    waited = False


class _Waiter:
    """A thread that blocks on the kernel's queue for another one, because flock knows no deadline.

    It is kept: where two workers share a file they wait in most turns, and a thread for each wait
    costs them a twentieth of their throughput. It ends with the thread that it waits for.
    """

    def __init__(self, file: "_OpenFile") -> None:
        self.file = file
        self._requests: SimpleQueue[_Request | None] | None = None

    def wait(self) -> bool:
        """Wait for the lock until the deadline; whether it was taken."""
        if self._requests is None:
            requests: SimpleQueue[_Request | None] = SimpleQueue()
            thread = threading.Thread(target=_serve, args=(self.file, requests), daemon=True)
            thread.name = "jobqueue-lock"
            try:
                thread.start()
            except RuntimeError:  # The system has none to give: it is only a courtesy.
                return False
            self._requests, self._thread = requests, thread
        request = _Request()
        self._requests.put(request)
        try:
            return request.wait()
        except BaseException:  # Ctrl-C; who catches it may not come back here for hours.
            if not request.leave():
                fcntl.flock(self.file.descriptor, fcntl.LOCK_UN)
            raise

    def end(self) -> None:
        """End the thread, and wait for its end."""
        if self._requests is not None and self.file.pid == os.getpid():
            self._requests.put(None)
            self._thread.join(1.0)

    def __del__(self) -> None:
        if self._requests is not None:
            self._requests.put(None)


def _serve(file: "_OpenFile", requests: "SimpleQueue[_Request | None]") -> None:
    while (request := requests.get()) is not None:
        fcntl.flock(file.descriptor, fcntl.LOCK_EX)
        if not request.grant():
            fcntl.flock(file.descriptor, fcntl.LOCK_UN)


class _Request:
    """Of two that may be late, the first has its way: the one who grants, or the one who leaves."""

    def __init__(self) -> None:
        self._granted = threading.Lock()
        self._granted.acquire()
        self._decided = threading.Lock()

    def wait(self) -> bool:
        """Wait until it is granted, or leave at the deadline."""
        return self._granted.acquire(timeout=PATIENCE) or not self.leave()

    def leave(self) -> bool:
        """Want it no longer; False if it has been granted."""
        return self._decided.acquire(blocking=False)

    def grant(self) -> bool:
        """Grant it; False if the other one has left."""
        if not self._decided.acquire(blocking=False):
            return False
        self._granted.release()
        return True


class _OpenFile:
    """An open lock file that is closed with its thread."""

    descriptor = -1  # Until it is open, if it can be opened.

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        database = Path(path.removesuffix("-jobqueue-lock"))
        mode = database.stat().st_mode & 0o777 if database.exists() else 0o600
        new = not Path(path).exists()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        if new:
            os.fchmod(self.descriptor, mode)  # The umask is not asked: the database's mode counts.

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.descriptor)
