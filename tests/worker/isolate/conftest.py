"""The app whose jobs run in child processes, on the test's database."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.store.jobs import Jobs
from jobqueue.worker.isolate import child_handle
from jobqueue.worker.process_identity import process_started
from tests.process_factory import forking_subprocess, popen

HERE = Path(__file__).parent
LONG = 60.0  # seconds, for what takes a second


class IsolationScenario:
    """The app on the test's database, and its folder."""

    def __init__(self, app: Any, folder: Path, wait_until: Callable[..., Any]) -> None:
        self.app, self.folder, self.wait_until = app, folder, wait_until
        self.jobs: JobQueue = app.jobs
        self.processes: list[subprocess.Popen[str]] = []

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().split() if file.exists() else []

    def begun(self, count: int = 1) -> None:
        self.wait_until(
            lambda: (
                (self.folder / "began").exists()
                and len((self.folder / "began").read_text()) >= count
            ),
            LONG,
        )

    def open_gate(self, name: str) -> None:
        (self.folder / f"gate-{name}").touch()

    def attempts(self, job: Any) -> list[Any]:
        return Jobs(self.jobs.store).attempts(job.record())

    def gone(self) -> bool:
        """True when no process of those that noted their ids is left."""
        return all(process_started(int(pid)) is None for pid in self.lines("pids"))

    def worker(self, *arguments: str) -> "subprocess.Popen[str]":
        """A worker process by the command line."""
        command = [sys.executable, "-m", "jobqueue", "worker", "--app", "isolated_app:jobs"]
        process = popen(
            [*command, "--poll", "0.05", "--stats-interval", "0", *arguments],
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[2])},
            stderr=subprocess.PIPE,
            text=True,
            own_factory=True,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.jobs.close()


@pytest.fixture
def scenario(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> Iterator[IsolationScenario]:
    monkeypatch.setenv("ISOLATED_URL", url)
    monkeypatch.setenv("ISOLATED_FOLDER", str(tmp_path))
    monkeypatch.setattr(child_handle, "subprocess", forking_subprocess())
    monkeypatch.delitem(sys.modules, "isolated_app", raising=False)
    scenario = IsolationScenario(importlib.import_module("isolated_app"), tmp_path, wait_until)
    scenario.jobs.store.require_schema()
    yield scenario
    scenario.end()
