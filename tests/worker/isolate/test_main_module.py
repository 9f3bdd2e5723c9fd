"""Tasks of the main module, which no child process runs again."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue import JobQueue
from jobqueue.worker.isolate import child_handle
from jobqueue.worker.isolate.importing import IN_MAIN, TaskRef, unreachable_reason
from tests.worker.isolate.conftest import HERE

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

# A main module is never run again


PROGRAM = """
import os, sys
from pathlib import Path
from sqlalchemy import text
from jobqueue import JobQueue

jobs = JobQueue()
with Path("top-level").open("a") as file:
    file.write(f"{os.getpid()}\\n")

def connect():
    return jobs.store.engine.begin()
"""
ISOLATED = """
@jobs.task(isolation="process")
def where() -> int:
    return os.getpid()
"""
RUN = """
with jobs.worker(poll=0.05):
    print(where.enqueue().result(30))
"""
AFTER_A_CRASH = """
@jobs.task
def where() -> int:
    return os.getpid()

@jobs.task
async def awhere() -> int:
    return os.getpid()

handles = [where.enqueue(), awhere.enqueue()]
with connect() as connection:
    connection.execute(text("UPDATE jobqueue_jobs SET crashes = 1"))
with jobs.worker(poll=0.05):
    print([handle.result(30) == os.getpid() for handle in handles])
"""
LATE = """
with jobs.worker(poll=0.05):
    @jobs.task(isolation="process", max_attempts=1)
    def where() -> int:
        return os.getpid()

    try:
        print(where.enqueue().result(60))
    except Exception as error:
        print(error)
"""


class Program:
    """A program of a user's, which notes how often its main module is run."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._url = url
        with JobQueue(url) as queue:
            queue.store.require_schema()

    def run(self, source: str, *, as_module: bool = False) -> "subprocess.CompletedProcess[str]":
        package = self.folder / "package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "program.py").write_text(PROGRAM + source)
        arguments = ["-m", "package.program"] if as_module else ["package/program.py"]
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[2]), "JOBQUEUE_URL": self._url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def runs(self) -> int:
        return len((self.folder / "top-level").read_text().splitlines())


@pytest.fixture
def program(url: str, tmp_path: Path) -> Program:
    return Program(url, tmp_path)


@pytest.mark.parametrize("as_module", [False, True])
def test_a_worker_does_not_start_with_an_isolated_task_of_the_main_module(
    program: Program, as_module: bool
) -> None:
    done = program.run(ISOLATED + RUN, as_module=as_module)
    assert (done.returncode, done.stdout, program.runs) == (1, "", 1)
    assert done.stderr.splitlines()[-1] == (
        "jobqueue.errors.ConfigurationError: task 'where' has isolation=\"process\", but a child "
        "process could not import it: it is defined in the program's main module, which is not run "
        "a second time; define it at the top level of a module that the program imports"
    )


def test_a_program_that_only_enqueues_such_a_task_goes_on(program: Program) -> None:
    done = program.run(ISOLATED + "print(where.enqueue().record().state)")
    assert (done.returncode, done.stdout, program.runs) == (0, "available\n", 1), done.stderr


@pytest.mark.parametrize("as_module", [False, True])
def test_a_task_of_the_main_module_runs_in_its_usual_place_after_a_crash(
    program: Program, as_module: bool
) -> None:
    done = program.run(AFTER_A_CRASH, as_module=as_module)
    assert (done.returncode, done.stdout, program.runs) == (0, "[True, True]\n", 1), done.stderr
    assert "as it is defined in the program's main module" in done.stderr


def test_an_isolated_task_that_the_main_module_adds_later_errors_and_is_not_run(
    program: Program,
) -> None:
    done = program.run(LATE)
    assert "it is defined in the program's main module" in done.stdout, done.stderr
    assert program.runs == 1


def test_a_child_that_has_just_been_started_does_not_die_of_a_signal_to_all() -> None:
    """Until it can ignore SIGTERM the signal waits: a job that has not begun would be charged."""
    ours, theirs = socket.socketpair()
    process = child_handle._start(theirs.fileno())
    os.kill(process.pid, signal.SIGTERM)
    theirs.close()
    ours.close()
    assert process.wait(60) != -signal.SIGTERM


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_a_main_module_is_found_by_no_child_under_either_name(module: str) -> None:
    assert unreachable_reason(TaskRef("task", None, module, "task")) == IN_MAIN
