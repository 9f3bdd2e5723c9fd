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

from jobqueue.demo.app import LEASH
from jobqueue.errors import JobQueueError

CONCURRENCY = 4
STOP_WITHIN = 5.0  # seconds; no job takes longer than a fraction of one
TRIES = 200
PAUSE = 0.02  # seconds


@dataclass
class Member:
    """One worker process."""

    process: "subprocess.Popen[bytes]"
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

    def start(self, count: int) -> None:
        """Start so many workers."""
        for number in range(len(self.members) + 1, len(self.members) + count + 1):
            log = self.folder / f"worker-{number}.log"
            self.members.append(Member(self._spawn(log), log))

    def _spawn(self, log: Path) -> "subprocess.Popen[bytes]":
        arguments = ["-m", "jobqueue", "worker", "--app", "jobqueue.demo.app:jobs"]
        arguments += ["-q", self._queue, "-c", str(CONCURRENCY)]
        with log.open("wb") as output:
            return subprocess.Popen(  # noqa: S603 - our own program.
                [sys.executable, *arguments],
                env=os.environ
                | {"JOBQUEUE_URL": self._url, "PYTHONPATH": _python_path(), LEASH: "1"},
                stdin=subprocess.PIPE,  # The leash: it ends when this process does.
                stdout=output,
                stderr=subprocess.STDOUT,
                # Of its own, so that a Ctrl-C is ours alone to hear; in this session, so that the
                # kernel wakes one that stands still when this process is gone.
                process_group=0,
            )

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
            if member.process.stdin is not None:
                member.process.stdin.close()
        return codes

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


def _python_path() -> str:
    """Where this process imports from, in its order, so that the workers run the same code."""
    return os.pathsep.join(entry for entry in sys.path if entry)


def _end(member: Member) -> str:
    lines = member.log.read_text("utf-8", "replace").strip().splitlines()
    return f"{lines[-1][:300] if lines else 'it said nothing'} (all of it: {member.log})"
