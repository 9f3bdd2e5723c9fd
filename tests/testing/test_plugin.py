"""The pytest plugin as a project meets it: in runs of pytest of its own. And the programs of docs/testing.md, which are such a project."""

import subprocess
import sys
from pathlib import Path

import alembic.runtime.migration  # Here, or each run within this process imports them anew.
import alembic.script
import pytest

import jobqueue.testing
from tests.pages import ROOT, blocks, environment, named_by, outside

pytestmark = pytest.mark.slow

pytest_plugins = "pytester"

PAGE = ROOT / "docs" / "testing.md"


def run(folder: Path, *arguments: str, python: Path | str = sys.executable) -> str:
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=outside(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


def project(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content, "utf-8")
    return folder


def test_the_programs_of_the_page_are_right(tmp_path: Path) -> None:
    [(_, settings)] = blocks(PAGE, "toml")
    (tmp_path / "pyproject.toml").write_text(settings, "utf-8")
    programs: dict[str, str] = {}
    for _, block in blocks(PAGE, "python"):
        name = block.split("\n")[0].removeprefix("# ").removesuffix(".py")
        programs[name] = programs.get(name, "") + block
    python = environment(tmp_path / "venv", named_by(PAGE))
    project(tmp_path, **programs)
    said = run(tmp_path, "-W", "error", "--strict-config", python=python)
    written = sum(block.count("def test_") for block in programs.values())
    assert f"{written} passed" in said, said
    assert not list(tmp_path.glob("*.db"))  # Where the application's own queue would lead.


PLAIN = """
import sys

def test_nothing_was_imported():
    assert not {"jobqueue", "sqlalchemy"} & set(sys.modules)
"""
USES = "def test_it_is_used(jobqueue): ..."


def test_a_project_without_a_queue_pays_nothing_and_is_told_what_is_missing(
    tmp_path: Path,
) -> None:
    project(tmp_path, test_plain=PLAIN, test_uses=USES)
    said = run(tmp_path, "-W", "error", "--strict-config", "--strict-markers")
    assert "1 passed, 1 error" in said, said
    assert "fixture jobqueue: no app is named: write jobqueue_app" in said
    assert "pytest_jobqueue.py" not in said  # No frames of ours around that line.


def test_the_plugin_can_be_left_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USES)
    done = pytester.runpytest_inprocess("-p", "no:jobqueue")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines("*fixture 'jobqueue' not found*")


def test_the_app_is_found_as_by_the_command_line_and_its_own_error_is_shown(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyprojecttoml('[tool.jobqueue]\napp = "app:jobs"\n[tool.pytest.ini_options]\n')
    project(pytester.path, app="from jobqueue import JobQueue\njobs = JobQueue()\n1 / 0\n")
    project(pytester.mkdir("tests"), test_uses=USES)
    monkeypatch.chdir(pytester.path / "tests")  # The command line finds the table from there, too.
    done = pytester.runpytest_inprocess()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*app.py:3: ZeroDivisionError*"])
    project(pytester.path, app="from jobqueue import JobQueue\njobs = JobQueue()\n")
    pytester.runpytest_inprocess("-n", "1").assert_outcomes(passed=1)
    assert not list(pytester.path.rglob("*.db"))


def test_a_suite_may_have_a_fixture_of_that_name(request: pytest.FixtureRequest) -> None:
    """Ours has none: all of its tests run beside the plugin."""
    assert request.config.pluginmanager.has_plugin("jobqueue")
