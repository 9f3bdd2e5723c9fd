"""The orphan guard: kills the process groups that a worker leaves behind, however it ended.

They are the groups of commands, and of child processes with all that handlers start in them.

It is a process beside the worker, started with the first group, that knows which groups there are.
It notices the worker's end by the end of its input, and kills what is left. It is run as a script,
by itself and with nothing imported, so that it costs little.
"""

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time

PARENT_POLL_INTERVAL = 0.5  # seconds between two checks whether the parent still lives
SEARCH_TIMEOUT = 1.0
"""Seconds for which a command is searched for that was being started when the worker died."""
SEARCH_INTERVAL = 0.05  # seconds between two searches
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class OrphanGuard:
    """The worker's side. May be used from any thread.

    Raises OSError if the guard's process cannot be started; it is tried again with the next group.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._groups: dict[str, str] = {}

    def expect(self, job: int, fence: int) -> str:
        """Search for the command of that claim until it is watched; returns its key.

        Between its start and the message about it, a worker that is killed would leave it behind.
        """
        key = f"{job} {fence}"
        self._set(key, "")
        return key

    def watch(self, key: str, group: int) -> None:
        """Kill that process group once this process is gone."""
        self._set(key, str(group))

    def unwatch(self, key: str) -> None:
        """Forget the process group of that key: none of its processes is left."""
        self._set(key, None)

    def _set(self, key: str, group: str | None) -> None:
        with self._lock:
            alive = self._alive()
            if group is None:
                self._groups.pop(key, None)
            else:
                self._groups[key] = group
            if alive:
                with contextlib.suppress(BrokenPipeError):
                    self._send({key: group})
                    return
            if self._groups:
                self._start()
                self._send(self._groups)

    def _alive(self) -> bool:
        if self._owner != os.getpid():  # In a fork of this process they are the parent's.
            self._groups.clear()
            return False
        return self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        elif self._owner == 0:
            atexit.register(self._release)
        self._owner = os.getpid()
        # It inherits the mask: a signal to a whole service must not end it before it ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program.
                [sys.executable, "-I", "-S", __file__, str(self._owner)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                start_new_session=True,  # Ctrl-C does not reach it.
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _release(self) -> None:
        """Let the guard's process exit with this one; at once where no group is left to kill."""
        with self._lock:
            if self._alive():
                assert self._process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.communicate(timeout=1)

    def _send(self, groups: "dict[str, str | None] | dict[str, str]") -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        lines = [f"{key} {'-' if group is None else group}\n" for key, group in groups.items()]
        self._process.stdin.write("".join(lines).encode())


orphan_guard = OrphanGuard()
"""The guard of this process."""


def main() -> None:
    """The guard's process: read until the worker is gone, then kill what it has left behind."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # The worker may go on after a signal to the service.
    groups: dict[bytes, bytes] = {}
    rest = b""
    while True:
        # Asked before the input is read: what the worker wrote before its end is still to come. And
        # asked at all, because a process that a handler forked may hold the input open.
        gone = os.getppid() != int(sys.argv[1])
        if not select.select([0], [], [], 0 if gone else PARENT_POLL_INTERVAL)[0]:
            if gone:
                break
            continue
        received = os.read(0, 65536)
        if not received:
            break
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            key, _, group = line.rpartition(b" ")
            if group == b"-":
                groups.pop(key, None)
            else:
                groups[key] = group
    _kill_all(groups)


def _kill_all(groups: dict[bytes, bytes]) -> None:
    for watched in filter(None, groups.values()):
        _kill(int(watched))
    expected = [key for key, group in groups.items() if not group]
    until = time.monotonic() + SEARCH_TIMEOUT
    while expected and time.monotonic() < until:
        for group in _search(expected):
            _kill(group)
        select.select([], [], [], SEARCH_INTERVAL)


def _search(claims: list[bytes]) -> list[int]:
    """Return the process groups whose environment names one of those claims, as "job fence"."""
    wanted = [
        {
            b"JOBQUEUE_JOB_ID=%s" % job,
            b"JOBQUEUE_FENCE=%s" % fence,
            b"JOBQUEUE_WORKER_PID=%s" % sys.argv[1].encode(),
        }
        for job, fence in (claim.split() for claim in claims)
    ]
    found = []
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - pathlib is slow.
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                environment = set(file.read().split(b"\0"))
                if any(words <= environment for words in wanted):
                    found.append(os.getpgid(int(name)))
    return found


def _kill(group: int) -> None:
    if group > 1:  # 0 and 1 are not groups to the kernel: our own, and everybody.
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
