"""A worker that is PID 1, as in a container: a namespace of processes of its own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Cli

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

APP = """
import os, pathlib, subprocess, time
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task
def orphan() -> int:
    # A process whose parent ends before it: it is PID 1's then.
    subprocess.run(["sh", "-c", "sh -c 'sleep 0.2' & exit 0"], check=True)
    return subprocess.run(["sh", "-c", "exit 7"]).returncode  # Nobody takes this one's code.

@jobs.task
def zombies() -> list[str]:
    states = [path.read_text() for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
    return [state for state in states if state.rpartition(")")[2].split()[0] == "Z"]

@jobs.task
def hold() -> None:
    pathlib.Path("held").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)

@jobs.task
def die() -> None:
    os._exit(9)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(it: Cli) -> Iterator[Start]:
    """Starts `jobqueue worker` as PID 1 of its own namespace."""
    unshare = shutil.which("unshare", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    assert unshare, "this test needs unshare(1), of util-linux"
    started = []

    def start(*options: str) -> "subprocess.Popen[str]":
        own = ["--pid", "--fork", "--kill-child", "--mount-proc"]
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = [sys.executable, "-m", "jobqueue", "worker", "--stats-interval", "0", *options]
        env = {"JOBQUEUE_URL": it.url or "", "JOBQUEUE_APP": it.app or "", "PYTHONPATH": str(ROOT)}
        started.append(
            subprocess.Popen(
                [unshare, *user, *own, *command],
                env={**os.environ, **env},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pid_1(unshare: "subprocess.Popen[str]") -> int:
    """The number here of that namespace's PID 1."""
    return int(Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text())


@pytest.mark.parametrize("options", [(), ("--processes", "1")])
def test_orphans_of_handlers_are_reaped_and_exit_codes_are_not_taken(
    it: Cli, start: Start, options: tuple[str, ...], wait_until: Any
) -> None:
    start(*options)
    for _ in range(3):
        id_ = it.id("orphan")
        wait_until(lambda id_=id_: it.json("show", id_)["finished_at"], timeout=60)
        assert it.json("show", id_)["result"] == 7

    def none_left() -> bool:
        looked = it.id("zombies")
        wait_until(lambda: it.json("show", looked)["finished_at"], timeout=60)
        return it.json("show", looked)["result"] == []

    wait_until(none_left)


def test_a_signal_to_pid_1_lets_the_running_job_end(
    it: Cli, start: Start, tmp_path: Path, wait_until: Any
) -> None:
    id_ = it.id("hold")
    process = start()
    wait_until((tmp_path / "held").exists, timeout=60)
    os.kill(pid_1(process), signal.SIGTERM)
    assert process.stderr is not None
    while "SIGTERM: stopping" not in process.stderr.readline():
        assert process.poll() is None
    (tmp_path / "go").touch()
    assert process.wait(60) == 0
    assert it.json("show", id_)["state"] == "succeeded"


def test_pid_1_ends_with_the_exit_code_of_its_worker(it: Cli, start: Start) -> None:
    it.id("die")
    assert start().wait(60) == 9
