"""A fair write lock between our processes: `flock` with a timeout on a file beside the database.

SQLite's own busy handler sleeps and polls: two busy writers share the file 95 to 5, and one waits
for over a second. The kernel queues a blocking `flock` fairly (measured 51 to 49) and releases it
when the process dies. The lock is advisory: SQLite's own locks still guard the data. A caller that
has waited as long as the timeout, while nobody else took the lock, therefore proceeds without it,
so that a stopped holder blocks no other writer. A long queue that moves is waited for, and who has
left it queues again: it would poll for the file against all the others, in vain.
"""

import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; SQLite's own lock must suffice.
    fcntl = None  # type: ignore[assignment]

ACQUIRE_TIMEOUT = 1.0  # seconds without a sign of life
SIGN_INTERVAL = 0.2
"""Seconds between two signs that a process gives of taking the lock: each is a system call."""


class WriteLock:
    """An advisory lock on one file. Each thread opens the file, since flock excludes open files."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._missed_at: int | None = None
        """The last sign of life when a wait was given up. Without a newer one, nobody waits."""
        self._sign_due = 0.0
        self.local = _Local()

    @property
    def waited(self) -> bool:
        """Return whether this thread had to wait the last time that it took the lock."""
        return self.local.waited

    @property
    def gave_up(self) -> bool:
        """Return whether this thread goes on without the lock, since its holder seems stopped."""
        return self.local.gave_up

    def held(self) -> "_Hold":
        """Hold the lock, or proceed without it after the timeout; gives whether it is held."""
        return _Hold(self)

    def take(self) -> "_OpenFile | None":
        """Take the lock for this thread; return None after the timeout. See `held`."""
        self.local.gave_up = False
        if fcntl is None:
            return None
        own = self.local.own
        if own is None or own.file.pid != os.getpid():
            try:
                own = self.local.own = _LockThread(_OpenFile(self._path))
            except OSError:  # The file cannot be opened: proceed without the lock.
                return None
        self.local.gave_up = not self._take(own)
        return None if self.local.gave_up else own.file

    def take_again(self) -> bool:
        """Queue again, within `held`, for the lock that was given up; return whether it is held."""
        assert self.local.hold is not None
        return self.local.hold.take()

    def close(self) -> None:
        """Stop the calling thread's lock thread; those of other threads stop with their owners."""
        own, self.local.own = self.local.own, None
        if own is not None:
            own.end()

    def _take(self, own: "_LockThread") -> bool:
        self.local.waited = False
        try:
            fcntl.flock(own.file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.local.waited = True
        else:
            self._give_sign(own.file)
            return True
        if self._missed_at == own.file.last_sign():  # The holder seems stopped: do not wait.
            return False
        taken = False
        try:
            taken = own.wait()
        finally:
            if not taken:
                self.local.own = None  # The lock thread may still get the lock, on this open file.
        if taken:
            self._give_sign(own.file)
        else:
            self._missed_at = own.file.last_sign()
        return taken

    def _give_sign(self, file: "_OpenFile") -> None:
        """Show the waiting processes that the lock changes hands."""
        now = time.monotonic()
        if now >= self._sign_due:
            self._sign_due = now + SIGN_INTERVAL
            file.give_sign()


class _Hold:
    """The context of a held lock. A class, since a generator costs as much as both system calls."""

    def __init__(self, lock: WriteLock) -> None:
        self._lock = lock
        self._file: _OpenFile | None = None

    def take(self) -> bool:
        """Take the lock; return whether it is held."""
        self._file = self._lock.take()
        return self._file is not None

    def __enter__(self) -> bool:
        """Take the lock, unless this thread holds it already."""
        local = self._lock.local
        if local.hold is None:
            self.take()
            local.hold = self
        return self._file is not None

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        local = self._lock.local
        if local.hold is self:
            local.hold = None
            local.gave_up = False
            if self._file is not None:
                fcntl.flock(self._file.descriptor, fcntl.LOCK_UN)


class _Local(threading.local):
    """The state of a lock in one thread."""

    own: "_LockThread | None" = None
    hold: _Hold | None = None
    waited = False
    gave_up = False


class _LockThread:
    """A thread that blocks in flock for its owner, because flock has no timeout.

    The thread is kept: two workers on one file wait for most transactions, and a new thread for
    each wait costs a twentieth of their throughput. It stops with its owner.
    """

    def __init__(self, file: "_OpenFile") -> None:
        self.file = file
        self._requests: SimpleQueue[Future[None] | None] | None = None

    def wait(self) -> bool:
        """Wait for the lock as long as it changes hands; return whether it was taken."""
        if self._requests is None:
            requests: SimpleQueue[Future[None] | None] = SimpleQueue()
            thread = threading.Thread(target=_serve, args=(self.file, requests), daemon=True)
            thread.name = "jobqueue-lock"
            try:
                thread.start()
            except RuntimeError:  # The system has no thread left: proceed without the lock.
                return False
            self._requests, self._thread = requests, thread
        request: Future[None] = Future()
        self._requests.put(request)
        try:
            seen = self.file.last_sign()
            while True:
                with suppress(TimeoutError):
                    request.result(ACQUIRE_TIMEOUT)
                    return True
                before, seen = seen, self.file.last_sign()
                if seen == before:
                    return not request.cancel()  # It may have been granted just now.
        except BaseException:  # Ctrl-C: release, for the caller may not take the lock again soon.
            if not request.cancel():
                fcntl.flock(self.file.descriptor, fcntl.LOCK_UN)
            raise

    def end(self) -> None:
        """Stop the thread, and join it."""
        if self._requests is not None and self.file.pid == os.getpid():
            self._requests.put(None)
            self._thread.join(1.0)

    def __del__(self) -> None:
        if self._requests is not None:
            self._requests.put(None)


def _serve(file: "_OpenFile", requests: "SimpleQueue[Future[None] | None]") -> None:
    while (request := requests.get()) is not None:
        fcntl.flock(file.descriptor, fcntl.LOCK_EX)
        if request.set_running_or_notify_cancel():
            request.set_result(None)
        else:  # The waiter has left.
            fcntl.flock(file.descriptor, fcntl.LOCK_UN)


class _OpenFile:
    """An open lock file, closed when its thread ends."""

    descriptor = -1  # until the file is open

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        database = Path(path.removesuffix("-jobqueue-lock"))
        mode = database.stat().st_mode & 0o777 if database.exists() else 0o600
        new = not Path(path).exists()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        if new:
            os.fchmod(self.descriptor, mode)  # The database's mode, whatever the umask is.

    def give_sign(self) -> None:
        """Set the file's time: it takes no room on a disk that is full."""
        with suppress(OSError):  # Then others wait no longer than the timeout.
            os.utime(self.descriptor)

    def last_sign(self) -> int:
        """Return the file's time."""
        return os.fstat(self.descriptor).st_mtime_ns

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.descriptor)
