"""`jobqueue demo` runs for real, and its proof can fail."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from rich.console import Console
from sqlalchemy import make_url

from jobqueue import JobQueue
from jobqueue.cli.main import cli
from jobqueue.cli.demo import app, run, verify
from jobqueue.cli.demo.verify import Proof, Run, recount
from jobqueue.cli.demo.output import MARGIN, Narration, commands, to_json
from jobqueue.errors import JobQueueError
from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store.jobs import Jobs
from jobqueue.store.stats import Monitor
from jobqueue.supervisor import worker_process
from tests.process_factory import forking_subprocess, popen

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"
FEW = 120  # of some 1,700 modules
modules = cache(app.modules)
"""Looking through the library, with what is installed in it, takes half a second."""


def start(*arguments: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    return popen(
        [sys.executable, "-m", "jobqueue", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        own_factory=True,
    )


def workers_in(folder: Path, *others: int) -> list[psutil.Process]:
    """Processes that a demo in that folder has started and that still run there; not this one, nor those others."""
    found = []
    for pid in set(psutil.pids()) - {os.getpid(), *others}:
        with contextlib.suppress(OSError):  # It has ended, and a zombie is nowhere.
            if os.readlink(f"/proc/{pid}/cwd") == str(folder.resolve()):
                found.append(psutil.Process(pid))
    return found


@pytest.fixture
def few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command in this process, on a part of the library; its workers are real."""
    names = modules()[:FEW]
    monkeypatch.setattr(run, "modules", lambda: names)
    monkeypatch.setattr(run, "CONCURRENCY", 1)  # Each job of the killed worker has a process.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        return int(exit_.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a demo in this process are forked. Without it their interpreters are new ones."""
    monkeypatch.setattr(worker_process, "subprocess", forking_subprocess())


# On a database that others use


@pytest.mark.databases("sqlite")
@pytest.mark.usefixtures("forked")
def test_it_runs_on_a_given_database_and_disturbs_nothing_there(
    url: str, tmp_path: Path, few: Callable[..., tuple[int, str, str]]
) -> None:
    with JobQueue(url) as mine:

        @mine.task
        def untouched() -> None: ...

        job = untouched.enqueue()
        before = job.record()
        code, out, err = few("demo", "--url", url, "--json")
        assert code == 0, err
        document = json.loads(out)
        assert document["ok"] and document["problems"] == [] and len(document["proof"]) == 6
        assert job.record() == before
        assert Monitor(mine.store).workers() == []
        assert_is_the_record(document, mine, FEW)
    assert workers_in(tmp_path) == []


def assert_is_the_record(document: dict[str, Any], jobs: JobQueue, files: int) -> None:
    """The numbers are those of the database, counted here by other means."""
    assert document["files"] == document["accepted_results"] == files > 100
    records = list(jobs.list(queue=document["queue"], limit=None))
    assert len(records) == files and {record.state for record in records} == {State.SUCCEEDED}
    assert document["attempts"]["charged"] == sum(record.attempt for record in records)
    reader = Jobs(jobs.store)
    outcomes = [one.outcome for record in records for one in reader.attempts(record)]
    assert document["attempts"]["lost"] == outcomes.count("lost") >= 1
    assert document["attempts"]["succeeded"] == files
    assert document["attempts"]["errored"] > files / app.FAILS_ONCE_EVERY / 2
    (line,) = [line for line in document["proof"] if " attempts: " in line]
    whole, *parts = [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", line)]
    assert parts == [files, outcomes.count("errored"), outcomes.count("lost")]
    assert whole == sum(parts) == len(outcomes)
    assert all(len(line) <= 80 - MARGIN for line in document["proof"])
    assert sum(worker["jobs"] for worker in document["workers"]) == files
    killed = document["killed"]
    assert 0 < killed["recovered_in"] < 30
    held = list(Jobs(jobs.store).find(JobFilter(ids=tuple(killed["held"]))))
    assert held
    assert killed["worker"] in [worker["worker"] for worker in document["workers"]]


@pytest.mark.databases("postgres")
def test_it_makes_the_schema_where_there_is_none(
    empty_url: str, few: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = few("demo", "--url", empty_url)
    assert code == 0, err
    assert err == ""
    assert " NOT " not in out and len(re.findall(r"^ok  ", out, re.MULTILINE)) == 6
    assert "100 %" in out and "\x1b" not in out
    (delete,) = re.findall(r"^jobqueue (delete .*)$", out, re.MULTILINE)
    assert few(*shlex.split(delete), "--yes")[0] == 0
    with JobQueue(empty_url) as jobs:
        assert list(jobs.list(limit=1)) == []
    (folder,) = re.findall(r"^rm -r (.*)$", out, re.MULTILINE)
    assert sorted(path.name for path in Path(folder).iterdir()) == [
        f"worker-{number}.log" for number in (1, 2, 3)
    ]


# However it ends, its workers end too


@pytest.fixture
def running(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    with start("demo", folder=tmp_path) as process:
        wait_until(lambda: len(workers_in(tmp_path, process.pid)) == run.WORKERS)
        try:
            yield process, workers_in(tmp_path, process.pid)
        finally:
            if process.poll() is None:
                process.kill()


def test_ctrl_c_stops_the_workers_and_exits_with_130(running: Any) -> None:
    process, workers = running
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not [worker for worker in workers if worker.is_running()]


def test_kill_9_of_the_demo_takes_the_workers_with_it(
    running: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    process, _ = running
    process.kill()
    process.wait()
    wait_until(lambda: not workers_in(tmp_path))


def test_it_says_so_when_its_workers_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    url = make_url(f"sqlite:///{tmp_path}/demo.db")
    with pytest.raises(JobQueueError, match="died with exit code 1: it said nothing"):
        run.perform(url, tmp_path, Narration(Console(quiet=True)))


def test_it_gives_up_when_its_workers_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as when another worker, of all queues, has taken the jobs."""
    monkeypatch.setattr(run, "TIMEOUT", 0.5)
    monkeypatch.setattr(run, "modules", lambda: ["abc.py"])
    monkeypatch.setattr(run, "WORKERS", 0)
    url = make_url(f"sqlite:///{tmp_path}/demo.db")
    with pytest.raises(JobQueueError, match=r"1 of 1 jobs had not ended \(1 available\)"):
        run.perform(url, tmp_path, Narration(Console(quiet=True)))


# The proof


@pytest.fixture
def worked(url: str) -> Iterator[tuple[JobQueue, dict[str, app.Digest]]]:
    """A queue where a worker has done the demo's work on a part of the library."""
    names = [name for name in modules() if not app.is_slow(name)]
    some = [name for name in names if app.fails_once(name)][:3]
    some += [name for name in names if not app.fails_once(name)][:7]
    jobs = app.jobs.elsewhere(url)
    task = app.digest.options(queue="demo-test")
    handles = jobs.enqueue_many(task.call(name) for name in some)
    with jobs.worker(queues=["demo-test"]):
        for _ in jobs.as_completed(handles, timeout=30):
            pass
    yield jobs, recount(some)
    jobs.close()


def tamper(jobs: JobQueue, sql: str) -> None:
    with jobs.store.write() as connection:
        assert connection.exec_driver_sql(sql).rowcount != 0


def proven(worked: tuple[JobQueue, dict[str, app.Digest]]) -> Proof:
    jobs, files = worked
    return verify.verify(files, jobs, "demo-test")


def test_the_proof_holds_for_what_was_done(worked: Any) -> None:
    found = proven(worked)
    assert found.wrong == [] and len(found.right) == 6
    assert found.outcomes == {"succeeded": 10, "errored": 3}
    assert found.accepted == 10 and found.attempts == 13


TAMPERED = {
    "a result": 'UPDATE jobqueue_jobs SET result = \'{"sha256":"0","lines":1}\' WHERE id = 4',
    "no result": "UPDATE jobqueue_jobs SET result = NULL WHERE id = 4",
    "a lost job": "DELETE FROM jobqueue_jobs WHERE id = 5",
    "a job twice": (
        "INSERT INTO jobqueue_jobs (task, queue, state, args, result, attempt, fence)"
        " SELECT task, queue, state, args, result, attempt, fence FROM jobqueue_jobs WHERE id = 6"
    ),
    "a failed job": "UPDATE jobqueue_jobs SET state = 'failed' WHERE id = 7",
    "an attempt too many": "UPDATE jobqueue_jobs SET attempt = attempt + 1, fence = 9 WHERE id = 8",
    "an attempt forgotten": "DELETE FROM jobqueue_attempts WHERE job_id = 1",
    "a result accepted twice": "UPDATE jobqueue_counters SET succeeded = succeeded + 1",
    "a worker lost": "UPDATE jobqueue_attempts SET outcome = 'lost' WHERE job_id = 2",
    "an error that was not staged": (
        "UPDATE jobqueue_jobs SET args = (SELECT args FROM jobqueue_jobs WHERE id = 9) WHERE id = 3"
    ),
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("what", TAMPERED)
def test_the_proof_fails_for_a_database_that_was_tampered_with(worked: Any, what: str) -> None:
    assert proven(worked).wrong == []
    tamper(worked[0], TAMPERED[what])
    assert proven(worked).wrong


def test_the_proof_fails_on_either_database(worked: Any) -> None:
    tamper(worked[0], TAMPERED["a result"])
    (wrong,) = proven(worked).wrong
    assert "job 4 " in wrong


@pytest.mark.databases("sqlite")
def test_the_proof_fails_for_a_file_that_has_changed(worked: Any) -> None:
    _, files = worked
    name = next(iter(files))
    files[name] = app.Digest(files[name].sha256, files[name].lines + 1)
    (wrong,) = proven(worked).wrong
    assert name in wrong and "SHA-256" in wrong


@pytest.mark.databases("sqlite")
def test_the_proof_fails_if_the_kill_hit_nothing(worked: Any) -> None:
    jobs, files = worked
    (wrong,) = verify.verify(files, jobs, "demo-test", killed=["somebody"]).wrong
    assert "held nothing" in wrong


@pytest.mark.usefixtures("forked")
def test_without_url_it_works_on_a_file_of_its_own_and_a_result_tampered_with_makes_it_fail(
    few: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = run.verify
    monkeypatch.setenv("JOBQUEUE_URL", f"sqlite:///{tmp_path}/precious.db")

    def after_tampering(files: Any, jobs: JobQueue, queue: str, killed: Any = None) -> Proof:
        tamper(jobs, "UPDATE jobqueue_jobs SET result = '{}' WHERE id = 77")
        return honest(files, jobs, queue, killed)

    monkeypatch.setattr(run, "verify", after_tampering)
    code, out, err = few("demo")
    assert code == 1
    assert "NOT" in out and "job 77" in out
    assert err.startswith("error: ") and "job 77" in err and err.count("\n") == 1
    assert not (tmp_path / "precious.db").exists()
    (folder,) = re.findall(r"^rm -r (.*)$", out, re.MULTILINE)
    assert Path(folder).is_relative_to(tmp_path)
    with JobQueue(f"sqlite:///{folder}/demo.db") as jobs:
        assert len(list(jobs.list(limit=None))) == FEW


# What it prints


def test_commands_to_paste_have_no_password_and_nothing_in_its_place(tmp_path: Path) -> None:
    url = make_url("postgresql+psycopg://me:secret@db.example/app?password=secret2&sslmode=require")
    lines = [line for _, line in commands(Run(url, "demo-1", tmp_path))]
    for line in lines[:-1]:
        assert "postgresql+psycopg://me@db.example/app?sslmode=require" in shlex.split(line)


def test_commands_to_paste_name_the_program_as_a_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "jobqueue"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    url = make_url("sqlite:///demo.db")
    for path, named in ((tmp_path, str(program)), (program.parent, "jobqueue")):
        monkeypatch.setenv("PATH", str(path))
        (_, listed), (_, delete), _ = commands(Run(url, "demo-1", tmp_path / "run"))
        assert listed.startswith(f"{named} list ") and delete.startswith(f"{named} delete ")


def test_a_file_of_the_demos_own_is_removed_with_its_folder(tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path}/demo.db")
    assert [line for _, line in commands(Run(url, "demo-1", tmp_path))][1:] == [f"rm -r {tmp_path}"]


@pytest.mark.databases("sqlite")
def test_what_was_found_is_green_or_red_and_adds_up(worked: Any, tmp_path: Path) -> None:
    jobs, files = worked
    found = Run(jobs.store.url, "demo-test", tmp_path, files=len(files))
    found.proof = verify.verify(files, jobs, "demo-test")
    found.proof.wrong.append("NOT so")
    screen = Console(
        file=io.StringIO(), width=80, force_terminal=True, color_system="standard", highlight=False
    )
    Narration(screen).found(found)
    out = screen.file.getvalue()
    assert len(re.findall(r"\x1b\[1;32mok +\x1b", out)) == 6
    assert re.search(r"\x1b\[1;31mwrong +\x1b\[0mNOT so", out)
    assert re.search(r"^total +10 +3 +0$", out, re.MULTILINE)


@pytest.mark.databases("sqlite")
def test_the_recording_in_the_readme_shows_the_proof_as_it_is_today(worked: Any) -> None:
    def words(text: str) -> str:
        return re.sub(r"[\d,]*\d", "9", text)

    picture = ElementTree.parse(ROOT / "docs" / "demo.svg")
    texts = [words((text.text or "").replace("\xa0", " ")) for text in picture.iter(f"{SVG}text")]
    said = [words(claim) for claim in proven(worked).right]
    assert [text for text in texts if text in said] == said[:-1]  # Here no worker was killed.


def test_recount_and_task_agree_on_any_end_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [b"", b"\n", b"a", b"a\n", b"a\nb", b"\r\nb\r", b"\n\n"]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.py").write_bytes(content)
    monkeypatch.setattr(app, "LIBRARY", tmp_path)
    monkeypatch.setattr(verify, "LIBRARY", tmp_path)
    monkeypatch.setattr(app, "fails_once", lambda _: False)
    monkeypatch.setattr(app, "is_slow", lambda _: False)
    names = app.modules()
    assert len(names) == len(contents)
    assert recount(names) == {name: app.digest(name) for name in names}


def test_a_worker_is_killed_at_work_and_another_one_if_it_had_just_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[list[int]] = [[], [7], [], [8, 9]]
    lost: list[list[int]] = [[], [8]]
    made = Run(make_url(f"sqlite:///{tmp_path}/demo.db"), "demo-test", tmp_path)
    with run.worker_processes(made) as workers:
        names = [worker.name for worker in workers]
        found = iter(looks)
        monkeypatch.setattr(run, "_held", lambda *_: dict.fromkeys(names, next(found)))
        left = iter(lost)
        monkeypatch.setattr(run, "_lost", lambda *_: next(left))
        pid = run.kill_one(made, workers, Jobs(JobQueue(str(made.url)).store))
        assert made.killed == names[:2] and made.held == [8] and pid == workers[1].pid
    assert list(made.exit_codes) == names[2:] and list(found) == list(left) == []


def test_what_the_killed_worker_held_counts_though_the_reaper_was_quicker(worked: Any) -> None:
    jobs, _ = worked
    tamper(jobs, "UPDATE jobqueue_jobs SET crashes = 1 WHERE id = 4")
    tamper(jobs, "UPDATE jobqueue_jobs SET state = 'running', worker = 'killed' WHERE id = 5")
    tamper(jobs, "UPDATE jobqueue_jobs SET state = 'running', worker = 'other' WHERE id = 6")
    assert sorted(run._lost(Jobs(jobs.store), [3, 4, 5, 6], "killed")) == [4, 5]


@pytest.mark.databases("sqlite")
def test_the_document_is_json(worked: Any, tmp_path: Path) -> None:
    jobs, files = worked
    found = Run(jobs.store.url, "demo-test", tmp_path)
    found.proof = verify.verify(files, jobs, "demo-test")
    document = json.loads(json.dumps(to_json(found)))
    assert document["ok"] and [row["jobs"] for row in document["workers"]] == [10]
