"""`worker --processes`: a supervisor and its workers, real processes and real signals."""

import errno
import itertools
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobqueue.supervisor import channel
from jobqueue.supervisor.supervisor import Supervisor
from jobqueue.supervisor.worker_process import (
    BACKOFF_MAX,
    HEALTHY_AFTER,
    SupervisorConfig,
    WorkerProcess,
    backoff,
)
from tests.cli.conftest import Cli, Process, Spawn

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

APP = """
import os, pathlib, sys, threading, time
from jobqueue import JobQueue, current_job

jobs = JobQueue()

@jobs.task
def mark_and_wait(folder: str) -> int:
    pathlib.Path(folder, f"{current_job().id}-{os.getpid()}").touch()
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.02)
    if pathlib.Path(folder, "exit").exists():
        os._exit(0)
    return os.getpid()

@jobs.task
def shout(text: str) -> str:
    print(text)
    return text

@jobs.task
def leave(code: int) -> None:
    os._exit(code)

@jobs.task
def look() -> list[str | None]:
    return [os.environ.get("PYTHONPATH"), os.environ.get("JOBQUEUE_CONTROL")]
"""


class Crew:
    """A supervisor of two workers with a slot each, both in the midst of a job."""

    def __init__(self, it: Cli, folder: Path, wait_until: Any) -> None:
        self._it, self._folder, self._wait_until = it, folder, wait_until
        self._marks = folder / "marks"
        self._marks.mkdir()
        self.process: Process
        self.ids: list[int] = []

    def start(self, spawn: Spawn, *options: object, env: dict[str, str]) -> None:
        given = ("worker", "--processes", "2", "-c", "1", "--stats-interval", "0", *options)
        with (self._folder / "log").open("w") as log:
            self.process = spawn(*given, env={**self._it.env, **env}, stderr=log)
        self._wait_until(lambda: len(self._it.json("workers")) == 2)
        for number in range(2):  # Neither is to wait in the hands of a busy worker.
            key = ("--unique-key", number, "--unique-until", "started")
            self.ids.append(self._it.id("mark_and_wait", self._marks, *key))
        self._wait_until(lambda: len(self.pids) == 2)

    @property
    def pids(self) -> set[int]:
        """Of the processes that have begun a job."""
        return {int(mark.name.partition("-")[2]) for mark in self._marks.glob("*-*")}

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def await_log(self, text: str, times: int = 1) -> None:
        self._wait_until(lambda: self.log.count(text) >= times)

    def go(self, *, with_exit: bool = False) -> None:
        """Let the jobs end, or end their processes."""
        if with_exit:
            (self._marks / "exit").touch()
        (self._marks / "go").touch()

    def signal(self, number: int) -> None:
        self.process.popen.send_signal(number)

    def end(self) -> tuple[int, str]:
        code, out, _ = self.process.end(60)
        return code, out

    def await_end_of_all(self) -> None:
        self._wait_until(gone(self.pids))

    def jobs(self) -> list[tuple[str, int]]:
        """State and attempt of each."""
        jobs = jobs_of(self._it)
        return [(jobs[id_]["state"], jobs[id_]["attempt"]) for id_ in self.ids]


@pytest.fixture
def crew(it: Cli, spawn: Spawn, tmp_path: Path, wait_until: Any) -> Callable[..., Crew]:
    def start(*options: object, env: dict[str, str] | None = None) -> Crew:
        crew = Crew(it, tmp_path, wait_until)
        crew.start(spawn, *options, env=env or {})
        return crew

    return start


def gone(pids: set[int]) -> Callable[[], bool]:
    def all_gone() -> bool:
        return not any(running(pid) for pid in pids)

    return all_gone


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def jobs_of(it: Cli) -> dict[int, Any]:
    return {job["id"]: job for job in it.json("list", "--limit", 0)}


HEARD = "the supervisor: stopping; a second signal"


def test_the_first_signal_ends_all_in_order_with_one_summary(it: Cli, crew: Any) -> None:
    crew = crew("--json")
    crew.signal(signal.SIGTERM)
    crew.await_log(HEARD, 2)
    crew.go()
    code, out = crew.end()
    assert code == 0, crew.log
    summary = json.loads(out)
    assert (summary["processes"], summary["processed"], summary["in_order"]) == (2, 2, True)
    assert (summary["signal"], summary["restarts"]) == ("SIGTERM", 0)
    pids = {int(worker["worker"].rpartition("-")[2]) for worker in summary["workers"]}
    assert pids == crew.pids
    assert crew.jobs() == [("succeeded", 1)] * 2
    assert it.json("workers") == []


def test_a_second_signal_gives_the_jobs_back_and_exits_with_1(crew: Any) -> None:
    crew = crew("--shutdown-timeout", "1h")
    crew.signal(signal.SIGTERM)
    crew.signal(signal.SIGINT)
    assert crew.end()[0] == 1
    assert gone(crew.pids)()
    assert crew.jobs() == [("available", 0)] * 2


def test_the_shutdown_timeout_is_that_of_each_worker(crew: Any) -> None:
    crew = crew("--shutdown-timeout", "0.2")
    crew.signal(signal.SIGINT)
    assert crew.end()[0] == 1
    assert crew.jobs() == [("available", 0)] * 2


def test_a_handler_that_exits_with_0_during_a_stop_is_no_end_in_order(crew: Any) -> None:
    crew = crew()
    crew.signal(signal.SIGTERM)
    crew.await_log(HEARD, 2)
    crew.go(with_exit=True)
    assert crew.end()[0] == 1


def test_one_signal_to_all_of_them_is_a_first_one_for_each(crew: Any) -> None:
    """As systemd sends it, which knows nothing of a supervisor."""
    crew = crew()
    for pid in crew.pids:
        os.kill(pid, signal.SIGTERM)
    crew.await_log("SIGTERM: stopping; a second signal", 2)
    crew.signal(signal.SIGTERM)
    crew.await_log("SIGTERM: stopping 2 worker processes")
    crew.go()
    assert crew.end()[0] == 0, crew.log
    assert crew.jobs() == [("succeeded", 1)] * 2


@pytest.mark.databases("sqlite", "postgres")
def test_kill_9_of_a_worker_has_it_replaced_and_its_job_run_again(
    it: Cli, crew: Any, wait_until: Any
) -> None:
    crew = crew("--lease", "1h")  # Its processes are seen to be gone, long before that.
    victim = min(crew.pids)
    os.kill(victim, signal.SIGKILL)
    crew.await_log(f"worker process {victim} died by SIGKILL; another one starts in 0.")
    crew.go()
    wait_until(lambda: all(state == "succeeded" for state, _ in crew.jobs()))
    crew.signal(signal.SIGTERM)
    assert crew.end()[0] == 0, crew.log
    assert sorted(crew.jobs()) == [("succeeded", 1), ("succeeded", 1)]
    assert victim not in {job["result"] for job in jobs_of(it).values()}


def test_kill_9_of_the_supervisor_ends_the_workers_in_order(it: Cli, crew: Any) -> None:
    crew = crew()
    crew.process.popen.kill()
    crew.await_log(HEARD, 2)
    crew.go()
    crew.await_end_of_all()
    assert crew.jobs() == [("succeeded", 1)] * 2  # Their jobs could end, and are recorded.
    assert it.json("workers") == []


def test_kill_9_of_the_supervisor_during_a_stop_in_order_leaves_it_one_in_order(crew: Any) -> None:
    """The lost supervisor is not taken for a second signal."""
    crew = crew()
    for pid in crew.pids:
        os.kill(pid, signal.SIGTERM)
    crew.await_log("SIGTERM: stopping; a second signal", 2)
    crew.process.popen.kill()
    crew.process.popen.wait()
    crew.go()
    crew.await_end_of_all()
    assert crew.jobs() == [("succeeded", 1)] * 2


@pytest.mark.parametrize("exit_code", [0, 2])
def test_a_handler_that_exits_has_its_worker_replaced_whatever_the_code(
    it: Cli, spawn: Spawn, exit_code: int
) -> None:
    """2 is bad usage only of a process that was not at work yet, 0 an end in order of one that says so."""
    id_ = it.id("leave", exit_code, "--max-attempts", 1)
    after = it.id("shout", "still here")
    code, out, err = spawn("worker", "--processes", 1, "--drain", env=it.env).end(60)
    assert code == 0, err
    said = rf"worker process \d+ ended with exit code {exit_code}; another one starts in 0\."
    assert re.search(said, err)
    jobs = jobs_of(it)
    assert (jobs[id_]["state"], jobs[after]["state"]) == ("failed", "succeeded")
    assert out == "still here\n"


def test_a_process_that_cannot_be_started_now_is_started_later_and_the_others_go_on(
    it: Cli, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when there are no processes left to have, for a moment."""
    start, calls = subprocess.Popen, itertools.count(1)
    ends: list[socket.socket] = []
    make_pair = socket.socketpair

    def pair() -> tuple[socket.socket, socket.socket]:
        ends.extend(pair := make_pair())
        return pair

    def start_the_second_later(*arguments: Any, **options: Any) -> Any:
        if next(calls) in (2, 3):
            raise OSError(errno.EAGAIN, "none left")
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", start_the_second_later)
    monkeypatch.setattr(socket, "socketpair", pair)
    it.id("shout", "well")
    environment = {**os.environ, **it.env}
    supervisor = Supervisor(SupervisorConfig(lambda _: ["--drain"], 2, 10.0, environment))
    assert supervisor.run() == 0
    assert [one["in_order"] for one in supervisor.summaries] == [True, True]
    assert caplog.text.count("worker process 2 cannot be started ([Errno 11] none left)") == 2
    assert all(end.fileno() == -1 for end in ends), "none was left open"


def test_a_signal_while_the_supervisor_ends_finds_its_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter reports a signal that it cannot write to the pipe, and the report is an error here."""

    class Signalled(selectors.DefaultSelector):
        def close(self) -> None:
            signal.raise_signal(signal.SIGINT)
            super().close()

    monkeypatch.setattr(selectors, "DefaultSelector", Signalled)
    assert Supervisor(SupervisorConfig(lambda _: [], 0, 10.0, {})).run() == 0


def test_a_worker_that_has_grown_too_large_is_replaced(
    it: Cli, make_app: Any, spawn: Spawn, wait_until: Any
) -> None:
    it.app = make_app(
        "import os\nfrom jobqueue import JobQueue\njobs = JobQueue()\nkept = []\n"
        "@jobs.task\ndef eat(size: int) -> int:\n"
        "    kept.append(bytearray(size))\n    return os.getpid()\n"
    )
    first = it.id("eat", 300_000_000)
    process = spawn("worker", "--processes", 1, "--max-memory", "200MB", "--json", env=it.env)
    pid = json.loads(it.ok("--json", "wait", first))["result"]
    wait_until(gone({pid}))
    second = it.id("eat", 1)
    assert json.loads(it.ok("--json", "wait", second))["result"] != pid
    process.popen.send_signal(signal.SIGTERM)
    code, out, err = process.end()
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["restarts"], summary["processed"]) == (1, 2)
    assert f"worker process {pid} ended because of its memory; another one starts in 0." in err


def test_a_bad_app_ends_the_supervisor_with_2_and_is_said_once(
    url: str, make_app: Any, spawn: Spawn
) -> None:
    env = {"JOBQUEUE_URL": url, "JOBQUEUE_APP": make_app("import nothing_of_that_name\n")}
    code, out, err = spawn("worker", "--processes", 3, env=env).end()
    assert (code, out) == (2, "")
    assert err.count("error: ") == 1
    assert "nothing_of_that_name" in err


def test_an_app_that_has_become_bad_ends_the_supervisor_with_2_and_the_others_in_order(
    it: Cli, crew: Any, tmp_path: Path
) -> None:
    crew = crew()
    assert it.app is not None
    (tmp_path / f"{it.app.partition(':')[0]}.py").write_text("import nothing_of_that_name\n")
    os.kill(max(crew.pids), signal.SIGKILL)
    crew.await_log(HEARD)
    crew.go()
    assert crew.end()[0] == 2, crew.log
    assert ("succeeded", 1) in crew.jobs()


def test_a_database_that_is_not_there_ends_the_supervisor_with_1(it: Cli, spawn: Spawn) -> None:
    env = {**it.env, "JOBQUEUE_URL": "postgresql://u:hunter2@127.0.0.1:1/d"}
    code, _, err = spawn("worker", "--processes", 2, env=env).end()
    assert code == 1
    assert err.count("cannot be reached") == 1
    assert "hunter2" not in err


def test_a_signal_before_any_worker_is_at_work_exits_with_0(
    it: Cli, make_app: Any, spawn: Spawn, wait_until: Any, tmp_path: Path
) -> None:
    it.app = make_app(
        "import pathlib, time\npathlib.Path('loading').touch()\n"
        # Not one long sleep: a signal just before it is heard after it.
        "while True: time.sleep(0.05)\n"
        "from jobqueue import JobQueue\njobs = JobQueue()\n"
    )
    process = spawn("worker", "--processes", 2, env=it.env)
    wait_until((tmp_path / "loading").exists)
    process.popen.send_signal(signal.SIGTERM)
    code, _, err = process.end()
    assert code == 0, err


def test_kill_9_of_the_supervisor_ends_a_worker_that_still_imports_its_app(
    it: Cli, make_app: Any, spawn: Spawn, wait_until: Any, tmp_path: Path
) -> None:
    it.app = make_app(
        "import os, pathlib, time\npathlib.Path('loading').write_text(str(os.getpid()))\n"
        "time.sleep(60)\nfrom jobqueue import JobQueue\njobs = JobQueue()\n"
    )
    process = spawn("worker", "--processes", 1, env=it.env)
    loading = tmp_path / "loading"
    wait_until(lambda: loading.exists() and loading.read_text())
    process.popen.kill()
    wait_until(gone({int(loading.read_text())}))


def test_a_worker_that_stands_still_is_killed_at_the_second_signal(crew: Any) -> None:
    crew = crew()
    victim = min(crew.pids)
    os.kill(victim, signal.SIGSTOP)
    crew.signal(signal.SIGTERM)
    crew.signal(signal.SIGINT)
    assert crew.end()[0] == 1
    assert f"worker process {victim} did not stop in time: killed" in crew.log
    assert gone(crew.pids)()


def test_a_third_signal_does_not_postpone_the_end_of_a_worker_that_stands_still() -> None:
    supervisor = Supervisor(SupervisorConfig(lambda _number: (), 1, 30.0, {}))
    (worker,) = supervisor._workers
    received, worker.channel = socket.socketpair()
    worker.process = subprocess.Popen([sys.executable, "-c", ""])
    with received, worker.channel, worker.process:
        for number in (signal.SIGTERM, signal.SIGINT):
            supervisor._handle_signal(number)
        kill_at = worker.kill_at
        supervisor._handle_signal(signal.SIGINT)
        assert worker.kill_at == kill_at
        assert received.recv(16) == 2 * channel.STOP


def test_names_and_the_environment_of_handlers(it: Cli, spawn: Spawn) -> None:
    id_ = it.id("look")
    options = ("--drain", "--name", "Ada", "--json")
    env = {**it.env, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = spawn("worker", "--processes", 2, *options, env=env, own_factory=False)
    code, out, err = process.end(60)
    assert code == 0, err
    names = {worker["worker"] for worker in json.loads(out)["workers"]}
    assert names == {"Ada-1", "Ada-2"}
    assert jobs_of(it)[id_]["result"] == [env["PYTHONPATH"], None]


def test_a_url_with_a_password_is_on_no_command_line(
    it: Cli, spawn: Spawn, tmp_path: Path, wait_until: Any
) -> None:
    file = tmp_path / "n"
    file.mkdir()
    it.id("mark_and_wait", file)
    options = ("--processes", 1, "--shutdown-timeout", 0)
    process = spawn("worker", *options, "--url", it.url, "--app", it.app, own_factory=False)
    wait_until(lambda: list(file.iterdir()))
    pid = int(next(file.iterdir()).name.partition("-")[2])
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert b"worker" in command
    assert not any((it.url or "").encode() in word for word in command)
    assert process.popen.poll() is None


@pytest.mark.parametrize("count", ["0", "-1", "many", "5000"])
def test_a_number_of_processes_out_of_range_is_refused(it: Cli, count: str) -> None:
    assert "processes" in it.refused(2, "worker", "--processes", count)


def test_processes_without_an_app_are_refused(url: str) -> None:
    assert "no app is named" in Cli(url).refused(2, "worker", "--processes", 2)


def test_a_control_channel_that_nobody_handed_over_is_refused(it: Cli, spawn: Spawn) -> None:
    code, _, err = spawn("worker", "--drain", env={**it.env, "JOBQUEUE_CONTROL": "7"}).end()
    assert code == 2
    assert "JOBQUEUE_CONTROL is set by" in err


def test_programs_that_handlers_start_do_not_hold_the_channel_open(
    monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)  # As Popen(pass_fds=…) has it for the worker.
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv(channel.VARIABLE, channel.hand_over(theirs, path))
    with theirs:
        control = channel.ControlChannel.from_environment()
        assert control is not None
        levels: list[int] = []
        control.listen(levels.append)
        assert not theirs.get_inheritable()
        ours.close()
        wait_until(lambda: levels == [1])
        control._end.detach()


def test_the_time_to_a_new_start_grows_has_a_bound_and_begins_anew_after_health() -> None:
    delays = [backoff(exits) for exits in range(1, 40)]
    assert 0.1 <= delays[0] <= 0.2
    assert all(0.75 * BACKOFF_MAX <= delay <= BACKOFF_MAX for delay in delays[10:])
    worker = WorkerProcess(1)
    for _ in range(8):
        worker.retry()
    assert worker.exits == 8
    worker.started_work_at = -HEALTHY_AFTER  # By a clock that is past 0.
    assert worker.retry() <= 0.2
    assert worker.exits == 1
