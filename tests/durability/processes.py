"""Real processes for tests: start them, wait until they are ready, stop, continue and kill them."""

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import make_url, text

from tests.process_factory import popen

APP = Path(__file__).with_name("app.py")
ROOT = APP.parents[2]  # The package that is tested is the one beside these tests.
START = 60.0  # seconds that a process may take to come up on a busy machine
PATIENT = {
    "lease": 30,
    "tune": {"upkeep.heartbeat.BEATS_PER_LEASE": 90, "upkeep.reaper.REAP_INTERVAL": 0.25},
}
"""A worker whose lease no stall of the machine ends, with beats and rounds as often as those of a lease of a second."""
STALLED = pytest.StashKey[bool]()
"""Of a test: whether one of its processes logged that it stood still for a while."""

_spec = importlib.util.spec_from_file_location("durability_app", APP)
app = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = app  # Tasks' annotations are looked up there.
_spec.loader.exec_module(app)


def wait(predicate: Callable[[], Any], what: str, timeout: float = START) -> None:
    deadline, pause = monotonic() + timeout, threading.Event()
    while not predicate():
        assert monotonic() < deadline, what
        pause.wait(0.005)


class Process:
    """One process of the app."""

    def __init__(self, folder: Path, role: str, options: dict[str, Any]) -> None:
        folder.mkdir()
        self._folder = folder
        self._ready = folder / "ready"
        command = [sys.executable, str(APP), role]
        for name, value in {**options, "ready": self._ready}.items():
            if value is not None:
                value = json.dumps(value) if isinstance(value, dict) else value
                command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        with (folder / "log").open("ab") as log:
            self._popen = popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self._popen.pid

    @property
    def log(self) -> str:
        file = self._folder / "log"
        return file.read_text() if file.exists() else ""

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def await_ready(self) -> "Process":
        wait(lambda: self._ready.exists() or not self.alive, f"process {self.pid} did not come up")
        assert self._ready.exists(), f"process {self.pid} did not come up:\n{self.log}"
        return self

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """Stop it as Ctrl-Z does, and wait until the kernel has."""
        os.kill(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        wait(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it does not stop")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float = START) -> int:
        """Wait for the end; gives the exit code."""
        return self._popen.wait(timeout)

    def end(self) -> None:
        if self.alive:
            self.kill()


class ProcessScenario:
    """A database, a queue on it in this process, the file of effects, and processes to come."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.jobs, self.effects = app.build(url, folder / "effects")
        self.engine = app.default_engine(self.jobs)
        self.processes: list[Process] = []

    @property
    def on_sqlite(self) -> bool:
        return self.jobs.store.backend.single_writer

    def launch(self, role: str = "worker", **options: Any) -> Process:
        """Start a process and do not wait for it."""
        folder = self.folder / f"process-{len(self.processes)}"
        process = Process(folder, role, {"url": self.url, "effects": self.effects.path, **options})
        self.processes.append(process)
        return process

    def workers(self, count: int, **options: Any) -> list[Process]:
        """Start so many worker processes and wait until all are at work."""
        return [process.await_ready() for process in [self.launch(**options) for _ in range(count)]]

    def worker(self, **options: Any) -> Process:
        return self.workers(1, **options)[0]

    def task(self, name: str, **options: Any) -> Any:
        return self.jobs.registry[name].options(**options)

    def many(self, name: str, calls: list[tuple[Any, ...]], **options: Any) -> list[int]:
        """Enqueue calls of a task; gives their ids."""
        task = self.task(name, **options)
        return [job.id for job in self.jobs.enqueue_many([task.call(*call) for call in calls])]

    def states(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for job in self.jobs.list(limit=None):
            counts[job.state.value] = counts.get(job.state.value, 0) + 1
        return counts

    def ended(self, count: int, state: str = "succeeded") -> Callable[[], bool]:
        """A predicate: so many jobs are in that state."""

        def predicate() -> bool:
            return self.jobs._jobs.count(having(state)) >= count

        predicate.__name__ = f"{count} jobs {state}"
        return predicate

    def record(self, id_: int) -> Any:
        return self.jobs.get(id_).record()

    def attempts(self, id_: int) -> list[Any]:
        return self.jobs._jobs.attempts(self.record(id_))

    def beats(self) -> dict[int, int]:
        """How often each worker has beaten, by its lease."""
        return {
            row.id: row.heartbeats
            for row in self.rows("SELECT id, heartbeats FROM jobqueue_workers")
        }

    def beaten(self, times: int) -> Callable[[], bool]:
        """A predicate: each lease that there is now has been renewed so often from now on."""
        before = self.beats()

        def predicate() -> bool:
            present = self.beats()
            return all(present.get(id_, -1) >= beat + times for id_, beat in before.items())

        predicate.__name__ = f"{len(before)} workers have beaten {times} times"
        return predicate

    def rows(self, statement: str) -> list[Any]:
        with self.jobs.store.engine.connect() as connection:
            return list(connection.execute(text(statement)))

    @contextmanager
    def nobody_writes(self) -> Iterator[None]:
        """Hold a lock that keeps every worker from its heartbeat: a database that does not answer."""
        with self.engine.connect() as connection:
            if self.on_sqlite:
                connection.execute(text("BEGIN IMMEDIATE"))
            else:
                connection.execute(text("LOCK TABLE jobqueue_workers IN ACCESS EXCLUSIVE MODE"))
            yield
            connection.rollback()

    def pause_outside_of_a_transaction(self, process: Process) -> None:
        """Stop a process, but not in the midst of a transaction: its locks would stay until it goes on."""
        deadline = monotonic() + START
        process.pause()
        while not self._writable() if self.on_sqlite else self._holds_a_transaction():
            assert monotonic() < deadline
            process.resume()
            threading.Event().wait(0.05)  # It has to get on, or it stops in the same transaction.
            process.pause()

    def _holds_a_transaction(self) -> bool:
        """Whether a session waits for its client in the midst of a transaction: not for a moment, as living ones do."""
        since = "clock_timestamp() - interval '0.2 s'"
        idle = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            f" AND state LIKE 'idle in transaction%' AND state_change < {since}"
        )
        threading.Event().wait(0.3)
        return self.rows(idle)[0][0] > 0

    def _writable(self) -> bool:
        with closing(
            sqlite3.connect(make_url(self.url).database, timeout=0.2, isolation_level=None)
        ) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return False
            return True

    def end(self) -> None:
        for process in self.processes:
            process.end()
        for process in self.processes:
            print(
                f"--- process {process.pid}\n{process.log[-3000:]}"
            )  # pytest shows it if the test failed.
        self.jobs.close()
        self.engine.dispose()


def having(state: str) -> Any:
    from jobqueue.records import JobFilter
    from jobqueue.states import State

    return JobFilter(state=State(state))


@pytest.fixture
def scenario(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ProcessScenario]:
    """What a test of real processes needs, on a fresh database."""
    scenario = ProcessScenario(url, tmp_path)
    yield scenario
    request.node.stash[STALLED] = any(
        "stood still" in process.log for process in scenario.processes
    )
    scenario.end()
