"""Where the database and the app are: an argument, the environment, pyproject.toml, a default."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from jobqueue import JobQueue
from jobqueue.config import DEFAULT_URL, database, find_app
from jobqueue.errors import ConfigurationError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, and an environment that says nothing."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("JOBQUEUE_URL", "JOBQUEUE_APP"):
        monkeypatch.delenv(name, raising=False)
    # Above pytest's folder there may be a pyproject.toml of someone else.
    (tmp_path / "pyproject.toml").write_text("")
    return folder


def project(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")


def test_without_a_word_it_is_a_file_in_the_current_folder() -> None:
    assert database(None).url == DEFAULT_URL == "sqlite:///jobqueue.db"
    assert find_app(None) == (None, None)


def test_an_argument_wins_over_the_environment_and_that_over_the_project(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(here, '[tool.jobqueue]\nurl = "sqlite:///project.db"\napp = "project:jobs"\n')
    assert database(None).url == "sqlite:///project.db"
    assert find_app(None) == ("project:jobs", str(here))
    monkeypatch.setenv("JOBQUEUE_URL", "sqlite:///environment.db")
    monkeypatch.setenv("JOBQUEUE_APP", "environment:jobs")
    assert database(None).url == "sqlite:///environment.db"
    assert find_app(None) == ("environment:jobs", None)
    assert database("sqlite:///given.db").url == "sqlite:///given.db"
    assert find_app("given:jobs") == ("given:jobs", None)


def test_an_empty_variable_says_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_URL", "")
    assert database(None).url == DEFAULT_URL


@pytest.mark.parametrize("url", ["", " ", "\t\n"])
def test_an_empty_argument_is_an_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        database(url).url


def test_what_is_not_text_is_an_error() -> None:
    for given, what in ((5, "an int"), (make_url("sqlite:///x.db"), "a URL")):
        with pytest.raises(ConfigurationError, match=f"not text but {what}; write"):
            database(given).url


def test_the_nearest_project_counts_and_no_other(here: Path) -> None:
    project(here.parent, '[tool.jobqueue]\nurl = "sqlite:///parent.db"\n')
    assert database(None).url == "sqlite:///parent.db"
    project(here, "[project]\nname = 'inner'\n")
    assert database(None).url == DEFAULT_URL


def test_a_relative_path_of_the_project_begins_in_its_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(here.parent, '[tool.jobqueue]\nurl = "sqlite:///parent.db"\n')
    assert JobQueue().store.url.database == str(here.parent / "parent.db")
    assert JobQueue("sqlite:///own.db").store.url.database == str(here / "own.db")
    monkeypatch.setenv("JOBQUEUE_URL", "sqlite:///environment.db")
    assert JobQueue().store.url.database == str(here / "environment.db")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[tool.jobqueue", "pyproject.toml"),
        ("[tool]\njobqueue = 5\n", "not a table"),
        ("[tool.jobqueue]\nurl = 5\n", "not text"),
        ("[tool.jobqueue]\nurl = ['sqlite:///x.db']\n", "not text"),
    ],
)
def test_a_project_that_cannot_be_read_is_named(here: Path, text: str, what: str) -> None:
    project(here, text)
    with pytest.raises(ConfigurationError, match=what):
        database(None).url


@pytest.mark.parametrize("text", ["tool = 5\n", "[[tool]]\nname = 'x'\n"])
def test_a_tool_that_is_no_table_is_an_error_of_ours(here: Path, text: str) -> None:
    project(here, text)
    with pytest.raises(ConfigurationError):
        database(None).url


def test_a_project_that_is_not_utf8_is_an_error_of_ours(here: Path) -> None:
    (here / "pyproject.toml").write_bytes(b'[tool.jobqueue]\nurl = "\xff"\n')
    with pytest.raises(ConfigurationError, match="pyproject.toml"):
        database(None).url


def test_a_given_url_needs_no_readable_project(here: Path) -> None:
    project(here, "[tool.jobqueue")
    assert database("sqlite:///given.db").url == "sqlite:///given.db"
