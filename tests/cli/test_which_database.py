"""Which database a command is about: reading makes none, and the default is named where it is used."""

import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from jobqueue import JobQueue
from jobqueue.cli.context import CliContext
from jobqueue.config import WORKER
from jobqueue.errors import SchemaOutdated
from jobqueue.web import Server, create_app
from tests.cli.conftest import Cli, Spawn
from tests.web.conftest import Client

DEFAULT = "jobqueue.db, the default: no --url or $JOBQUEUE_URL names a database"
READS = ["list", "show 1", "wait 1", "stats", "queues", "workers", "tasks", "db check"]
STEERS = ["cancel 1", "retry --all --yes", "delete 1", "prune", "queues resume mail"]


def nothing() -> None:
    """A task."""


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file with another program's table, which must be as it was when the test ends."""
    made: list[tuple[Path, bytes]] = []

    def make(name: str) -> Path:
        file = tmp_path / name
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER)")
            connection.commit()
        made.append((file, file.read_bytes()))
        return file

    yield make
    for file, content in made:
        assert file.read_bytes() == content


@pytest.mark.parametrize("command", READS + STEERS)
def test_a_command_that_enqueues_nothing_makes_no_file_and_no_table(
    offline: Cli, theirs: Callable[[str], Path], tmp_path: Path, command: str
) -> None:
    theirs("theirs.db")
    for name in ("missing.db", "theirs.db"):
        error = offline.refused(1, *command.split(), "--url", f"sqlite:///{name}")
        assert str(tmp_path / name) in error
        assert "jobqueue db upgrade" in error
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.db"]


def test_a_call_or_a_request_that_only_reads_makes_nothing(empty_url: str) -> None:
    with JobQueue(empty_url) as jobs:
        reads: list[Callable[[], Any]] = [
            lambda: list(jobs.list()),
            lambda: jobs.get(1),
            lambda: jobs.cancel(1),
        ]
        for read in reads:
            with pytest.raises(SchemaOutdated, match="there is no queue in .*: check the URL"):
                read()
        assert jobs.enqueue_many([]) == []
        with Server(create_app(jobs), port=0) as server, Client(base_url=server.url) as client:
            for path in ("jobs", "jobs/1", "queues", "workers", "stats"):
                error = client.refused(503, "GET", f"/api/{path}")
                assert "jobqueue db upgrade" in error["message"]
            assert client.get("/readyz").status_code == 503
        assert jobs.store.revision() is None


def test_a_job_or_a_pause_makes_the_file(offline: Cli, tmp_path: Path) -> None:
    offline.id("t", "--url", "sqlite:///jobs.db")
    offline.ok("queues", "pause", "mail", "--force", "--url", "sqlite:///paused.db")
    for name in ("jobs.db", "paused.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_another_programs_file_gets_tables_by_an_enqueue_that_names_it_or_an_upgrade(
    offline: Cli, theirs: Callable[[str], Path], make_app: Callable[..., str], tmp_path: Path
) -> None:
    theirs("jobqueue.db")
    pause = ["queues", "pause", "mail", "--force"]
    for command in (["enqueue", "t"], ["worker", "--drain"], pause):
        offline.app = make_app() if command[0] == "worker" else None
        error = offline.refused(1, *command)
        assert "has the tables of another program, and no queue: name it, with --url" in error
    by_name = "sqlite:///jobqueue.db"
    error = offline.refused(1, *pause, "--url", by_name)
    assert "of another program, and no queue: run jobqueue db upgrade" in error
    copies = [tmp_path / f"copy{number}.db" for number in range(3)]
    for copy in copies:
        copy.write_bytes((tmp_path / "jobqueue.db").read_bytes())
    offline.id("t", "--url", f"sqlite:///{copies[0]}")
    offline.app = make_app()
    offline.ok("worker", "--drain", "--url", f"sqlite:///{copies[1]}")
    offline.ok("db", "upgrade", "--url", f"sqlite:///{copies[2]}")
    for copy in copies:
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
            assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert offline.json("db", "check", "--url", f"sqlite:///{copy}")["problems"] == []


def test_a_transaction_in_another_programs_file_needs_its_name(
    offline: Cli, theirs: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = create_engine(f"sqlite:///{theirs('jobqueue.db')}")
    with JobQueue() as unnamed, Session(engine) as session, session.begin():
        task = unnamed.task(name="t")(nothing)
        with pytest.raises(SchemaOutdated, match="name it, with --url or as JobQueue"):
            task.within(session).enqueue()
    copy = tmp_path / "copy.db"
    copy.write_bytes((tmp_path / "jobqueue.db").read_bytes())
    other = create_engine(f"sqlite:///{copy}")
    with JobQueue(f"sqlite:///{copy}") as named:
        list_before = pytest.raises(SchemaOutdated, list, named.list())
        assert "no queue" in str(list_before.value)
        with Session(other) as session, session.begin():
            job = named.task(name="t")(nothing).within(session).enqueue()
        assert job.state == "available"
        with named.store.read() as connection:
            journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        assert journal == "wal", "the connection that read before was set for another's file"
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize("with_app", [False, True])
def test_one_line_says_that_the_default_is_used(
    offline: Cli, make_app: Callable[..., str], with_app: bool
) -> None:
    offline.app = make_app() if with_app else None
    for command in (["enqueue", "add", 1, 2], ["list"], ["stats"]):
        said = offline(*command).stderr
        assert said.count(DEFAULT) == 1, said
        assert DEFAULT not in offline(*command, "--url", "sqlite:///jobqueue.db").stderr
        assert offline("--json", *command).stderr == ""
    if with_app:
        log = offline("worker", "--drain").stderr
        assert log.count("jobqueue.db (the default: no database is named), all queues") == 1
        assert DEFAULT not in log, "in its log, which may be JSON"


def test_a_task_that_nobody_knows_is_told_where_no_app_could_check_it(
    offline: Cli, make_app: Callable[..., str]
) -> None:
    offline.url = "sqlite:///jobs.db"
    said = offline("enqueue", "tiny").stderr
    assert "enqueued in sqlite:///" in said
    assert "but no worker knows the task 'tiny' yet, and no app is named (--app)" in said
    lines = '{"task": "tiny"}\n{"task": "mini"}\n'
    said = offline("enqueue", "--from", "-", input=lines).stderr
    assert "no worker knows the tasks 'mini', 'tiny' yet" in said
    assert offline("enqueue", "tiny", "--json").stderr == ""
    assert "knows the task" not in offline("exec", "--", "true").stderr
    with JobQueue(offline.url) as jobs:
        jobs.task(name="tiny")(nothing)
        with jobs.worker():
            assert "knows the task" not in offline("enqueue", "tiny").stderr


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "processes", [(), pytest.param(("--processes=1",), marks=pytest.mark.slow)]
)
def test_a_command_in_a_subfolder_means_the_projects_file_and_app(
    make_app: Callable[..., str],
    spawn: Spawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: tuple[str, ...],
) -> None:
    settings = f'[tool.jobqueue]\nurl = "sqlite:///project.db"\napp = "{make_app()}"\n'
    (tmp_path / "pyproject.toml").write_text(settings)
    below = tmp_path / "tests"
    below.mkdir()
    monkeypatch.chdir(below)
    for command in (("enqueue", "add", "2", "3"), ("worker", "--drain", *processes)):
        code, _, said = spawn(*command, env={"JOBQUEUE_URL": "", "JOBQUEUE_APP": ""}).end()
        assert code == 0, said
    assert list(below.iterdir()) == []
    with JobQueue("sqlite:///../project.db") as jobs:
        assert jobs.get(1).result(timeout=0) == 5


@pytest.mark.parametrize("url", ['"sqlite:///shop.db"', ""], ids=["in the code", "default"])
def test_a_relative_path_in_the_code_of_the_projects_app_begins_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: Spawn, url: str
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.jobqueue]\napp = "shop:jobs"\n')
    source = (
        f"from jobqueue import JobQueue\njobs = JobQueue({url})\n"
        "@jobs.task\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    )
    (tmp_path / "shop.py").write_text(source)
    below = tmp_path / "sub"
    below.mkdir()
    (below / "shop.py").write_text("")  # The project's app goes first.
    monkeypatch.chdir(below)
    unset = {"JOBQUEUE_URL": "", "JOBQUEUE_APP": ""}
    for command in (("enqueue", "add", "2", "3"), ("worker", "--drain")):
        code, _, said = spawn(*command, env=unset).end()
        assert code == 0, said
    assert [path.name for path in below.iterdir()] == ["shop.py"]
    with JobQueue(f"sqlite:///../{'shop' if url else 'jobqueue'}.db") as jobs:
        assert jobs.get(1).result(timeout=0) == 5


def test_help_names_the_defaults(offline: Cli) -> None:
    page = " ".join(offline.ok("enqueue", "--help").split())
    assert "[default: $JOBQUEUE_URL, pyproject.toml, the app's, or sqlite:///jobqueue.db" in page
    assert "[default: $JOBQUEUE_APP, or pyproject.toml]" in page


def test_the_http_front_starts_without_a_queue_only_where_a_request_may_make_one(
    offline: Cli, make_app: Callable[..., str], spawn: Callable[..., Any], tmp_path: Path
) -> None:
    offline.url, offline.app = "sqlite:///jobs.db", make_app()
    assert "there is no queue in" in offline.refused(1, "web", "--read-only")
    process = spawn("web", "--port", 0, "--json", env={"JOBQUEUE_APP": offline.app})
    assert process.popen.stdout is not None
    url = process.popen.stdout.readline().split('"')[3]
    with Client(base_url=url) as client:
        client.refused(503, "GET", "/api/jobs")
        assert not (tmp_path / "jobqueue.db").exists()
        assert client.enqueue(2, 3).status_code == 202
        assert len(client.get("/api/jobs").json()) == 1
    process.popen.terminate()
    _, _, log = process.end()
    assert "the first job that is enqueued makes one, too" in log


@pytest.mark.databases("sqlite")
def test_a_front_whose_worker_makes_the_queue_does_not_ask_for_one(
    make_app: Callable[..., str], spawn: Spawn
) -> None:
    env = {"JOBQUEUE_APP": make_app(), "JOBQUEUE_URL": "sqlite:///jobs.db"}
    process = spawn("web", "--port", 0, "--json", "--with-worker", env=env)
    assert process.popen.stdout is not None
    assert "http://127.0.0.1" in process.popen.stdout.readline()
    process.popen.terminate()
    code, _, log = process.end()
    assert (code, "WARNING" in log) == (0, False), log


@pytest.mark.parametrize("known_by", ["options", "pyproject.toml"])
def test_advice_to_start_a_worker_can_be_typed_as_it_stands(
    offline: Cli, make_app: Callable[..., str], tmp_path: Path, known_by: str
) -> None:
    app, named = make_app(), ["--app", "", "--url", "sqlite:///shop.db"]
    if known_by == "options":
        named[1] = app
    else:
        (tmp_path / "pyproject.toml").write_text(
            f'[tool.jobqueue]\nurl = "sqlite:///shop.db"\napp = "{app}"\n'
        )
        named.clear()
    for id_, command in enumerate(("workers", "doctor", "why 3"), start=1):
        assert offline.id("add", 2, 3, "--queue", "mail", *named) == id_
        result = offline(*command.split(), *named)
        advised = re.search("jobqueue (worker.*)", result.stdout + result.stderr)
        assert advised is not None and ("--app" in advised[1]) == bool(named)
        offline.ok(*shlex.split(advised[1]), "--drain")
        assert offline.ok("wait", id_, *named) == f"{id_}  succeeded  5\n"


def test_advice_to_start_a_worker_says_what_it_needs_where_no_app_is_known(offline: Cli) -> None:
    id_ = offline.id("t")
    assert "jobqueue worker --app MODULE:NAME --queues default" in offline.ok("why", id_)
    assert "jobqueue worker --app MODULE:NAME\n" in offline("workers").stderr
    secret = "postgresql://u:secret@h/x"
    assert CliContext(given_url=secret, given_app="a:b").as_typed(WORKER) == (
        "jobqueue worker --app a:b --url 'postgresql://u:***@h/x'"
    )
