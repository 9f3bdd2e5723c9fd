"""`exec`: command lines as jobs, run by real workers; and nothing of a command is left behind, however it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.errors import ConfigurationError
from jobqueue.options import fixed
from jobqueue.worker.execute import exec_task
from tests.cli.conftest import Cli, Process, Spawn

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

APP = "from jobqueue import JobQueue\njobs = JobQueue()\n"

# Says its own process id and that of a child, in a file whose name it takes from its arguments; then neither ends.
FAMILY = 'sleep 300 & echo "$$ $!" > "$1.part"; mv "$1.part" "$1"; wait'
STUBBORN = "trap '' TERM; " + FAMILY.replace("sleep 300", "sh -c 'trap \"\" TERM; sleep 300'")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_task, "SIGKILL_DELAY", 0.3)


def enqueue(it: Cli, *argv: object) -> int:
    """With options before a "--", or the words of a command alone."""
    return int(it.ok("exec", *(argv if "--" in argv else ("--", *argv))))


def enqueue_without_backoff(it: Cli, max_attempts: int, *argv: str) -> int:
    """The command line has no option for it, and its default is seconds."""
    task = exec_task.EXEC.options(max_attempts=max_attempts, backoff=fixed(0.05))
    with JobQueue(it.url) as jobs:
        return jobs.enqueue_many([task.call(*argv)])[0].id


def work(it: Cli, *options: object) -> None:
    result = it("worker", "--drain", "--allow-exec", "--stats-interval", 0, *options)
    assert result.exit_code == 0, result.stderr


def run(it: Cli, *argv: object) -> Any:
    """The job of that command, run."""
    id_ = enqueue(it, "--max-attempts", 1, *(argv if "--" in argv else ("--", *argv)))
    work(it)
    return it.json("show", id_)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def family(
    it: Cli, spawn: Spawn, tmp_path: Path, wait_until: Any
) -> Callable[..., tuple[int, list[int], Process]]:
    """A worker in whose command, and in a child of that, nothing ends: (job, their pids, the worker)."""

    def start(
        *options: object, script: str = FAMILY, worker: Any = ()
    ) -> tuple[int, list[int], Process]:
        file = tmp_path / "pids"
        id_ = enqueue(it, *options, "--", "sh", "-c", script, "sh", file)
        process = spawn("worker", "--allow-exec", *worker, env=it.env)
        wait_until(file.exists)
        pids = [int(pid) for pid in file.read_text().split()]
        assert all(map(alive, pids))
        return id_, pids, process

    return start


@pytest.fixture
def all_gone(wait_until: Any) -> Callable[[list[int]], None]:
    def wait(pids: list[int]) -> None:
        wait_until(lambda: not any(map(alive, pids)))

    return wait


# What is recorded


@pytest.mark.databases("sqlite", "postgres")
def test_the_exit_code_0_is_success_and_the_output_is_the_result(it: Cli) -> None:
    job = run(it, "sh", "-c", "echo one; echo two >&2; echo three")
    assert (job["state"], job["task"]) == ("succeeded", "exec")
    assert job["result"] == {"exit_code": 0, "output": "one\ntwo\nthree\n", "signal": None}


@pytest.mark.databases("sqlite", "postgres")
def test_another_exit_code_is_an_error_with_the_end_of_the_output(it: Cli) -> None:
    job = run(it, "sh", "-c", "echo before; echo it broke >&2; exit 3")
    assert (job["state"], job["result"]) == ("failed", None)
    assert job["error"]["type"] == "jobqueue.worker.execute.exec_task.CommandFailed"
    assert job["error"]["message"] == "exit code 3\nbefore\nit broke"
    assert job["attempts"][-1]["error"]["traceback"] == "before\nit broke\n"


def test_it_is_tried_again_as_other_jobs_are(it: Cli, tmp_path: Path) -> None:
    once = f"test -e {tmp_path}/once && echo $JOBQUEUE_ATTEMPT && exit 0; touch {tmp_path}/once; exit 9"
    id_ = enqueue_without_backoff(it, 2, "sh", "-c", once)
    work(it)
    job = it.json("show", id_)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["errored", "succeeded"]
    assert job["result"]["output"] == "2\n"


def test_a_command_that_dies_by_a_signal_says_by_which(it: Cli) -> None:
    job = run(it, "sh", "-c", "kill -9 $$")
    assert job["error"]["message"] == "killed by SIGKILL"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no-such-command-here"], "the command 'no-such-command-here' was not found"),
        (["./plain"], "the command './plain' cannot be run: Permission denied"),
        (["--cwd", "/no/such", "--", "ls"], "the folder '/no/such' cannot be used"),
        (["a" * 5000], "cannot be run: File name too long"),
    ],
)
def test_what_cannot_be_run_fails_at_once_with_one_line(
    it: Cli, tmp_path: Path, argv: list[str], message: str
) -> None:
    (tmp_path / "plain").touch(0o644)
    id_ = enqueue(it, *argv)
    work(it)
    job = it.json("show", id_)
    assert (job["state"], job["attempt"], job["max_attempts"]) == ("failed", 1, 10)
    assert message in job["error"]["message"]
    assert "\n" not in job["error"]["message"]
    assert job["attempts"][-1]["error"]["traceback"] is None


def test_no_shell_reads_the_words(it: Cli) -> None:
    words = ["$HOME", "; exit 3", "*", "", "-5", "--json", "a=b", "ü € 🎉", "two\nlines"]
    argv = [*python("import sys; print(*sys.argv[1:], sep='|')"), *words]
    job = run(it, *argv)
    assert job["result"]["output"] == "|".join(words) + "\n"
    assert job["args"] == argv


def test_the_end_of_much_output_is_kept_in_bounded_memory(it: Cli) -> None:
    code = "import sys\nfor n in range(200000): sys.stdout.write(f'line {n:07} €\\n')"
    job = run(it, *python(code))
    output = job["result"]["output"]
    assert output.endswith("line 0199999 €\n")
    assert 65_000 < len(output.encode()) <= 65_536


def test_bytes_that_are_no_text_are_kept_as_far_as_they_can_be(it: Cli) -> None:
    code = "import sys; sys.stdout.buffer.write(b'a\\xff\\x00b\\xe2\\x82' + b'\\x1b[31m')"
    job = run(it, *python(code))
    assert job["result"]["output"] == "a�\\x00b�\x1b[31m"


def test_a_tail_cut_within_a_character_begins_with_a_whole_one(it: Cli) -> None:
    job = run(it, *python("print('€' * 30000, end='')"))
    assert set(job["result"]["output"]) == {"€"}


# Where and how it runs


def test_its_environment_is_the_workers_without_secrets_and_with_the_job(
    it: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBQUEUE_TOKEN", "secret")
    monkeypatch.setenv("OF_THE_WORKER", "inherited")
    own = ["--env", "MORE=x=1", "--env", "EMPTY="]
    job = run(it, *own, "--", *python("import json, os; print(json.dumps(dict(os.environ)))"))
    seen = json.loads(job["result"]["output"])
    assert "JOBQUEUE_URL" not in seen and "JOBQUEUE_TOKEN" not in seen
    assert (seen["OF_THE_WORKER"], seen["MORE"], seen["EMPTY"]) == ("inherited", "x=1", "")
    assert seen["JOBQUEUE_JOB_ID"] == str(job["id"])
    assert (seen["JOBQUEUE_ATTEMPT"], int(seen["JOBQUEUE_FENCE"])) == ("1", job["fence"] - 1)
    assert job["kwargs"] == {"env": {"MORE": "x=1", "EMPTY": ""}}


def test_it_runs_where_it_is_told_and_has_no_input(it: Cli, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    job = run(it, "--cwd", tmp_path / "there", "--", "sh", "-c", "pwd; cat; echo end")
    assert job["result"]["output"] == f"{tmp_path / 'there'}\nend\n"


def test_what_it_leaves_in_its_group_ends_with_it(it: Cli, all_gone: Any, wait_until: Any) -> None:
    """And does not hold the job up, although it holds the pipe."""
    job = run(it, "sh", "-c", "sleep 300 & echo $!")
    all_gone([int(job["result"]["output"])])


def test_what_has_left_its_group_goes_on_and_does_not_hold_the_job_up(it: Cli) -> None:
    code = (
        "import os, sys, time\n"
        "gone, tell = os.pipe()\n"
        "if os.fork() == 0:\n os.setsid()\n print(os.getpid(), flush=True)\n os.close(tell)\n"
        " time.sleep(300)\n"
        "os.close(tell)\nos.read(gone, 1)"
    )
    job = run(it, *python(code))
    pid = int(job["result"]["output"])
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


# How it is ended


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("script", [FAMILY, STUBBORN])
def test_at_its_timeout_all_of_it_is_ended(
    it: Cli, tmp_path: Path, script: str, all_gone: Any
) -> None:
    file = tmp_path / "pids"
    line = ("sh", "-c", "echo output; " + script, "sh", file)
    id_ = enqueue(it, "--timeout", "3s", "--max-attempts", 1, "--", *line)
    work(it, "-c", 1)
    job = it.json("show", id_)
    assert (job["state"], job["attempts"][-1]["outcome"]) == ("failed", "timed out")
    assert "ran out of its 3 s; the command was terminated\noutput" in job["error"]["message"]
    all_gone([int(pid) for pid in file.read_text().split()])


def test_a_command_may_clean_up_when_it_is_terminated(it: Cli, tmp_path: Path) -> None:
    script = f"trap 'sleep 0.6; touch {tmp_path}/clean; exit 0' TERM; echo ready; sleep 300 & wait"
    id_ = enqueue(it, "--timeout", "3s", "--max-attempts", 1, "--", "sh", "-c", script)
    work(it)
    assert it.json("show", id_)["attempts"][-1]["outcome"] == "timed out"
    assert (tmp_path / "clean").exists()


def test_when_it_is_cancelled_all_of_it_is_ended(it: Cli, family: Any, all_gone: Any) -> None:
    id_, pids, _ = family()
    it.ok("cancel", id_)
    assert it("wait", id_).exit_code == 1
    job = it.json("show", id_)
    assert (job["state"], job["reason"]) == ("cancelled", "cancelled while it ran")
    all_gone(pids)


def test_the_first_signal_lets_it_end(
    it: Cli, spawn: Spawn, tmp_path: Path, wait_until: Any
) -> None:
    script = (
        f"touch {tmp_path}/begun; while ! test -e {tmp_path}/go; do sleep 0.05; done; echo done"
    )
    id_ = enqueue(it, "sh", "-c", script)
    worker = spawn("worker", "--allow-exec", env=it.env)
    wait_until((tmp_path / "begun").exists)
    worker.popen.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in (worker.popen.stderr.readline()))
    (tmp_path / "go").touch()
    code, _, err = worker.end()
    assert code == 0, err
    assert it.json("show", id_)["result"]["output"] == "done\n"


@pytest.mark.parametrize("script", [FAMILY, STUBBORN])
def test_the_second_signal_ends_all_of_it_and_gives_the_job_back(
    it: Cli, family: Any, all_gone: Any, script: str
) -> None:
    id_, pids, worker = family(script=script, worker=["--shutdown-timeout", "1h"])
    worker.popen.send_signal(signal.SIGTERM)
    worker.popen.send_signal(signal.SIGINT)
    assert worker.end()[0] == 1
    job = it.json("show", id_)
    assert (job["state"], job["attempt"]) == ("available", 0)
    all_gone(pids)


@pytest.mark.parametrize("script", [FAMILY, STUBBORN])
def test_kill_9_of_the_worker_ends_all_of_it(
    it: Cli, family: Any, all_gone: Any, script: str
) -> None:
    _, pids, worker = family(script=script)
    worker.popen.kill()
    all_gone(pids)


def test_kill_9_of_the_supervisor_and_the_worker_ends_all_of_it(
    it: Cli, family: Any, all_gone: Any
) -> None:
    _, pids, supervisor = family(worker=("--processes", "1"))
    worker = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    supervisor.popen.kill()
    os.kill(worker, signal.SIGKILL)
    all_gone(pids)


def test_an_orphan_guard_that_was_killed_has_a_successor(
    it: Cli, family: Any, all_gone: Any, wait_until: Any, tmp_path: Path
) -> None:
    _, pids, worker = family()
    children = Path(f"/proc/{worker.popen.pid}/task").glob("*/children")
    (guard,) = {int(pid) for file in children for pid in file.read_text().split()} - {*pids}
    os.kill(guard, signal.SIGKILL)
    enqueue(it, "touch", tmp_path / "another")
    wait_until((tmp_path / "another").exists)
    worker.popen.kill()
    all_gone(pids)


def test_a_fork_of_a_process_with_an_orphan_guard_has_one_of_its_own(all_gone: Any) -> None:
    program = """
import os, subprocess, sys
from jobqueue.worker.orphan_guard import orphan_guard as guard

def watch(key):
    command = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL, start_new_session=True)
    guard.watch(key, command.pid)
    print(command.pid, flush=True)

watch("1 1")
if (child := os.fork()) == 0:
    watch("2 1")
    os._exit(0)
os.waitpid(child, 0)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        of_parent, of_child = (int(parent.stdout.readline()) for _ in range(2))  # type: ignore[union-attr]
        all_gone([of_child])
        assert alive(of_parent)
        parent.communicate()
    all_gone([of_parent])


def test_an_orphan_guard_ends_with_its_process_in_order_and_without_a_word() -> None:
    program = (
        "from jobqueue.worker.orphan_guard import orphan_guard as guard\n"
        "key = guard.expect(7, 3)\nprint(guard._process.pid)\nguard.unwatch(key)\n"
    )
    line = [sys.executable, "-X", "dev", "-c", program]
    said = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
    assert (said.stderr, alive(int(said.stdout))) == ("", False)


def test_a_command_that_was_just_being_started_is_found(tmp_path: Path, all_gone: Any) -> None:
    """The worker died between the start and the word of it."""
    script = tmp_path / "dying.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "from jobqueue.worker.orphan_guard import OrphanGuard\n"
        "OrphanGuard().expect(7, 3)\n"
        "mine = {'JOBQUEUE_JOB_ID': '7', 'JOBQUEUE_FENCE': '3', 'JOBQUEUE_WORKER_PID': str(os.getpid())}\n"
        "for more in ({}, {'JOBQUEUE_FENCE': '4'}):\n"
        "    line = ['sleep', '300']\n"
        "    print(subprocess.Popen(line, env={**os.environ, **mine, **more}, stdout=subprocess.DEVNULL, start_new_session=True).pid)\n"
        "sys.stdout.flush()\nos._exit(0)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    said = subprocess.run(
        [sys.executable, script], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    found, other = map(int, said.stdout.split())
    try:
        all_gone([found])
        assert alive(other)
    finally:
        os.kill(other, signal.SIGKILL)


# Who runs it


def test_a_worker_that_may_not_leaves_it_and_says_so(
    it: Cli, spawn: Spawn, wait_until: Any
) -> None:
    id_ = enqueue(it, "touch", "never")
    result = it("worker", "--max-jobs", 1, "--poll", "0.05")
    assert result.exit_code == 0, result.stderr
    assert "no task is named 'exec' in this worker" in result.stderr
    job = it.json("show", id_)
    assert (job["state"], job["attempt"]) == ("scheduled", 0)
    assert "no worker that claimed it knows the task 'exec'" in job["reason"]
    assert not Path("never").exists()


def test_enqueueing_says_when_nobody_would_run_it(it: Cli, family: Any) -> None:
    assert "jobqueue worker --allow-exec" in it("exec", "--", "true").stderr
    family()
    assert it("exec", "--", "true").stderr == ""


def test_an_embedded_worker_may_too_and_the_app_itself_learns_no_task(url: str, it: Cli) -> None:
    id_ = enqueue(it, "sh", "-c", "echo hello")
    with JobQueue(url) as jobs:
        with jobs.worker(allow_exec=True):
            assert jobs.get(id_).result(timeout=60) == {
                "exit_code": 0,
                "output": "hello\n",
                "signal": None,
            }
        assert "exec" not in jobs.registry


def test_an_app_with_a_task_of_that_name_is_refused(url: str) -> None:
    with JobQueue(url) as jobs:
        jobs.task(lambda_free, name="exec")
        with pytest.raises(ConfigurationError, match="the app has a task named 'exec'"):
            jobs.worker(allow_exec=True)
        jobs.worker()


def lambda_free() -> None: ...


# The command


def test_it_takes_the_options_of_enqueue(it: Cli) -> None:
    options = ["--queue", "ops", "--priority", 3, "--delay", "1h", "--max-attempts", 2]
    options += ["--timeout", "5m", "--unique-key", "nightly", "--tag", "a", "--tag", "b"]
    job = it.json("exec", *options, "--", "ls", "-l")
    assert job["created"] is True
    assert (job["task"], job["args"], job["kwargs"]) == ("exec", ["ls", "-l"], {})
    assert (job["queue"], job["priority"], job["state"]) == ("ops", 3, "scheduled")
    assert (job["max_attempts"], job["timeout"], job["tags"]) == (2, 300, ["a", "b"])
    assert it.json("exec", *options, "--", "ls", "-l")["created"] is False


def test_it_waits(it: Cli, spawn: Spawn) -> None:
    spawn("worker", "--allow-exec", env=it.env)
    job = it.json("exec", "--wait", "--", "sh", "-c", "echo x")
    assert job["result"]["output"] == "x\n"
    failed = it("exec", "--wait", "--max-attempts", 1, "--", "sh", "-c", "exit 4")
    assert failed.exit_code == 1
    assert "exit code 4" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing ARGV"),
        (["--"], "Missing ARGV"),
        (["--", ""], "argv: the command is empty"),
        (["--", "", "-l"], "argv: the command is empty"),
        (["--env", "NAME", "--", "ls"], "'NAME' is not KEY=VALUE"),
        (["--env", "=x", "--", "ls"], "'=x' is not KEY=VALUE"),
        (["--env", "A=1", "--env", "A=1", "--", "ls"], "env: 'A' is given twice"),
        (["ls", "-l"], "-l"),
        (["--", "ls", "\udcff"], "invalid UTF-8"),
        (["--wait-timeout", "3", "--", "ls"], "--wait"),
        (["--timeout", "soon", "--", "ls"], "timeout"),
    ],
)
def test_bad_input_is_refused(it: Cli, arguments: list[str], message: str) -> None:
    assert message in it.refused(2, "exec", *arguments)
    assert it.json("list") == []


def test_a_line_written_with_other_arguments_fails_at_once(it: Cli) -> None:
    """Rows are data: what is no command line is refused, not run."""
    ids = [
        int(Cli(it.url).ok("enqueue", "exec", *words))
        for words in (["--args", "[1, 2]"], ["--args", "[]"], ["ls", "shell=true"])
    ]
    work(it)
    for id_ in ids:
        job = it.json("show", id_)
        assert (job["state"], job["attempts"][-1]["outcome"]) == ("failed", "refused"), job


def test_a_command_that_kills_its_worker_each_time_ends_failed(it: Cli, spawn: Spawn) -> None:
    """It counts as a crash: the next attempt is made by a child process of the worker."""
    id_ = enqueue_without_backoff(it, 1000, "sh", "-c", "kill -9 $PPID; sleep 60")
    supervisor = spawn("worker", "--processes", 1, "--allow-exec", env=it.env)
    job = json.loads(it("--json", "wait", id_, "--timeout", "60s").stdout)
    assert job["state"] == "failed"
    assert "crashed: SIGKILL" in job["error"]["message"]
    supervisor.popen.send_signal(signal.SIGTERM)
    assert supervisor.end()[0] == 0
