"""The workers of a soak: processes of `jobqueue worker`, and what is done to each, written down as it is done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.children import ROOT
from bench.soak.evidence import Life, boottime

LEASE = 3.0
SHUTDOWN_TIMEOUT = 10.0
STOP_MAX = SHUTDOWN_TIMEOUT + 10.0
"""Seconds that a stop may take: the promise is the timeout and some seconds."""
READY = " tasks: "
"""A worker's log has this once it has its lease."""


class Worker:
    """One process. Instants before a blow, so that what it does afterwards is after it."""

    def __init__(self, name: str, folder: Path, url: str, effects: Path) -> None:
        self.log_path = folder / f"{name}.log"
        self.life = Life(name, boottime())
        self._stopped_at: float | None = None
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JOBQUEUE_", "PG"))}
        environment |= {"JOBQUEUE_URL": url, "SOAK_LOG": str(effects), "SOAK_WORKER": name}
        environment |= {"SOAK_PARENT": str(os.getpid())}
        options = {
            "--app": "bench.soak.tasks:jobs",
            "--name": name,
            "--lease": LEASE,
            "--shutdown-timeout": SHUTDOWN_TIMEOUT,
            "--stats-interval": 0,
        }
        arguments = [f"{option}={value}" for option, value in options.items()]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.soak.worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the soak.
            )

    @property
    def name(self) -> str:
        return self.life.name

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def calm(self) -> bool:
        """Ready, and nothing is being done to it."""
        life = self.life
        return (
            life.ready is not None
            and life.terminated is None
            and life.exited is None
            and self._stopped_at is None
        )

    def look(self) -> None:
        """Notice that it is ready, or has ended."""
        life = self.life
        if life.ready is None and READY in self.log:
            life.ready = boottime()
        if life.exited is None and (code := self._process.poll()) is not None:
            life.exited, life.code = boottime(), code

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        self.life.killed = boottime()
        self._process.kill()
        self._process.wait()
        if self._stopped_at is not None:
            self.life.stopped.append((self._stopped_at, self.life.killed))
            self._stopped_at = None
        self.look()

    def freeze(self) -> None:
        self._stopped_at = boottime()
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._stopped_at is None:
            return
        self.life.stopped.append((self._stopped_at, boottime()))
        self._process.send_signal(signal.SIGCONT)
        self._stopped_at = None

    def terminate(self) -> None:
        """Ask it to stop; asked for the second time, it does so at once."""
        if self.life.terminated is None:
            self.life.terminated = boottime()
        else:
            self.life.again = boottime()
        self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Fleet:
    """So many workers; one that ended is followed by another."""

    def __init__(self, folder: Path, url: str, effects: Path, size: int) -> None:
        self._folder, self._url, self._effects, self._size = folder, url, effects, size
        self.all: list[Worker] = []
        self.started = 0

    @property
    def present(self) -> list[Worker]:
        return [worker for worker in self.all if worker.life.exited is None]

    @property
    def calm(self) -> list[Worker]:
        return [worker for worker in self.present if worker.calm]

    def look(self) -> list[Worker]:
        """Those that have ended since the last look."""
        before = self.present
        for worker in before:
            worker.look()
        return [worker for worker in before if worker.life.exited is not None]

    def fill_up(self) -> None:
        """Start what is missing."""
        while len(self.present) < self._size:
            self.started += 1
            name = f"soak-{self.started}"
            self.all.append(Worker(name, self._folder, self._url, self._effects))

    def end(self) -> None:
        for worker in self.present:
            worker.end()
