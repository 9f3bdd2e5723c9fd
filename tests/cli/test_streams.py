"""Pipes, terminals, encodings, and data that would like to act on a terminal."""

import contextlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import click.testing
import pytest

from jobqueue.cli.tables import Column, table
from jobqueue.display import ago, duration
from jobqueue.printable_text import escape_controls, escape_json, escape_lines
from tests.cli.conftest import ROOT, Cli, Process, Spawn

pytestmark = pytest.mark.slow

EVIL = "\x1b[31m\x1b]0;x\x07 \x9b31m \u202egnp.exe\u2066 \u200b\r\b\x7f \u2028 \ufeff end"
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@pytest.fixture(params=["sqlite"])
def backend_name(request: pytest.FixtureRequest) -> str:
    """Streams are the same whatever the database."""
    return request.param


# Inert output


def test_inert_text_has_nothing_that_a_terminal_acts_on() -> None:
    assert not HARMFUL.search(escape_controls(EVIL))
    assert "\n" not in escape_controls("a\nb")
    assert escape_controls("Zürich 東京 🐎") == "Zürich 東京 🐎"
    assert escape_lines("a\tb\n\x1bc") == ["a   b", "\\x1bc"]
    assert escape_controls("\ud800") == "\\ud800"


def test_inert_json_is_valid_and_means_the_same() -> None:
    for value in (EVIL, {EVIL: [EVIL]}, "Zürich", "\U000e0041", 5, None):
        for ascii_only in (True, False):
            text = escape_json(value, ascii_only=ascii_only)
            assert json.loads(text) == value
            assert not HARMFUL.search(text)
    assert escape_json([float("nan"), {"x": float("inf")}]) == '[null, {"x": null}]'


def test_no_command_prints_data_that_acts_on_a_terminal(cli_with_app: Cli) -> None:
    it = cli_with_app
    it.id("fail", EVIL, "--unique-key", EVIL.replace("\0", ""))
    it.id("echo", EVIL)
    it.drain()
    commands: list[tuple[object, ...]] = [
        ("list",),
        ("show", 1),
        ("show", 2),
        ("wait", 1),
        ("wait", 2),
        ("stats",),
        ("tasks",),
        ("show", EVIL),
        ("list", "--task", EVIL),
        ("enqueue", EVIL),
        ("enqueue", "add", EVIL, 1),
        (EVIL,),
        ("list", f"--{EVIL}"),
        ("--url", f"sqlite:////no/{EVIL}/x.db", "list"),
        ("--app", EVIL, "tasks"),
        ("worker", "--name", EVIL),
    ]
    for command in commands:
        for words in (command, ("--json", *command)):
            result = it(*words)
            assert not HARMFUL.search(result.stdout), words
            assert not HARMFUL.search(result.stderr), words


# Tables


def columns() -> list[Column[dict[str, Any]]]:
    return [
        Column("id", lambda row: row["id"], right=True),
        Column("state", lambda row: row["state"]),
        Column("task", lambda row: row["task"], rank=1, least=8),
        Column("detail", lambda row: row["detail"], rank=2, least=8),
    ]


ROWS = [
    {"id": 1, "state": "succeeded", "task": "short", "detail": "x" * 300},
    {"id": 2**62, "state": "available", "task": "a_very_long_task_name" * 3, "detail": "東" * 50},
]


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 200])
def test_a_table_fits_the_width_and_never_cuts_ids_and_states(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", str(width))
    table(ROWS, columns())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert str(2**62) in lines[2]
    assert "succeeded" in lines[1]
    assert max(map(cell_len, lines)) <= max(width, 19 + 2 + 9)


def test_in_a_pipe_a_table_has_all_columns_whatever_the_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table(ROWS, columns())
    out = capsys.readouterr().out
    assert "a_very_long_task_name" * 3 in out
    assert "\x1b" not in out


def test_durations_and_ages_are_short() -> None:
    from datetime import UTC, datetime, timedelta

    texts = [duration(s) for s in (0.0000123, 0.0123, 0.9996, 1.5, 59.9, 60, 3725, 90_000, None)]
    assert texts == ["0.012ms", "12.3ms", "1s", "1.5s", "59.9s", "1m", "1h2m", "1d1h", ""]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ages = [ago(now - timedelta(seconds=s), now) for s in (0.5, 5, 3599, 3700, -3600, 200_000)]
    assert ages == ["now", "5s ago", "1h ago", "1h ago", "in 1h", "2d ago"]


# Real pipes and terminals


def test_a_reader_that_goes_is_no_error(bare: Cli, spawn: Spawn) -> None:
    bare.json("enqueue", "--from", "-", input='{"task": "t"}\n' * 2000)
    for words in (("list", "--limit", 0), ("list", "--limit", 0, "--json")):
        process = spawn(*words, env={"JOBQUEUE_URL": bare.url or "", "PYTHONUNBUFFERED": ""})
        assert process.popen.stdout is not None
        process.popen.stdout.readline()
        process.popen.stdout.close()
        assert process.popen.stderr is not None
        assert process.popen.stderr.read() == ""
        assert process.popen.wait(60) == 0


def test_closed_streams_are_no_error_and_never_become_the_database(bare: Cli) -> None:
    bare.id("t")
    command = f'"{sys.executable}" -m jobqueue list <&- >&- 2>&-'
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JOBQUEUE_URL": bare.url or ""}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bare.json("list")[0]["task"] == "t"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_an_error_in_one_line(bare: Cli, spawn: Spawn, unbuffered: str) -> None:
    bare.id("t")
    env = {"JOBQUEUE_URL": bare.url or "", "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        code, _, err = spawn("list", env=env, stdout=full).end()
    assert (code, err) == (1, "error: No space left on device\n")


@pytest.fixture
def dead_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


SPEAKS = """
from jobqueue import JobQueue
jobs = JobQueue()
print("imported")
@jobs.task
def speak() -> int:
    print("said")
    return 5
"""


@pytest.mark.parametrize(
    "options", [(), ("--processes", 1), ("--json",), ("--json", "--log-format=json")]
)
def test_a_worker_whose_log_has_lost_its_reader_works_and_ends_in_order(
    bare: Cli, make_app: Any, spawn: Spawn, dead_pipe: int, options: tuple[object, ...]
) -> None:
    id_ = bare.id("speak", "--max-attempts", 1)
    env = {"JOBQUEUE_URL": bare.url or "", "JOBQUEUE_APP": make_app(SPEAKS)}
    env["PYTHONUNBUFFERED"] = ""
    assert spawn("worker", "--drain", *options, env=env, stderr=dead_pipe).end()[0] == 0
    assert bare.json("show", id_)["result"] == 5


def test_a_message_that_nobody_reads_does_not_end_the_command(
    bare: Cli, spawn: Spawn, dead_pipe: int
) -> None:
    bare.id("t")
    env = {"JOBQUEUE_URL": bare.url or "", "PYTHONUNBUFFERED": ""}
    assert spawn("cancel", "--all", "--yes", env=env, stderr=dead_pipe).end()[:2] == (
        0,
        "cancelled 1 job\n",
    )


def test_an_answer_that_nobody_reads_leaves_the_exit_code(
    cli_with_app: Cli, spawn: Spawn, dead_pipe: int
) -> None:
    id_ = cli_with_app.id("fail")
    cli_with_app.drain()
    env = {"JOBQUEUE_URL": cli_with_app.url or "", "PYTHONUNBUFFERED": ""}
    code, _, err = spawn("wait", id_, env=env, stdout=dead_pipe).end()
    assert code == 1
    assert f"job {id_} (fail) failed" in err


def test_the_exit_code_is_decided_before_the_interpreter_ends(
    bare: Cli, spawn: Spawn, tmp_path: Path
) -> None:
    """What an app still prints then, on a full disk, changes nothing."""
    text = "import atexit\nfrom jobqueue import JobQueue\njobs = JobQueue()\n"
    (tmp_path / "late.py").write_text(text + "atexit.register(print, 'bye')\n")
    env = {"JOBQUEUE_URL": bare.url or "", "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        code, _, err = spawn("--app", "late:jobs", "tasks", env=env, stdout=full).end()
    assert (code, err.count("\n")) == (0, 1), err


PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("env", "words"),
    [(PLAIN, ("show", 1)), ({"PYTHONIOENCODING": "ascii"}, ("list", "--json"))],
)
def test_an_ascii_terminal_gets_ascii(
    bare: Cli, spawn: Spawn, env: dict[str, str], words: tuple[object, ...]
) -> None:
    bare.id("t", "Zürich" * 50, "東京")
    env = {"JOBQUEUE_URL": bare.url or "", "PYTHONUNBUFFERED": "", **env}
    code, out, err = spawn(*words, env=env).end()
    assert (code, err) == (0, "")
    assert out.isascii()
    assert "rich" in out
    if "--json" in words:
        assert "Zürich" in json.dumps(json.loads(out), ensure_ascii=False)


def on_terminal(
    words: list[object], env: dict[str, str], width: int = 80, send: bytes = b""
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; returns its exit code and what the terminal got."""
    pid, master = pty.fork()
    if pid == 0:
        ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        full = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **env}
        full.pop("COLUMNS", None)
        os.execve(sys.executable, [sys.executable, "-m", "jobqueue", *map(str, words)], full)
    got = b""
    if send:
        while b"[y/N]" not in got:
            got += os.read(master, 4096)
        os.write(master, send)
    try:
        while piece := os.read(master, 65536):
            got += piece
    except OSError:
        pass
    _, status = os.waitpid(pid, 0)
    os.close(master)
    return os.waitstatus_to_exitcode(status), got.decode()


def test_colours_are_for_terminals_that_want_them(bare: Cli) -> None:
    bare.id("t")
    env = {"JOBQUEUE_URL": bare.url or ""}
    code, out = on_terminal(["list"], env)
    assert code == 0
    assert "\x1b[36m  available" in out
    _, out = on_terminal(["list"], env | {"NO_COLOR": "1"})
    assert "available" in out
    assert "\x1b[3" not in out


@pytest.mark.parametrize(
    ("terminal", "env", "is_red"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_errors_are_red_on_a_terminal_that_has_colours(
    cli_with_app: Cli,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    env: dict[str, str],
    is_red: bool,
) -> None:
    cli_with_app.id("fail")
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda _: terminal)
    line = cli_with_app("show", 5).stderr
    assert ("\x1b[31merror: there is no job 5" in line) == is_red
    log = cli_with_app("worker", "--drain").stderr
    assert ("\x1b[3" in log) == ("\x1b" in log + line) == is_red


def test_twenty_columns_are_enough(cli_with_app: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli_with_app.id("fail", "a long message " * 20)
    cli_with_app.drain()
    env = {"JOBQUEUE_URL": cli_with_app.url or "", "TERM": "dumb"}
    code, out = on_terminal(["list"], env, width=20)
    assert code == 0
    assert "failed" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 20
    monkeypatch.setenv("COLUMNS", "20")
    for words in (["list"], ["show", 1], ["stats"], ["tasks"], ["queues"]):
        assert "fail" in cli_with_app.ok(*words).lower() or words == ["queues"]


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"\n", 1, 2)])
def test_on_a_terminal_a_bulk_verb_asks(bare: Cli, answer: bytes, code: int, left: int) -> None:
    bare.id("t")
    bare.id("t")
    env = {"JOBQUEUE_URL": bare.url or ""}
    got, out = on_terminal(["delete", "--all"], env, send=answer)
    assert got == code
    assert "delete 2 jobs in sqlite:///" in out
    assert len(bare.json("list")) == left


def test_ctrl_c_at_the_question_exits_with_130_and_changes_nothing(bare: Cli) -> None:
    bare.id("t")
    code, out = on_terminal(["delete", "--all"], {"JOBQUEUE_URL": bare.url or ""}, send=b"\x03")
    assert code == 130
    assert "Traceback" not in out
    assert len(bare.json("list")) == 1


def test_a_bulk_enqueue_on_a_terminal_shows_its_progress(bare: Cli, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"task": "t"}\n' * 3000)
    code, out = on_terminal(["enqueue", "--from", file], {"JOBQUEUE_URL": bare.url or ""})
    assert code == 0
    assert "enqueueing" in out
    assert "enqueued 3,000 jobs: ids 1 to 3000" in out


# Ctrl-C


@pytest.mark.parametrize("words", [["wait", "1"], ["stats", "--watch", "--json"]])
def test_ctrl_c_exits_with_130_without_a_trace(
    bare: Cli, spawn: Spawn, words: list[str], wait_until: Any
) -> None:
    bare.id("t")
    process = spawn(*words, env={"JOBQUEUE_URL": bare.url or ""})
    file = (bare.url or "").removeprefix("sqlite:///")
    wait_until(lambda: file in open_files(process.popen.pid))
    process.popen.send_signal(signal.SIGINT)
    code, _, err = process.end()
    assert (code, err) == (130, "")
    assert len(bare.json("list")) == 1


def open_files(pid: int) -> set[str]:
    files = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            files.add(os.readlink(descriptor))
    return files
