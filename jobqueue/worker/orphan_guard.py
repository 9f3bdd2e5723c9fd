"""The undertaker: sees to it that no command outlives the worker that runs it, however that ends.

The same for what the handlers in a worker's child processes have started.

A process beside the worker, started with its first command, that knows which process groups run.
It notices the worker's end by the end of its input, and kills what is left. It is run as a script,
by itself and with nothing imported, so that it costs little. May be used from any thread.
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

LOOK = 0.5  # seconds between two looks whether the parent is there
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SEARCH = 1.0
"""Seconds for which a command is searched for that was being started when the worker died."""


class Undertaker:
    """The worker's side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._known: dict[str, str] = {}

    def announce(self, job: int, fence: int) -> None:
        """A command is about to be started for that claim."""
        self._set(f"{job} {fence}", "")

    def started(self, job: int, fence: int, group: int) -> None:
        """It runs in that process group."""
        self._set(f"{job} {fence}", str(group))

    def ended(self, job: int, fence: int) -> None:
        """None of its processes is left."""
        self._set(f"{job} {fence}", None)

    def guard(self, group: int) -> None:
        """A child process, and all that it may start, is in that process group."""
        self._set(f"child {group}", str(group))

    def dismiss(self, group: int) -> None:
        """None of that group's processes is left."""
        self._set(f"child {group}", None)

    def _set(self, claim: str, group: str | None) -> None:
        with self._lock:
            if group is None:
                self._known.pop(claim, None)
            else:
                self._known[claim] = group
            if self._alive():
                with contextlib.suppress(BrokenPipeError):
                    self._tell({claim: group})
                    return
            if self._known:
                self._start()
                self._tell(self._known)

    def _alive(self) -> bool:
        process = self._process
        # The copy of a forked process is not its own.
        return process is not None and self._owner == os.getpid() and process.poll() is None

    def _start(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        elif self._owner == 0:
            atexit.register(self._release)
        self._owner = os.getpid()
        # It inherits the mask: a signal to all of a service may not end it before it ignores them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program.
                [sys.executable, "-I", "-S", __file__, str(self._owner)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                start_new_session=True,  # It hears no Ctrl-C.
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _release(self) -> None:
        """At the end of this process: it ends as well, at once where nobody is left to kill."""
        with self._lock:
            if self._alive():
                assert self._process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.communicate(timeout=1)

    def _tell(self, groups: "dict[str, str | None] | dict[str, str]") -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        lines = [f"{claim} {'-' if group is None else group}\n" for claim, group in groups.items()]
        self._process.stdin.write("".join(lines).encode())


undertaker = Undertaker()
"""The one of this process."""


def main() -> None:
    """The process: listen until the worker is gone, then kill what it has left behind."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # A stop of all is not the end of the worker yet.
    groups: dict[bytes, bytes] = {}
    rest = b""
    while True:
        # Asked first: what it has said before its end is still to be read. And asked at all,
        # because what a handler has forked may hold the input open.
        gone = os.getppid() != int(sys.argv[1])
        if not select.select([0], [], [], 0 if gone else LOOK)[0]:
            if gone:
                break
            continue
        heard = os.read(0, 65536)
        if not heard:
            break
        *lines, rest = (rest + heard).split(b"\n")
        for line in lines:
            claim, _, group = line.rpartition(b" ")
            if group == b"-":
                groups.pop(claim, None)
            else:
                groups[claim] = group
    _bury(groups)


def _bury(groups: dict[bytes, bytes]) -> None:
    for known in filter(None, groups.values()):
        _kill(int(known))
    lost = [claim for claim, known in groups.items() if not known]
    until = time.monotonic() + SEARCH
    while lost and time.monotonic() < until:
        for group in _search(lost):
            _kill(group)
        select.select([], [], [], 0.05)


def _search(claims: list[bytes]) -> list[int]:
    """The process groups whose environment names one of those claims."""
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
