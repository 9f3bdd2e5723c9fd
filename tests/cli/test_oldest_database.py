"""A database that is too old for jobqueue: each command says so in one line, and makes nothing."""

import sqlite3

import pytest

from jobqueue import JobQueue
from jobqueue.errors import ConfigurationError
from jobqueue.store import postgres_session
from tests.cli.conftest import Cli


def nothing() -> None:
    """A task."""


@pytest.fixture
def said(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes what the machine has too old; returns how errors end."""
    if backend_name == "sqlite":
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
        return "; jobqueue needs 3.35 or newer"
    monkeypatch.setattr(postgres_session, "OLDEST", 990_000)
    return "; jobqueue needs 99 or newer"


@pytest.mark.parametrize("command", ["db upgrade", "db check", "list", "queues pause mail --force"])
def test_a_command_refuses_a_database_that_is_too_old(
    empty_url: str, said: str, command: str
) -> None:
    assert Cli(empty_url).refused(2, *command.split()).endswith(said)


def test_a_program_that_enqueues_refuses_a_database_that_is_too_old(url: str, said: str) -> None:
    def enqueue() -> None:
        with JobQueue(url) as jobs:
            jobs.task(nothing).enqueue()

    with pytest.raises(ConfigurationError) as raised:
        enqueue()
    assert str(raised.value).endswith(said)


def test_a_worker_ends_at_once_on_a_database_that_is_too_old(cli_with_app: Cli, said: str) -> None:
    assert said in cli_with_app.refused(2, "worker")


@pytest.mark.databases("postgres")
def test_doctor_finds_a_server_that_is_too_old(url: str, said: str) -> None:
    result = Cli(url)("doctor", "--json")
    assert result.exit_code == 1
    assert f'{said}"' in result.stdout and '"check": "database"' in result.stdout
