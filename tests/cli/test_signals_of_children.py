"""Processes that handlers start: their signals are their own, and one signal to all is one for the worker."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Process, Spawn

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

APP = """
import multiprocessing, os, pathlib, signal, subprocess, sys, time
from jobqueue import JobQueue

jobs = JobQueue()
PROGRAM = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
RESTS = "import sys, time\\nopen(sys.argv[1], 'w').close()\\nwhile True: time.sleep(0.05)"

def rest(ready=None):
    if ready:
        ready.touch()
    while True:  # Not one long sleep: a SIGINT just before it is heard after it.
        time.sleep(0.05)

def process(method):
    child = multiprocessing.get_context(method).Process(target=time.sleep, args=(60,))
    child.start()
    return child

def end_process(method):
    child = process(method)
    child.terminate()
    child.join(10)
    return child.exitcode

def fork(ready=None):
    try:
        if (child := os.fork()):
            return child
        rest(ready)
    except KeyboardInterrupt:
        os._exit(-signal.SIGINT & 0xFF)

def end_fork(number):
    child = fork()
    os.kill(child, number)
    until = time.monotonic() + 10
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
        time.sleep(0.005)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(ended[1])
    return code - 256 if code > 127 else code

def end_program(number=signal.SIGTERM, **how):
    with subprocess.Popen(PROGRAM, **how) as child:
        child.send_signal(number)
        try:
            return child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            raise

MEANS = {
    "a forked Process": lambda: end_process("fork"),
    "a spawned Process": lambda: end_process("spawn"),
    "a Process of the fork server": lambda: end_process("forkserver"),
    "os.fork": lambda: end_fork(signal.SIGTERM),
    "a program": end_program,
    "a program in a session of its own": lambda: end_program(start_new_session=True),
    "a program behind Python code": lambda: end_program(preexec_fn=os.getpid),
    "a program and SIGINT": lambda: end_program(signal.SIGINT),
}
OFTEN = {  # Signalled at once: some while they are still being made.
    "a forked Process": MEANS["a forked Process"],
    "os.fork": MEANS["os.fork"],
    "os.fork and SIGINT": lambda: end_fork(signal.SIGINT),
}

def end_all():
    codes = {name: [end()] for name, end in MEANS.items()}
    return codes | {name: [end() for _ in range(10)] for name, end in OFTEN.items()}

def hold(folder):
    ready = [pathlib.Path(folder, f"ready-{n}") for n in range(3)]
    child = multiprocessing.get_context("fork").Process(target=rest, args=ready[:1])
    child.start()
    program = subprocess.Popen([sys.executable, "-S", "-c", RESTS, ready[1]])
    started = [fork(ready[2]), child.pid, program.pid]
    pathlib.Path(folder, "started").write_text(" ".join(map(str, started)))
    while not all(file.exists() for file in ready):
        time.sleep(0.02)  # While a Process begins, Python itself ignores a KeyboardInterrupt.
    pathlib.Path(folder, "held").touch()
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.02)

@jobs.task(max_attempts=1)
def end_all_thread() -> dict[str, list[int]]: return end_all()

@jobs.task(max_attempts=1, isolation="process")
def end_all_child() -> dict[str, list[int]]: return end_all()

@jobs.task(max_attempts=1)
async def end_all_async() -> dict[str, list[int]]: return end_all()

@jobs.task(max_attempts=1)
def hold_thread(folder: str) -> None: hold(folder)

@jobs.task(max_attempts=1, isolation="process")
def hold_child(folder: str) -> None: hold(folder)

@jobs.task(max_attempts=1)
async def hold_async(folder: str) -> None: hold(folder)

@jobs.task(max_attempts=1)
def hold_program(folder: str) -> str:
    with subprocess.Popen("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cat:
        pathlib.Path(folder, "held").touch()
        while not pathlib.Path(folder, "go").exists():
            time.sleep(0.02)
        return cat.communicate("still here")[0]
"""
POOLS = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from jobqueue import JobQueue

jobs = JobQueue()

def square(x): return x * x

def keep(event):
    global begun
    begun = event

def hold():
    begun.set()
    time.sleep(60)

def use(kind, method):
    context = multiprocessing.get_context(method)
    if kind == "pool":
        with context.Pool(1, keep, [event := context.Event()]) as workers:
            total = sum(workers.map(square, range(4)))
            workers.apply_async(hold)
            assert event.wait(30)
            return total  # The pool terminates who is at work.
    with ProcessPoolExecutor(1, mp_context=context) as workers:
        return sum(workers.map(square, range(4)))

def use_all():
    methods = ("fork", "spawn", "forkserver")
    return {f"{kind} {method}": use(kind, method) for kind in ("pool", "executor") for method in methods}

@jobs.task(max_attempts=1)
def use_all_thread() -> dict[str, int]: return use_all()

@jobs.task(max_attempts=1, isolation="process")
def use_all_child() -> dict[str, int]: return use_all()
"""
PLACES = ("thread", "child", "async")
HOW: dict[str, list[object]] = {"alone": [], "supervised": ["--processes", 1]}

EVERYWHERE = pytest.mark.parametrize(
    ("how", "place"), [(how, place) for how in HOW for place in PLACES]
)


def session_of(pid: int) -> set[int]:
    """The living processes of a session, its leader among them."""
    told = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-s", str(pid)], capture_output=True, text=True
    )
    rows = [line.split() for line in told.stdout.splitlines()]
    return {int(process) for process, state in rows if not state.startswith("Z")}


def started(folder: Path) -> set[int]:
    """The processes that the handler has started."""
    return set(map(int, (folder / "started").read_text().split()))


@pytest.fixture
def begin(it: Cli, spawn: Spawn, tmp_path: Path) -> Any:
    """Starts a worker in a session of its own; gives it, and a function that reads its log."""
    leaders = []

    def begin(*options: object) -> tuple[Process, Callable[[], str]]:
        env = it.env
        with (tmp_path / "log").open("w") as log:
            worker = spawn(
                *("worker", "--stats-interval", 0, "--shutdown-timeout", 30, *options),
                **{"env": env, "stderr": log, "start_new_session": True},
            )
        leaders.append(worker.popen.pid)
        return worker, (tmp_path / "log").read_text

    yield begin
    for process in set().union(*map(session_of, leaders)):
        os.kill(process, signal.SIGKILL)


@EVERYWHERE
def test_a_process_that_a_handler_terminates_ends_and_the_worker_hears_nothing_of_it(
    it: Cli, begin: Any, wait_until: Any, place: str, how: str
) -> None:
    worker, log = begin(*HOW[how])
    id_ = it.id(f"end_all_{place}")
    wait_until(lambda: it.json("show", id_)["finished_at"], timeout=60)
    codes = it.json("show", id_)["result"]
    assert codes is not None, log()
    for name, ended in codes.items():
        assert set(ended) == {-signal.SIGINT if "SIGINT" in name else -signal.SIGTERM}, codes
    assert "stopping" not in log()
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.end()[0] == 0, log()
    # multiprocessing's own helpers end when they see that nobody needs them.
    wait_until(lambda: not session_of(worker.popen.pid))


@pytest.mark.databases("sqlite", "postgres")  # A promise.
@EVERYWHERE
def test_one_signal_to_all_processes_lets_the_running_job_end(
    it: Cli, begin: Any, wait_until: Any, tmp_path: Path, place: str, how: str
) -> None:
    """As a terminal sends SIGINT to a group, and systemd SIGTERM to all of a service."""
    number = signal.SIGINT if (how == "alone") == (place != "child") else signal.SIGTERM
    worker, log = begin(*HOW[how])
    id_ = it.id(f"hold_{place}", tmp_path)
    wait_until((tmp_path / "held").exists, timeout=60)
    if how == "alone" and place != "child":
        os.killpg(worker.popen.pid, number)
    else:
        for process in session_of(worker.popen.pid):
            os.kill(process, number)
    wait_until(lambda: "stopping" in log())
    wait_until(lambda: not session_of(worker.popen.pid) & started(tmp_path))
    (tmp_path / "go").touch()
    assert worker.end()[0] == 0, log()
    assert it.json("show", id_)["state"] == "succeeded"


def test_ctrl_c_at_a_supervisor_ends_no_program_that_a_handler_runs(
    it: Cli, begin: Any, wait_until: Any, tmp_path: Path
) -> None:
    """A terminal sends SIGINT to the whole group; the worker's is another one."""
    supervisor, log = begin(*HOW["supervised"])
    id_ = it.id("hold_program", tmp_path)
    wait_until((tmp_path / "held").exists)
    os.killpg(supervisor.popen.pid, signal.SIGINT)
    wait_until(lambda: "stopping" in log())
    (tmp_path / "go").touch()
    assert supervisor.end()[0] == 0, log()
    assert it.json("show", id_)["result"] == "still here"


def test_pools_of_processes_within_handlers_end_in_order_and_leave_nothing_behind(
    url: str, make_app: Callable[..., str], begin: Any, it: Cli, wait_until: Any
) -> None:
    it.app = make_app(POOLS)
    made = [it.id("use_all_thread"), it.id("use_all_child")]
    worker, log = begin("--drain", "--concurrency", 2)
    assert worker.end(timeout=90)[0] == 0, log()
    assert "stopping" not in log()
    for id_ in made:
        result = it.json("show", id_)["result"]
        assert result is not None, log()
        assert len(result) == 6
        assert set(result.values()) == {14}, result
    # multiprocessing's own helpers end when they see that nobody needs them.
    wait_until(lambda: not session_of(worker.popen.pid))
