"""A relative path of a SQLite file means one file, whatever folder the program goes to."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from jobqueue import JobQueue
from jobqueue.errors import ConfigurationError
from jobqueue.job import Job
from jobqueue.store import migrate

LONG = 60.0  # seconds, for what takes a second

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

APP = """
import os
from pathlib import Path
from jobqueue import JobQueue

jobs = JobQueue({url})

@jobs.task
def add(x: int, y: int) -> int:
    return x + y

@jobs.task
def move(folder: str) -> None:
    os.chdir(folder)

@jobs.task(isolation="process")
def isolated() -> list[str]:
    add.enqueue(1, 1)
    return [str(jobs.store.url.database), str(Path.cwd()), str(JobQueue("sqlite:///new.db").store.url.database)]
"""


class Folders:
    """Where the program begins, and where it goes to."""

    def __init__(self, root: Path) -> None:
        self.home, self.away = root / "home", root / "away"
        self.home.mkdir()
        self.away.mkdir()

    def leave(self) -> None:
        os.chdir(self.away)

    def one_file(self) -> bool:
        """True when nothing is where the program went to, and a database where it began."""
        return (self.home / "app.db").stat().st_size > 0 and not list(self.away.iterdir())


@pytest.fixture
def folders(empty_url: str, tmp_path: Path) -> Iterator[Folders]:
    """The program is at home; a handler may change the folder of the tests' own process."""
    before = Path.cwd()
    there = Folders(tmp_path)
    os.chdir(there.home)
    yield there
    os.chdir(before)


@pytest.fixture
def app(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with imported(folders, monkeypatch, '"sqlite:///app.db"') as module:
        yield module


class imported:
    """The app as a module that a child process can import."""

    def __init__(self, folders: Folders, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        (folders.home / "folder_app.py").write_text(APP.format(url=url))
        monkeypatch.syspath_prepend(str(folders.home))
        importlib.invalidate_caches()

    def __enter__(self) -> ModuleType:
        self.module = importlib.import_module("folder_app")
        return self.module

    def __exit__(self, *_: object) -> None:
        self.module.jobs.close()
        del sys.modules["folder_app"]


def first_use(app: ModuleType, folders: Folders) -> None:
    folders.leave()
    app.add.enqueue(1, 2)


def worker_is_made_there(app: ModuleType, folders: Folders) -> None:
    job = app.add.enqueue(1, 2)
    folders.leave()
    with app.jobs.worker():
        assert job.result(timeout=LONG) == 3


def worker_is_started_there(app: ModuleType, folders: Folders) -> None:
    job, worker = app.add.enqueue(1, 2), app.jobs.worker()
    folders.leave()
    with worker:
        assert job.result(timeout=LONG) == 3
        worker._parts.notifier.notify()


def closed_and_used_again(app: ModuleType, folders: Folders) -> None:
    app.add.enqueue(1, 2)
    app.jobs.close()
    folders.leave()
    app.add.enqueue(1, 2)


def within(app: ModuleType, folders: Folders) -> None:
    engine = create_engine(f"sqlite:///{folders.home}/app.db")
    folders.leave()
    with Session(engine) as session, session.begin():
        app.add.within(session).enqueue(1, 2)
    engine.dispose()


def a_handler_moves(app: ModuleType, folders: Folders) -> None:
    with app.jobs.worker(concurrency=4):
        app.move.enqueue(str(folders.away)).result(timeout=LONG)
        made: list[Job[int]] = [app.add.enqueue(n, n) for n in range(50)]
        assert [job.result(timeout=LONG) for job in made] == [2 * n for n in range(50)]


@pytest.mark.parametrize(
    "use",
    [
        first_use,
        worker_is_made_there,
        worker_is_started_there,
        closed_and_used_again,
        within,
        a_handler_moves,
    ],
)
def test_a_program_that_goes_to_another_folder_keeps_its_database(
    use: Callable[[ModuleType, Folders], None], app: ModuleType, folders: Folders
) -> None:
    use(app, folders)
    assert folders.one_file()


@pytest.mark.parametrize("said_by", ["the program", "pyproject.toml", "nobody"])
def test_a_child_process_has_the_database_that_its_parent_has(
    said_by: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports the program in the folder to which a handler went, and runs its job there."""
    if said_by == "pyproject.toml":
        (folders.home / "pyproject.toml").write_text('[tool.jobqueue]\nurl = "sqlite:///app.db"\n')
    given = '"sqlite:///app.db"' if said_by == "the program" else ""
    with imported(folders, monkeypatch, given) as app, app.jobs.worker():
        app.move.enqueue(str(folders.away)).result(timeout=LONG)
        database, there, new = app.isolated.enqueue().result(timeout=LONG)
    name = "jobqueue.db" if said_by == "nobody" else "app.db"
    assert database == app.jobs.store.url.database == str(folders.home / name)
    assert (there, new) == (str(folders.away), str(folders.away / "new.db"))
    assert not list(folders.away.iterdir())


def test_a_file_that_the_url_forbids_to_make_is_not_made(folders: Folders) -> None:
    with JobQueue("sqlite:///file:app.db?mode=rw&uri=true") as jobs:
        with pytest.raises(ConfigurationError, match="mode=rw in its URL says not to make it"):
            jobs.worker().start()
        assert not list(folders.home.iterdir())
        migrate.upgrade("sqlite:///app.db")
        jobs.store.require_schema()
