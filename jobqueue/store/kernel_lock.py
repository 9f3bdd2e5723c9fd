"""A lock that the kernel queues and that dies with its process, taken with a deadline.

SQLite's own busy handler sleeps and polls: two busy writers share 95 to 5, and one waits for over a
second. A blocking `flock` on a file of our own beside the database gives turns (measured 51 to 49).
It is only a courtesy between our processes: SQLite's locks still guard the data, so after the
deadline the caller goes on without it, and a stopped process that holds it stops nobody.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; SQLite's own lock has to do there.
    fcntl = None  # type: ignore[assignment]

PATIENCE = 1.0  # seconds
MISSES_UNTIL_HASTY = 1


class KernelLock:
    """An advisory lock on one file. Each thread opens the file for itself and counts as another."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._misses = 0
        self._local = threading.local()

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock, or go on without it after the deadline; yields whether it is held."""
        if fcntl is None or getattr(self._local, "inside", False):
            yield False  # There is none, or it is this thread's turn already.
            return
        try:
            file = self._file()
        except OSError:  # Not ours to open: it is only a courtesy.
            yield False
            return
        held = self._take(file)
        self._local.inside = True
        try:
            yield held
        finally:
            self._local.inside = False
            if held:
                fcntl.flock(file.descriptor, fcntl.LOCK_UN)

    def _file(self) -> "_OpenFile":
        """This thread's own open file: flock tells open files apart, not threads."""
        file: _OpenFile | None = getattr(self._local, "file", None)
        if file is None or file.pid != os.getpid():
            file = self._local.file = _OpenFile(self._path)
        return file

    def _take(self, file: "_OpenFile") -> bool:
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            self._misses = 0
            return True
        if self._misses >= MISSES_UNTIL_HASTY:  # Its holder seems stopped: ask, but do not wait.
            return False
        if self._wait(file):
            return True
        self._misses += 1
        del self._local.file  # The waiter may get the lock yet, on the file that it was given.
        return False

    @staticmethod
    def _wait(file: "_OpenFile") -> bool:
        """Block on the kernel's queue in a thread of its own: flock knows no deadline."""
        verdict = threading.Lock()
        taken = threading.Event()
        abandoned = threading.Event()

        def wait() -> None:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX)
            with verdict:
                if abandoned.is_set():
                    fcntl.flock(file.descriptor, fcntl.LOCK_UN)
                taken.set()

        threading.Thread(target=wait, name="jobqueue-lock", daemon=True).start()
        taken.wait(PATIENCE)
        with verdict:
            if not taken.is_set():
                abandoned.set()
            return taken.is_set()


class _OpenFile:
    """An open lock file that is closed with its thread."""

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
