"""What a TAB is answered with."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobqueue.cli.main import cli
from jobqueue.records import AttemptError
from jobqueue.states import State
from jobqueue.store.counters import TransactionCounts
from jobqueue.store.database import Store
from tests.cli.conftest import ROOT, Cli

APP = """
from jobqueue import JobQueue

print("noise")
jobs = JobQueue()
jobs.queue("thumbs", max_pending=9)

@jobs.task(queue="sync", tags=("nightly",))
def sync_crm() -> None: ...
"""


def tab(line: str, shell: str = "bash", **env: str | None) -> str:
    """The whole answer to a TAB at the end of a line."""
    given = {
        "_JOBQUEUE_COMPLETE": f"{shell}_complete",
        "_JOBQUEUE_LINE": line,
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1) if shell == "zsh" else line.split(" ")[-1],
        **env,
    }
    result = CliRunner().invoke(cli, [], env=given)
    assert result.exit_code == 0, (result.exit_code, result.exception)
    return result.stdout


def values(line: str, **env: str | None) -> list[str]:
    return [word.removeprefix("plain,") for word in tab(line, **env).splitlines()]


@pytest.fixture(scope="module")
def backend_name() -> str:
    """What is asked of a database here is what `names_in_use` asks, which has a test on both."""
    return "sqlite"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("jobqueue li", ["list"]),
        ("jobqueue queues ", ["fair", "limit", "list", "pause", "purge", "rate", "resume"]),
        ("jobqueue completion ", ["bash", "zsh", "fish"]),
        ("jobqueue list --state ", sorted(State)),
        ("jobqueue list --state=ru", ["running"]),
        ("jobqueue enqueue s", ["sync_crm"]),
        ("jobqueue cancel --task ", ["exec", "of_database", "sync_crm"]),
        ("jobqueue queues pause 1 ", ["a:b", "default", "sync", "thumbs"]),
        ("jobqueue queues resume a:", ["b"]),
        ("jobqueue pause --task s", ["sync_crm"]),
        ("jobqueue resume --tag ", ["nightly", "x"]),
        ("jobqueue enqueue sync_crm --queue=s", ["sync"]),
        ("jobqueue worker -q default,t", ["default,thumbs"]),
        (
            "jobqueue worker --queues=default:2,",
            ["2,a:b", "2,sync", "2,thumbs"],
        ),
        ("jobqueue list --tag ", ["nightly", "x"]),
        ("jobqueue schedules pause ni", ["nightly"]),
        ("jobqueue schedules preview ", ["nightly"]),
        ("jobqueue list --app no_such:app --tag 'x", ["x"]),
        ("jobqueue enqueue sync_crm --unique-until d", ["deleted"]),
        ("jobqueue enqueue --from ", ["file,"]),
        ("jobqueue exec -- ./b", ["file,./b"]),
        ("jobqueue exec --cwd ", ["dir,"]),
        ("jobqueue --version --de", ["--debug"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tab_completes(
    bare: Cli, make_app: Callable[..., str], line: str, expected: list[str]
) -> None:
    bare.id("of_database", "--queue", "a:b", "--tag", "x")
    bare.ok("schedules", "add", "nightly", "of_database", "--every", "1d")
    assert values(line, JOBQUEUE_URL=bare.url, JOBQUEUE_APP=make_app(APP)) == expected


def test_a_tab_completes_the_id_of_an_error_and_shows_which_it_is(bare: Cli) -> None:
    counts = TransactionCounts()
    counts.error("sync", AttemptError("OSError", "gone", None, "app/crm.py:sync"), State.FAILED)
    store = Store(str(bare.url))
    with store.write() as connection:
        counts.write(connection, store)
    store.close()
    (id_,) = values("jobqueue retry --error ", JOBQUEUE_URL=bare.url)
    assert values(f"jobqueue list --error {id_[:5]}", JOBQUEUE_URL=bare.url) == [id_]
    shown = tab("jobqueue retry --error ", "fish", JOBQUEUE_URL=bare.url)
    assert f"{id_}\tsync OSError app/crm.py:sync" in shown


def test_the_first_tab_shows_the_commands_in_every_shell() -> None:
    first = {shell: tab("jobqueue ", shell).splitlines() for shell in ("bash", "zsh", "fish")}
    assert {word.removeprefix("plain,") for word in first["bash"]} == set(cli.commands)
    assert set(first["zsh"][1::3]) == set(cli.commands)
    assert "plain,list\tList jobs, newest first." in first["fish"]
    assert tab("jobqueue list --state=ru", "zsh") == "plain\n--state=running\n_\n"
    assert tab("jobqueue list --state=ru", "fish") == "plain,--state=running\n"


@pytest.mark.parametrize(
    "env",
    [
        {"JOBQUEUE_APP": "no_such:app"},
        {"JOBQUEUE_URL": "nonsense"},
        {"JOBQUEUE_URL": "postgresql://u@127.0.0.1:1/d"},
        {},
    ],
)
def test_a_tab_says_no_error_and_makes_no_file(env: dict[str, str], tmp_path: Path) -> None:
    result = tab("jobqueue list --queue d", **{"JOBQUEUE_URL": None, "JOBQUEUE_APP": None, **env})
    assert result == ""
    assert list(tmp_path.iterdir()) == []


def test_the_script_of_bash_completes_words_with_colons(tmp_path: Path) -> None:
    program = tmp_path / "jobqueue"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobqueue "$@"\n')
    program.chmod(0o755)
    script = Cli(None).ok("completion", "bash")
    line = "jobqueue list --app a:b --url sqlite:///x.db --state=ru"
    script += f'COMP_LINE="{line} --tag" COMP_POINT={len(line)}\n'
    script += f'_jobqueue_completion {program} ru =; printf "%s\\n" "${{COMPREPLY[@]}}"\n'
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "running\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_can_be_read_by_it(shell: str) -> None:
    script = Cli(None).ok("completion", shell)
    assert Cli(None).json("completion", shell) == {"script": script}
    program = shutil.which(shell)
    if program is not None:  # It says nothing about a shell that is not here.
        done = subprocess.run([program, "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
