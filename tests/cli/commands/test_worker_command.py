"""`worker`: real processes, real signals."""

import json
import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from jobqueue.cli import log_format
from tests.cli.conftest import Cli, Process, Spawn

pytestmark = pytest.mark.databases("sqlite")

APP = """
import pathlib, signal, sys, threading, time
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task
def touch_and_nap(path: str, seconds: float) -> str:
    pathlib.Path(path).touch()
    time.sleep(seconds)
    return "done"

@jobs.task
def touch_and_wait(path: str) -> None:
    pathlib.Path(path).touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)

@jobs.task
def shout(text: str) -> None:
    print(text)
"""


@pytest.fixture
def begin(it: Cli, spawn: Spawn, tmp_path, wait_until) -> Callable[..., tuple[int, Process]]:
    """Starts a worker and a job in it that naps; returns both when the handler runs."""

    def begin(seconds: float, *options: object) -> tuple[int, Process]:
        file = tmp_path / "begun"
        id_ = it.id("touch_and_nap", file, seconds)
        worker = spawn("worker", *options, env=it.env)
        wait_until(file.exists)
        return id_, worker

    return begin


def heard_until(worker: Process, text: str) -> str:
    """What a worker says on stderr, to the first line with that text; or all of it."""
    said = ""
    while text not in said and (line := worker.popen.stderr.readline()):
        said += line
    return said


@pytest.mark.databases("sqlite", "postgres")
def test_one_signal_lets_the_running_job_end_and_exits_with_0(it: Cli, begin: Any) -> None:
    id_, worker = begin(0.7)
    waiting = it.id("shout", "hi", "--delay", "1h")
    worker.popen.send_signal(signal.SIGTERM)
    code, out, err = worker.end()
    assert (code, out) == (0, ""), err
    assert "SIGTERM: stopping" in err
    assert it.json("show", id_)["result"] == "done"
    assert it.json("show", waiting)["state"] == "scheduled"
    assert it.json("workers") == []


@pytest.mark.databases("sqlite", "postgres")
def test_a_second_signal_gives_the_job_back_and_exits_with_1_at_once(it: Cli, begin: Any) -> None:
    id_, worker = begin(300, "--shutdown-timeout", "200")
    worker.popen.send_signal(signal.SIGTERM)
    assert "SIGTERM: stopping" in heard_until(worker, "stopping")
    assert worker.popen.poll() is None
    worker.popen.send_signal(signal.SIGINT)
    code, _, err = worker.end()  # Long before the handler ends, or the time that it has for that.
    assert code == 1, err
    job = it.json("show", id_)
    assert (job["state"], job["attempt"]) == ("available", 0)


def test_the_shutdown_timeout_gives_the_job_back_and_exits_with_1(it: Cli, begin: Any) -> None:
    id_, worker = begin(60, "--shutdown-timeout", "0.2", "--json")
    worker.popen.send_signal(signal.SIGINT)
    code, out, err = worker.end()
    assert code == 1, err
    summary = json.loads(out)
    assert (summary["in_order"], summary["signal"], summary["processed"]) == (False, "SIGINT", 0)
    job = it.json("show", id_)
    assert (job["state"], job["attempt"]) == ("available", 0)


@pytest.mark.databases("sqlite", "postgres")
def test_drain_runs_what_is_there_and_ends_by_itself(it: Cli, spawn: Spawn) -> None:
    for number in range(20):
        it.id("shout", f"line {number}")
    it.id("shout", "later", "--delay", "1h")
    code, out, err = spawn("worker", "--drain", env=it.env).end()
    assert code == 0, err
    assert len(out.splitlines()) == 20  # What handlers print is theirs.
    assert "not waited for: 1 job delayed" in err
    assert [job["state"] for job in it.json("list")] == ["scheduled"] + ["succeeded"] * 20


@pytest.mark.databases("sqlite", "postgres")
def test_max_jobs_ends_by_itself(it: Cli) -> None:
    for _ in range(5):
        it.id("shout", "x")
    assert it("worker", "--max-jobs", 3, "-c", 1).exit_code == 0
    states = [job["state"] for job in it.json("list")]
    assert states.count("succeeded") == 3


def test_with_json_stdout_is_the_summary_alone_and_the_log_may_be_json_too(it: Cli) -> None:
    it.id("shout", "not on stdout")
    result = it("--json", "worker", "--drain", "--log-format", "json", "--name", "Ada")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["worker"], summary["processed"], summary["in_order"]) == ("Ada", 1, True)
    records = [json.loads(line) for line in result.stderr.splitlines()]
    assert {record["worker"] for record in records} == {"Ada"}
    (printed,) = [record for record in records if record["logger"] == "stdout"]
    assert (printed["message"], printed["task"]) == ("not on stdout", "shout")


def test_the_report_comes_at_its_interval(it: Cli, tmp_path) -> None:
    it.id("touch_and_nap", tmp_path / "x", 0.8)
    result = it("worker", "--stats-interval", "0.2", "--max-jobs", "1", "--drain")
    assert result.exit_code == 0
    assert result.stderr.count(" report: ") >= 2


def test_an_app_without_tasks_is_warned_of(url: str, make_app: Any) -> None:
    it = Cli(url)
    it.app = make_app("from jobqueue import JobQueue\njobs = JobQueue()\n")
    result = it("worker", "--drain")
    assert result.exit_code == 0
    assert "WARNING cli: the app registers no tasks" in result.stderr


def test_queues_that_nobody_uses_are_fine(it: Cli) -> None:
    assert it("worker", "--drain", "-q", "nobody,knows:3").exit_code == 0


def test_an_app_on_another_database_is_warned_of(url: str, make_app: Any) -> None:
    it = Cli(url)
    it.app = make_app(
        "from jobqueue import JobQueue\njobs = JobQueue('sqlite:///elsewhere.db')\n"
        "@jobs.task\ndef t(): ...\n"
    )
    result = it("worker", "--drain")
    assert result.exit_code == 0
    assert "the app's own queue is on sqlite:////" in result.stderr
    assert "/elsewhere.db: what handlers enqueue" in result.stderr


def test_logging_that_the_app_has_set_up_stays_its_own(
    it: Cli, make_app: Any, spawn: Spawn
) -> None:
    it.app = make_app(
        "import logging\nfrom jobqueue import JobQueue\n"
        "logging.basicConfig(level='INFO', format='MINE %(name)s %(message)s')\n"
        "jobs = JobQueue()\n@jobs.task\ndef t(): logging.getLogger('app').info('from the task')\n"
    )
    it.id("t")
    code, _, err = spawn("worker", "--drain", env=it.env).end()
    assert code == 0
    assert err.count("MINE app from the task") == 1
    assert len(re.findall("^MINE jobqueue.worker worker .* began", err, re.M)) == 1
    assert not [line for line in err.splitlines() if not line.startswith("MINE ")]


def test_handlers_that_the_app_gave_our_loggers_are_the_only_ones() -> None:
    logger = logging.getLogger("jobqueue")
    own = logging.NullHandler()
    logger.addHandler(own)
    try:
        with log_format.configured("text", None, debug=False):
            assert logger.handlers == [own]
            assert logger.propagate
    finally:
        logger.removeHandler(own)


def test_a_database_that_is_not_there_ends_the_worker_with_one_line(it: Cli) -> None:
    it.url = "postgresql://u:hunter2@127.0.0.1:1/d"
    message = it.refused(1, "worker")
    assert "cannot be reached" in message
    assert "hunter2" not in message


def test_a_signal_while_the_app_is_imported_exits_with_0(
    it: Cli, make_app: Any, spawn: Spawn, wait_until: Any, tmp_path
) -> None:
    it.app = make_app(
        "import pathlib, time\npathlib.Path('loading').touch()\n"
        # Not one long sleep: a signal just before it is heard after it.
        "while True: time.sleep(0.05)\n"
        "from jobqueue import JobQueue\njobs = JobQueue()\n"
    )
    worker = spawn("worker", env=it.env)
    wait_until((tmp_path / "loading").exists)
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.end() == (0, "", "")


SWALLOWS = """
import os, signal
from jobqueue import JobQueue
try:
    os.kill(os.getpid(), signal.SIGTERM)
except:
    pass
jobs = JobQueue()
"""


def test_a_signal_that_the_app_swallows_while_it_is_imported_exits_with_0(
    it: Cli, make_app: Any
) -> None:
    it.app = make_app(SWALLOWS)
    result = it("worker", "--drain")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_signal_between_the_import_and_the_start_exits_with_0(
    it: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = log_format.configured

    def stop(*args: Any, **how: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return configured(*args, **how)

    monkeypatch.setattr(log_format, "configured", stop)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        result = it("worker", "--drain", "--json")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (result.exit_code, json.loads(result.stdout)["signal"]) == (0, "SIGTERM")


@pytest.mark.databases("postgres")
def test_a_signal_while_no_connection_is_free_exits_with_0_after_one_line(
    it: Cli, spawn: Spawn
) -> None:
    role = make_url(it.url).database
    with psycopg.connect(it.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
        try:
            it.url = make_url(it.url).set(username=role).render_as_string()
            worker = spawn("worker", env=it.env)
            heard_until(worker, "no connection free")
            worker.popen.send_signal(signal.SIGTERM)
            code, out, err = worker.end()
        finally:
            connection.execute(f"DROP ROLE {role}")
    assert (code, out) == (0, "")
    assert "no connection free" not in err
    assert "Traceback" not in err


def test_pool_size_is_for_the_app_whatever_it_says_itself(url: str, make_app: Any) -> None:
    it = Cli(url)
    it.app = make_app(
        "import sys\nfrom jobqueue import JobQueue\n"
        f"jobs = JobQueue({url!r}, pool_size=7)\n"
        "print(jobs.store.engine.pool.status(), file=sys.stderr)\n"
    )
    most = 2 + url.startswith("sqlite")  # and the one kept for statements in autocommit
    assert re.search(rf"\b{most}\b", it("worker", "--drain", "--pool-size", 2).stderr)
    assert "pool_size" in it.refused(2, "worker", "--pool-size", "0")


def test_a_worker_whose_stderr_has_gone_works_on(it: Cli, spawn: Spawn) -> None:
    it.id("shout", "heard")
    reader, writer = os.pipe()
    os.close(reader)
    worker = spawn("worker", "--drain", env=it.env, stderr=writer)
    os.close(writer)
    code, out, _ = worker.end()
    assert (code, out) == (0, "heard\n")


def test_a_worker_whose_slots_are_stuck_exits_with_1_for_its_supervisor(
    it: Cli, spawn: Spawn, tmp_path: Any
) -> None:
    for number in range(2):
        it.id("touch_and_nap", tmp_path / str(number), 300, "--timeout", "0.2s", "--max-attempts=1")
    worker = spawn("worker", "-c", "2", "--json", env=it.env)
    code, out, err = worker.end()
    assert code == 1
    assert json.loads(out)["failure"] == "2 handlers ignored their timeouts and still run"
    assert "this worker stops: 2 handlers ignored their timeouts" in err
    assert "Traceback" not in err
    assert [job["state"] for job in it.json("list")] == ["failed", "failed"]


def test_autoscale_begins_small_and_grows_when_jobs_wait(
    it: Cli, spawn: Spawn, tmp_path: Any
) -> None:
    for number in range(4):
        it.id("touch_and_wait", tmp_path / str(number))
    worker = spawn("worker", "--autoscale", "1:3", "--drain", "--json", env=it.env)
    said = heard_until(worker, "slots: 1 -> 2: ")
    (tmp_path / "go").touch()
    code, out, err = worker.end()
    assert (code, json.loads(out)["processed"]) == (0, 4), err
    assert "began, slots: 1\n" in said
    assert "slots: 1 -> 2: " in said


HUNGRY = """
import os
from jobqueue import JobQueue

jobs = JobQueue()
kept = []

@jobs.task
def eat(size: int) -> int:
    kept.append(bytearray(size))
    return os.getpid()
"""


def test_a_worker_that_has_grown_too_large_ends_in_order(
    it: Cli, make_app: Any, spawn: Spawn
) -> None:
    it.app = make_app(HUNGRY)
    id_ = it.id("eat", 300_000_000)
    worker = spawn("worker", "--max-memory", "200MB", env=it.env)
    code, _, err = worker.end()
    assert code == 0, err
    assert re.search(r"stops in order: it has [34]\d\d MB of memory, more than 200 MB", err)
    assert it.json("show", id_)["state"] == "succeeded"
    assert it.json("workers") == []


def test_a_signal_while_the_worker_is_being_built_ends_it_in_order(
    it: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("jobqueue.cli.commands.worker.tune_gc", stop)
    id_ = it.id("touch_and_nap", "never", 0)
    result = it("worker", "--drain")
    assert result.exit_code == 0, result.stderr
    assert it.json("show", id_)["state"] == "available"


GO_AWAY = 'os.chdir("away")'


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("said", ["--url", "$JOBQUEUE_URL", "the app"])
def test_an_app_that_goes_to_another_folder_works_on_the_database_that_was_named(
    said: str, processes: int, empty_url: str, make_app: Any, spawn: Any, tmp_path: Path
) -> None:
    (tmp_path / "away").mkdir()
    given, moved = ('"sqlite:///here.db"', "") if said == "the app" else ("", GO_AWAY)
    app = make_app(
        f"import os\nfrom jobqueue import JobQueue\n{moved}\njobs = JobQueue({given})\n"
        f"{'' if moved else GO_AWAY}\n"
        "@jobs.task\ndef t() -> None:\n    jobs.registry['u'].enqueue()\n"
        "@jobs.task\ndef u() -> None: ...\n"
    )
    here = "sqlite:///here.db"
    offline = Cli(None)
    offline.ok("--url", here, "enqueue", "t")
    options = ["--url", here] if said == "--url" else []
    env = {"JOBQUEUE_APP": app, **({"JOBQUEUE_URL": here} if said == "$JOBQUEUE_URL" else {})}
    more = ["--processes", processes] if processes > 1 else []
    worker = spawn("worker", "--drain", *options, *more, env=env)
    code, _, err = worker.end(120)
    assert code == 0, err
    jobs = offline.json("--url", here, "list")
    assert {job["task"]: job["state"] for job in jobs} == {"t": "succeeded", "u": "succeeded"}
    assert not list((tmp_path / "away").glob("*.db"))
