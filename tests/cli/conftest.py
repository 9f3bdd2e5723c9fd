"""What the tests of the command line share: run a command in this process, or a real one."""

import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobqueue.cli.main import cli
from tests.process_factory import popen

ROOT = Path(__file__).parents[2]
NUMBERS = itertools.count()

APP = """
import datetime, decimal, threading, time
from jobqueue import JobQueue, current_job

jobs = JobQueue()

@jobs.task
def add(x: int, y: int) -> int:
    return x + y

@jobs.task
def echo(text: str) -> str:
    return text

@jobs.task
def keep(*values, **named):
    return [values, named]

@jobs.task
def optional(number: int | str = 0, maybe: str | None = None) -> list:
    return [number, maybe]

@jobs.task
def at(when: datetime.datetime) -> str:
    return when.isoformat()

@jobs.task(max_attempts=1)
def fail(message: str = "it broke") -> None:
    raise ValueError(message)

@jobs.task
def nap(seconds: float) -> None:
    time.sleep(seconds)

@jobs.task(queue="mail", priority=3, max_attempts=7)
def mail(to: str) -> None: ...
"""


class Cli:
    """Runs commands in this process, on one database."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.app: str | None = None

    @property
    def env(self) -> dict[str, str]:
        """What a process of its own needs."""
        return {"JOBQUEUE_URL": self.url or "", "JOBQUEUE_APP": self.app or ""}

    def __call__(self, *args: object, input: str | bytes | None = None) -> Result:
        env = {"JOBQUEUE_URL": self.url, "JOBQUEUE_APP": self.app}
        with bare_root():
            result = CliRunner().invoke(cli, [str(arg) for arg in args], input=input, env=env)
        # A worker's log has those of jobs, which are indented.
        assert "\nTraceback" not in f"\n{result.stderr}", result.stderr
        return result

    def ok(self, *args: object, **how: Any) -> str:
        result = self(*args, **how)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def json(self, *args: object, **how: Any) -> Any:
        return json.loads(self.ok("--json", *args, **how))

    def refused(self, code: int, *args: object, **how: Any) -> str:
        """The one line on stderr of a command that must exit with `code`."""
        result = self(*args, **how)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
        lines = result.stderr.splitlines()
        assert lines, result.stdout
        assert lines[-1].startswith("error: "), result.stderr
        return lines[-1]

    def id(self, *args: object) -> int:
        return int(self.ok("enqueue", *args))

    def drain(self) -> None:
        assert self("worker", "--drain", "--stats-interval", 0).exit_code == 0


@contextlib.contextmanager
def bare_root() -> Iterator[None]:
    """The root logger as a program finds it: with none of pytest's handlers."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has a current folder of its own, which is importable, and no settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Set first, so that what a command sets is undone at the end.
    for name in ("JOBQUEUE_URL", "JOBQUEUE_APP", "JOBQUEUE_POOL_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist sets it.
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def bare(url: str) -> Cli:
    """The commands on a fresh database, without an app."""
    return Cli(url)


@pytest.fixture
def cli_with_app(url: str, make_app: Callable[..., str]) -> Cli:
    """The commands on a fresh database, with an app."""
    it = Cli(url)
    it.app = make_app()
    return it


@pytest.fixture
def it(url: str, make_app: Callable[..., str], request: pytest.FixtureRequest) -> Cli:
    """The commands on a fresh database, with the app that the test's module has as APP."""
    it = Cli(url)
    it.app = make_app(request.module.APP)
    return it


@pytest.fixture
def offline() -> Cli:
    """The commands on no database in particular: a file in the current folder."""
    return Cli(None)


@pytest.fixture
def make_app(tmp_path: Path) -> Callable[..., str]:
    """Writes a module and returns its `module:jobs`."""

    def make(text: str = APP) -> str:
        name = f"app_{os.getpid()}_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return f"{name}:jobs"

    return make


SUPERVISED = ("--processes", "--reload")


class Process:
    """A real `jobqueue` process. Those that a supervisor starts are forked as well, unless `own_factory` is False."""

    def __init__(self, args: tuple[object, ...], env: dict[str, str], **how: Any) -> None:
        words = list(map(str, args))
        defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        defaults["own_factory"] = any(word.startswith(SUPERVISED) for word in words)
        self.popen = popen(
            [sys.executable, "-m", "jobqueue", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            **{**defaults, **how},
        )

    def end(self, timeout: float = 60) -> tuple[int, str, str]:
        out, err = self.popen.communicate(timeout=timeout)
        return self.popen.returncode, out, err


Spawn = Callable[..., Process]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a real process with the given arguments and environment; none outlives the test."""
    started: list[Process] = []

    def start(*args: object, env: dict[str, str] | None = None, **how: Any) -> Process:
        started.append(Process(args, env or {}, **how))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()
