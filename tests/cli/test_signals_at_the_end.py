"""Signals while the interpreter ends: they change nothing about how the command has ended."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Process, Spawn
from tests.process_factory import FINALIZES

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

APP = """
import atexit, multiprocessing, pathlib, sys, threading, time
from jobqueue import JobQueue

jobs = JobQueue()

class Lingers:
    def __del__(self, wait=time.sleep):
        wait(0.3)

sys.modules["lingers"] = lingers = Lingers()  # Collected when the interpreter takes modules apart.
atexit.register(time.sleep, 0.3)

@jobs.task
def leave_behind() -> None:
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,)).start()
    pathlib.Path("left").touch()
"""
LOADING = "import pathlib, time\npathlib.Path('loading').touch()\n"
HOW: dict[str, list[object]] = {"alone": [], "supervised": ["--processes", 1]}


def to_the_very_end(it: Cli) -> dict[str, str]:
    """The environment of a process that takes its modules apart when it ends."""
    return {**it.env, FINALIZES: "1"}


def signal_until_it_ends(process: Process, number: int) -> int:
    """Send a signal again and again; returns the exit code."""
    pause, until = threading.Event(), time.monotonic() + 30
    while process.popen.poll() is None:
        assert time.monotonic() < until
        process.popen.send_signal(number)
        pause.wait(0.005)
    return process.popen.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", HOW)
def test_signals_without_end_do_not_end_it_by_the_signal(
    it: Cli, spawn: Spawn, wait_until: Any, how: str, number: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        worker = spawn("worker", *HOW[how], env=to_the_very_end(it), stderr=file)
    wait_until(lambda: "began" in log.read_text())
    assert signal_until_it_ends(worker, number) in (0, 1), log.read_text()
    assert "Traceback" not in log.read_text()


def test_signals_while_it_ends_by_itself_change_nothing(
    it: Cli, spawn: Spawn, wait_until: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        worker = spawn("worker", "--drain", env=to_the_very_end(it), stderr=file)
    wait_until(lambda: "ended: 0 jobs" in log.read_text())
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.end()[0] == 0, log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_without_end_while_the_app_is_imported_are_one(
    it: Cli, make_app: Any, spawn: Spawn, wait_until: Any, tmp_path: Path, number: int
) -> None:
    it.app = make_app(APP + LOADING + "time.sleep(60)\n")
    worker = spawn("worker", env=to_the_very_end(it))
    wait_until((tmp_path / "loading").exists)
    assert signal_until_it_ends(worker, number) == 0


@pytest.mark.databases("sqlite", "postgres")  # A promise.
def test_what_a_handler_has_left_behind_keeps_no_process_from_ending(
    it: Cli, spawn: Spawn, wait_until: Any, tmp_path: Path
) -> None:
    it.id("leave_behind")
    worker = spawn("worker", env=to_the_very_end(it), start_new_session=True)
    wait_until((tmp_path / "left").exists)
    os.kill(worker.popen.pid, signal.SIGTERM)
    try:
        assert worker.popen.wait(60) == 1
    finally:
        os.killpg(worker.popen.pid, signal.SIGKILL)
