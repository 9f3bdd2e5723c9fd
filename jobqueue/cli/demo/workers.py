"""The demo's workers: real processes that never outlive the one that started them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from jobqueue.errors import JobQueueError
from jobqueue.supervisor.supervisor import spawn

CONCURRENCY = 4
STOP_WITHIN = 5.0  # seconds; no job takes longer than a fraction of one
TRIES = 200
PAUSE = 0.02  # seconds

# The kernel wakes a process that stands still when its parent is gone; but not one that has been
# told to stop and has not come to it yet, as on a busy machine. It would then stand still for ever.
# So a process that nobody stops waits for the end of its input, that is of ours, and wakes all.
_WAKER = """\
import os, signal, sys
for pid in [int(line) for line in sys.stdin]:
    try:
        os.kill(pid, signal.SIGCONT)
    except OSError:
        pass
"""


@dataclass
class Member:
    """One worker process."""

    process: "subprocess.Popen[bytes]"
    leash: socket.socket
    log: Path
    killed: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def name(self) -> str:
        """How it names itself in the database."""
        return f"{socket.gethostname()}-{self.pid}"


class Crew:
    """Workers on one queue. A context manager: at its end none of them is left."""

    def __init__(self, url: str, queue: str, folder: Path) -> None:
        self._url = url
        self._queue = queue
        self.folder = folder
        self.members: list[Member] = []
        self._waker: subprocess.Popen[str] | None = None

    def start(self, count: int) -> None:
        """Start so many workers."""
        for number in range(len(self.members) + 1, len(self.members) + count + 1):
            log = self.folder / f"worker-{number}.log"
            self.members.append(self._spawn(log))
            self._tell_waker(self.members[-1].pid)

    def _spawn(self, log: Path) -> Member:
        arguments = [
            "--app",
            "jobqueue.cli.demo.app:jobs",
            "-q",
            self._queue,
            "-c",
            str(CONCURRENCY),
        ]
        with log.open("wb") as output:
            process, leash = spawn(
                arguments,
                os.environ | {"JOBQUEUE_URL": self._url},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Member(process, leash, log)

    def _tell_waker(self, pid: int) -> None:
        if self._waker is None:
            self._waker = subprocess.Popen(  # noqa: S603 - our own program.
                [sys.executable, "-I", "-S", "-c", _WAKER],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,  # No signal of the terminal is for it.
            )
        assert self._waker.stdin is not None
        with contextlib.suppress(OSError):  # It has been killed: it is not needed for the work.
            print(pid, file=self._waker.stdin, flush=True)

    def kill_one(self, held_by: Callable[[str], list[int]]) -> tuple[Member, list[int]]:
        """Kill -9 a worker while it certainly holds jobs; returns it with the ids of those jobs.

        `held_by(name)` asks the database. Between the answer and the kill a worker could finish, so
        it is first made to stand still.
        """
        pause = threading.Event()
        for number in range(TRIES):
            member = self.members[(number + 1) % len(self.members)]
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGSTOP)
                pause.wait(PAUSE)  # What it has sent to a server may still arrive.
                held = held_by(member.name)
                if held:
                    member.process.kill()
                    member.process.wait()
                    member.killed = True
                    return member, held
                member.process.send_signal(signal.SIGCONT)
            pause.wait(PAUSE)
        raise JobQueueError(
            "no worker was ever seen to hold a job, so none could be killed at work"
        )

    def check(self) -> None:
        """Raise JobQueueError if a worker has died that was not killed, with its last words."""
        for member in self.members:
            code = member.process.poll()
            if code is not None and not member.killed:
                raise JobQueueError(
                    f"worker {member.pid} died with exit code {code}: {_end(member)}"
                )

    def stop(self) -> dict[int, int]:
        """Ask all to stop, then make them; returns the exit code by process id."""
        for member in self.members:
            with contextlib.suppress(ProcessLookupError):
                member.process.send_signal(signal.SIGCONT)
                member.process.terminate()
        codes = {}
        for member in self.members:
            try:
                codes[member.pid] = member.process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                member.process.kill()
                codes[member.pid] = member.process.wait()
            member.leash.close()
        self._dismiss_waker()
        return codes

    def _dismiss_waker(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None:  # Killed first: the ids that it knows may be others' by now.
            waker.kill()
            waker.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if type_ is not None:
            for member in self.members:  # Nobody waits for what they still do.
                member.process.kill()
        self.stop()


def _end(member: Member) -> str:
    lines = member.log.read_text("utf-8", "replace").strip().splitlines()
    return f"{lines[-1][:300] if lines else 'it said nothing'} (all of it: {member.log})"
