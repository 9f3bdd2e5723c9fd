"""`worker --reload`: what is watched, and that real workers start afresh."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobqueue.supervisor.reload import SourceWatcher
from tests.cli.conftest import Cli, Process, Spawn

pytestmark = pytest.mark.databases("sqlite")

APP = """
import pathlib, time
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task
def version() -> int:
    return 1

@jobs.task
def hold(name: str) -> int:
    pathlib.Path(name).touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
    return 1
"""


@pytest.fixture
def it(url: str, tmp_path: Path) -> Cli:
    cli = Cli(url)
    (tmp_path / "reloaded.py").write_text(APP)
    cli.app = "reloaded:jobs"
    return cli


@pytest.fixture
def begin(it: Cli, spawn: Spawn, tmp_path: Path, wait_until: Any) -> Callable[..., Any]:
    """Starts a worker, of so many processes; returns its process and its log once all work."""

    def begin(processes: int = 1) -> tuple[Process, Callable[[], str]]:
        file = tmp_path / "log"
        with file.open("w") as log:
            env = it.env
            process = spawn("worker", "--reload", "--processes", processes, env=env, stderr=log)
        wait_until(lambda: len(it.json("workers")) == processes)
        return process, file.read_text

    return begin


def result(it: Cli, id_: int) -> Any:
    return json.loads(it.ok("--json", "wait", id_, "--timeout", "30s"))["result"]


def write(path: Path, text: str) -> None:
    """As editors do: never is a half of it there. Python takes its own bytecode for a text of the same second and size."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def test_a_change_starts_the_worker_afresh_and_running_jobs_go_back(
    it: Cli, begin: Any, tmp_path: Path, wait_until: Any
) -> None:
    process, log = begin()
    assert result(it, it.id("version")) == 1
    held = it.id("hold", "begun")
    wait_until((tmp_path / "begun").exists)
    # Of another size: Python takes bytecode of the same second and size for the new source's.
    write(tmp_path / "reloaded.py", APP.replace("return 1", "return 1 + 1"))
    wait_until(lambda: "reloaded.py has changed: restarting" in log())
    wait_until(lambda: result(it, it.id("version")) == 2)
    (tmp_path / "go").touch()
    assert result(it, held) == 2
    assert it.json("show", held)["attempt"] == 1  # The first one was given back.
    assert log().count("reloaded.py has changed: restarting") == 1
    assert "stopped at once, as asked; jobs that still ran are released" in log()
    assert " ERROR " not in log()
    process.popen.send_signal(signal.SIGTERM)
    assert process.end()[0] == 0, log()


def test_an_app_that_is_broken_waits_for_the_next_change(
    it: Cli, begin: Any, tmp_path: Path, wait_until: Any
) -> None:
    process, log = begin(processes=2)
    write(tmp_path / "reloaded.py", "def (:\n")
    wait_until(lambda: log().count("waiting for a change") == 2)
    assert "SyntaxError" in log()
    assert "stopped at once" not in log() and "watchfiles" not in log()  # No job ran.
    assert process.popen.poll() is None
    write(tmp_path / "reloaded.py", APP.replace("return 1", "return 1 + 2"))
    assert result(it, it.id("version")) == 3
    process.popen.send_signal(signal.SIGINT)
    assert process.end()[0] == 0, log()


def test_a_broken_app_can_be_left_with_a_signal(
    it: Cli, begin: Any, tmp_path: Path, wait_until: Any
) -> None:
    process, log = begin()
    write(tmp_path / "reloaded.py", "def (:\n")
    wait_until(lambda: "waiting for a change" in log())
    process.popen.send_signal(signal.SIGTERM)
    assert process.end()[0] == 0, log()


def test_a_worker_that_is_being_watched_may_end_by_itself(it: Cli, spawn: Spawn) -> None:
    env = it.env
    assert spawn("worker", "--reload", "--drain", env=env).end()[0] == 0


Changed = Callable[[SourceWatcher], str | None]


@pytest.fixture
def changed(wait_until: Any) -> Changed:
    """Waits for the next change: the kernel reports it a moment later."""

    def changed(watcher: SourceWatcher) -> str | None:
        found: list[str] = []
        wait_until(lambda: found.extend(filter(None, [watcher.changed()])) or found)
        return found[0]

    return changed


@pytest.fixture
def watcher(tmp_path: Path) -> SourceWatcher:
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner" / "a.py").write_text("1")
    for name in (".venv", "site-packages", "node_modules", "__pycache__"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").touch()
    return SourceWatcher.of_app("package.inner:jobs")


@pytest.mark.parametrize("name", ["package/inner/a.py", "new.py"])
def test_a_source_file_that_is_written_or_deleted_is_a_change(
    watcher: SourceWatcher, changed: Changed, tmp_path: Path, name: str
) -> None:
    assert watcher.changed() is None
    write(tmp_path / name, "12")
    assert changed(watcher) == name
    (tmp_path / name).unlink()
    assert changed(watcher) == name


def test_what_is_nobodys_source_is_not_watched(
    watcher: SourceWatcher, changed: Changed, tmp_path: Path
) -> None:
    for name in (".venv", "site-packages", "node_modules", "__pycache__"):
        (tmp_path / name / "a.py").write_text("changed")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "zzz.py").touch()
    assert changed(watcher) == "zzz.py"


def test_a_folder_that_may_not_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """To root every folder is readable, so that no real one would show it."""
    asked: dict[str, Any] = {}

    def watch(*_: Path, **options: Any) -> Iterator[set[Any]]:
        asked.update(options)
        return iter([set()])

    monkeypatch.setattr("jobqueue.supervisor.reload.watch", watch)
    SourceWatcher(Path())
    assert asked["ignore_permission_denied"]


def test_an_app_elsewhere_is_watched_too(
    tmp_path: Path, changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there / "elsewhere_package"):
        folder.mkdir(parents=True)
    (there / "elsewhere_package" / "__init__.py").touch()
    (there / "elsewhere_module.py").touch()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(there)
    package = SourceWatcher.of_app("elsewhere_package:jobs")
    module = SourceWatcher.of_app("elsewhere_module:jobs")
    nothing = SourceWatcher.of_app("no_such_package:jobs")
    (there / "elsewhere_package" / "new.py").touch()
    (there / "elsewhere_module.py").write_text("changed")
    assert changed(package) == "../there/elsewhere_package/new.py"
    assert changed(module) == "../there/elsewhere_module.py"
    assert nothing.changed() is None


def test_below_the_projects_folder_all_of_it_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the pyproject.toml that names the app, which imports its other modules from there."""
    (tmp_path / "pyproject.toml").write_text('[tool.jobqueue]\napp = "shop:jobs"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    watched: list[Path] = []

    def watch(*roots: Path, **_: Any) -> Iterator[set[Any]]:
        watched.extend(roots)
        raise KeyboardInterrupt

    monkeypatch.setattr("jobqueue.supervisor.reload.watch", watch)
    assert Cli(None)("worker", "--reload").exit_code == 130
    assert watched == [tmp_path]


def test_without_watchfiles_the_extra_is_named(it: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.delitem(sys.modules, "jobqueue.supervisor.reload")
    said = it.refused(2, "worker", "--reload")
    assert said.endswith("--reload needs the extra `reload`: pip install 'jobqueue[reload]'")
