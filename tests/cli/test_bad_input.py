"""Bad input, row by row: one line that says what is wrong, the right exit code, and nothing changed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture(params=["sqlite"])
def backend_name(request: pytest.FixtureRequest) -> str:
    """What is refused here never reaches a database, so one of them will do."""
    return request.param


KEYED = ["enqueue", "t", "--concurrency-key", "k"]
DEEP = "[" * 65 + "]" * 65

INPUTS: list[tuple[str, int, list[str]]] = [
    # 1 to 10: arguments
    ("NaN is not JSON", 2, ["enqueue", "t", "--args", "[NaN]"]),
    ("Infinity is not JSON", 2, ["enqueue", "t", "--kwargs", '{"x": -Infinity}']),
    ("number out of range", 2, ["enqueue", "t", "--args", "[1e999]"]),
    ("number out of range", 2, ["enqueue", "t", "1e999"]),
    ("NUL characters", 2, ["enqueue", "t", '"a\\u0000b"']),
    ("in a key: NUL", 2, ["enqueue", "t", '[{"a\\u0000b": 1}]']),
    ("lone surrogate", 2, ["enqueue", "t", '"\\ud800"']),
    ("integer beyond 64 bits", 2, ["enqueue", "t", "9223372036854775808"]),
    ("integer beyond 64 bits", 2, ["enqueue", "t", "1" * 400]),
    ("integer beyond 64 bits", 2, ["enqueue", "t", "--args", f"[{'9' * 5000}]"]),
    ("duplicate key 'a'", 2, ["enqueue", "t", '{"a": 1, "a": 2}']),
    ("duplicate key 'a'", 2, ["enqueue", "t", "--kwargs", '{"a": 1, "a": 2}']),
    ("nested deeper than 64", 2, ["enqueue", "t", DEEP]),
    ("nested deeper than 64", 2, ["enqueue", "t", "[" * 100_000]),
    ("nested deeper than 64", 2, ["enqueue", "t", "--args", DEEP]),
    ("at most 1,048,576", 2, ["enqueue", "t", "x" * ((1 << 20) + 1)]),
    # 14, 15: what is written
    ("VALUE 1: invalid UTF-8 at byte offset 2", 2, ["enqueue", "t", os.fsdecode(b"ab\xff")]),
    ("x: invalid UTF-8 at byte offset 1", 2, ["enqueue", "t", os.fsdecode(b"x=a\xff")]),
    ("invalid UTF-8 at byte offset 1", 2, ["enqueue", "t", "--args", os.fsdecode(b"[\xff]")]),
    ("invalid UTF-8 at byte offset 0", 2, ["enqueue", "t", "--unique-key", os.fsdecode(b"\xff")]),
    ("not valid JSON: Expecting value at offset 0", 2, ["enqueue", "t", "--args", "a,b"]),
    ("single quotes: --args '[2, 3]'", 2, ["enqueue", "t", "--args", "[a]"]),
    ("not valid JSON", 2, ["enqueue", "t", "--args", ""]),
    ("--args: not an array", 2, ["enqueue", "t", "--args", "null"]),
    ("--args: not an array", 2, ["enqueue", "t", "--args", '"text"']),
    ("--kwargs: not an object", 2, ["enqueue", "t", "--kwargs", "[1]"]),
    # 18, 22: names
    *[
        ("is not a name", 2, ["enqueue", name])
        for name in ("../x", "a b", "", "x" * 129, "🐎", "a\nb", "a/b")
    ],
    *[
        ("queue: ", 2, ["enqueue", "t", "--queue", name])
        for name in ("", "*", "a,b", "x" * 64, "-a", "DROP TABLE", "qu\u0435ue b")
    ],
    ("tag: ", 2, ["enqueue", "t", "--tag", "a b"]),
    ("at most 32", 2, ["enqueue", "t", *(f"--tag=t{n}" for n in range(33))]),
    ("tag: ", 2, ["list", "--tag", "'; DROP TABLE jobs"]),
    ("queue: ", 2, ["list", "--queue", '%"_']),
    ("task: ", 2, ["list", "--task", "\x1b[31m"]),
    *[
        (f"header: '{value}' is not KEY=VALUE", 2, ["enqueue", "t", "--header", value])
        for value in ("tenant", "=7")
    ],
    *[
        ("expires: ", 2, ["enqueue", "t", f"--expires={value}"])
        for value in ("0", "-1", "soon", "")
    ],
    ("on_conflict: ", 2, ["enqueue", "t", "--unique-key=k", "--on-conflict=drop"]),
    ("on_conflict: it needs a unique_key", 2, ["enqueue", "t", "--on-conflict=replace"]),
    ("debounce: it needs a unique_key", 2, ["enqueue", "t", "--debounce=5"]),
    ("max_wait: ", 2, ["enqueue", "t", "--unique-key=k", "--debounce=5", "--max-wait=4"]),
    ("max_wait: ", 2, ["enqueue", "t", "--unique-key=k", "--max-wait=4"]),
    ("debounce: ", 2, ["enqueue", "t", "--unique-key=k", "--debounce=5", "--delay=1"]),
    ("rerun: it needs a unique_key", 2, ["enqueue", "t", "--rerun"]),
    ("rerun: ", 2, ["enqueue", "t", "--rerun", "--unique-key=k", "--unique-until=started"]),
    ("headers: 5,009 bytes of JSON", 2, ["enqueue", "t", f"--header=a={'x' * 5000}"]),
    *[
        (
            f"concurrency_limit: {value} is not a whole number",
            2,
            [*KEYED, f"--concurrency-limit={value}"],
        )
        for value in ("-1", "1000001")
    ],
    ("concurrency_key: must be text of 1 to 512", 2, ["enqueue", "t", "--concurrency-key", ""]),
    ("concurrency_key: must be text of 1 to 512", 2, [*KEYED[:-1], "k" * 10_000]),
    *[
        (
            f"{option.strip('-').replace('-', '_')}: it is for jobs of a concurrency_key",
            2,
            ["enqueue", "t", option, *value],
        )
        for option, *value in (["--strict"], ["--concurrency-limit", "1"], ["--weight", "2"])
    ],
    *[
        ("weight: ", 2, [*KEYED, f"--weight={value}"])
        for value in ("0", "-1", "nan", "heavy", "1001", "1e3")
    ],
    ("header: invalid UTF-8", 2, ["enqueue", "t", "--header", os.fsdecode(b"a=\xff")]),
    # 23 to 28: numbers, durations, instants
    *[
        ("priority: ", 2, ["enqueue", "t", f"--priority={value}"])
        for value in ("high", "1.5", "2147483648", "true", "", "1_0", "0x1", "٥")
    ],
    *[
        ("max_attempts: ", 2, ["enqueue", "t", f"--max-attempts={value}"])
        for value in ("0", "-1", "1000000000", "2.5")
    ],
    *[
        ("delay: ", 2, ["enqueue", "t", f"--delay={value}"])
        for value in ("-5", "nan", "1e10", "5 minutes", "5m30", "1" * 31, "", "99999d", "٥m")
    ],
    *[
        ("timeout: ", 2, ["enqueue", "t", f"--timeout={value}"])
        for value in ("0", "-1", "x", "inf")
    ],
    *[
        ("at: ", 2, ["enqueue", "t", f"--at={value}"])
        for value in (
            "2036-01-01T00:00",
            "10000-01-01T00:00Z",
            "9999-12-31T23:59-12:00",
            "0001-01-01T00:00+12:00",
            "infinity",
            "2026-02-30T00:00Z",
            "2026-03-29T02:30 Europe/Berlin",
            "2026-01-01T00:00+25:00",
            "2026-12-31T23:59:60Z",
            "tomorrow",
            "",
        )
    ],
    ("either delay or at", 2, ["enqueue", "t", "--delay=5", "--at=2036-01-01T00:00Z"]),
    # 31: unique keys
    ("unique_key: must be text of 1 to 512", 2, ["enqueue", "t", "--unique-key="]),
    ("unique_key: must be text of 1 to 512", 2, ["enqueue", "t", f"--unique-key={'x' * 513}"]),
    ("unique_until: 'never'", 2, ["enqueue", "t", "--unique-key=k", "--unique-until=never"]),
    ("there is none", 2, ["enqueue", "t", "--unique-until=started"]),
    ("it needs --wait", 2, ["enqueue", "t", "--wait-timeout=5"]),
    # 35: ids
    *[
        ("is not a job's id", 2, [verb, value])
        for verb in ("show", "why", "wait", "cancel", "retry", "delete")
        for value in (
            "-1",
            "0",
            "00",
            "1;DROP",
            "1 OR 1=1",
            " 1",
            "last",
            "",
            "1.0",
            "٥",
            "+1",
            "1e3",
            "0x10",
        )
    ],
    *[
        ("is not a job's id", 2, ["update", value, "--priority", "1"])
        for value in ("-1", "0", "1e3")
    ],
    *[
        ("beyond 63 bits", 2, [verb, value])
        for verb in ("show", "why", "wait", "cancel", "retry", "delete")
        for value in (str(2**63), "9" * 20)
    ],
    ("there is no job 9223372036854775807", 1, ["show", str(2**63 - 1)]),
    ("there is no such job", 1, ["cancel", str(2**63 - 1)]),
    ("Missing argument", 2, ["show"]),
    ("Missing argument", 2, ["wait"]),
    # 38: filters
    ("did you mean running?", 2, ["list", "--state", "runing"]),
    ("did you mean failed?", 2, ["delete", "--state", "FAILED", "--yes"]),
    *[
        ("limit: ", 2, ["list", "--limit", value])
        for value in ("-1", "ten", "1000000001", "1.5", "")
    ],
    *[
        ("since: ", 2, ["list", "--since", value])
        for value in ("-1h", "yesterday", "2026-01-01", "5x")
    ],
    ("timeout: ", 2, ["wait", "1", "--timeout", "soon"]),
    # 42: the worker
    *[
        (f"{option.replace('-', '_')}: ", 2, ["worker", f"--{option}={value}"])
        for option, values in {
            "concurrency": ("0", "-1", "1000000", "abc", ""),
            "lease": ("0", "0.5", "-1", "x", "2d"),
            "shutdown-timeout": ("-1", "x"),
            "poll": ("0", "-1", "x"),
            "stats-interval": ("-1", "x", "0.01"),
            "max-jobs": ("0", "-1", "x"),
            "name": ("", "a\nb", "a b", "x" * 129),
        }.items()
        for value in values
    ],
    ("limit of queue mail", 2, ["worker", "-q", "mail:0"]),
    ("autoscale: '4'; write MIN:MAX", 2, ["worker", "--autoscale", "4"]),
    ("min_concurrency: 'a'", 2, ["worker", "--autoscale", "a:4"]),
    ("max_concurrency: ''", 2, ["worker", "--autoscale", "2:"]),
    ("the smaller first", 2, ["worker", "--autoscale", "4:2"]),
    ("'mail' is named twice", 2, ["worker", "-q", "mail,mail:2"]),
    ("queue: ''", 2, ["worker", "-q", ""]),
    ("queue: 'mail:x y'", 2, ["worker", "-q", "mail:x y"]),
    ("is not one of 'text', 'json'", 2, ["worker", "--log-format", "LOUD"]),
    # 66 and the rest
    ("older_than: ", 2, ["prune", "--older-than", "-1"]),
    ("failed_older_than: ", 2, ["prune", "--failed-older-than", "old"]),
    ("interval: ", 2, ["stats", "--interval", "0"]),
    ("queue: ", 2, ["queues", "pause", "a b"]),
    ("Missing argument", 2, ["queues", "resume"]),
    ("resume: give --task or --tag", 2, ["resume"]),
    ("task: ", 2, ["pause", "--task", "a b", "--force"]),
    ("tag: ", 2, ["pause", "--task", "add", "--tag", "", "--force"]),
    *[
        (f"{name}: ", 2, ["queues", name, "--force", "--", "mail", value])
        for name, values in {
            "limit": ("-1", "4.5", "many", "1000001", "NONE"),
            "rate": ("x/y", "100", "0/minute", "1/0s", "1/minute/s", ""),
            "fair": ("yes", "1"),
        }.items()
        for value in values
    ],
    ("burst: ", 2, ["queues", "rate", "mail", "1/s", "--burst", "0", "--force"]),
    ("burst: ", 2, ["queues", "rate", "mail", "none", "--burst", "1", "--force"]),
    ("queue: ", 2, ["queues", "purge", "a b", "--yes"]),
    ("Missing TASK", 2, ["enqueue"]),
    ("No such command 'lst'", 2, ["lst"]),
    ("No such option", 2, ["list", "--nope"]),
    ("No such option", 2, ["--nope"]),
    ("unexpected extra argument", 2, ["list", "5"]),
]


@pytest.mark.parametrize(
    ("message", "code", "words"), INPUTS, ids=[" ".join(words)[:50] for _, _, words in INPUTS]
)
def test_bad_input_exits_with_one_line(
    bare: Cli, message: str, code: int, words: list[str]
) -> None:
    result = bare(*words)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert len(result.stderr) < 600


@pytest.mark.parametrize(
    ("message", "code", "words"),
    INPUTS[::6],
    ids=[" ".join(words)[:50] for _, _, words in INPUTS[::6]],
)
def test_with_json_the_error_is_one_json_object(
    bare: Cli, message: str, code: int, words: list[str]
) -> None:
    result = bare("--json", *words)
    assert result.exit_code == code
    error = json.loads(result.stderr)["error"]
    assert set(error) == {"message", "field", "value"}
    assert message in error["message"]


def test_json_may_stand_anywhere_before_the_double_dash(bare: Cli) -> None:
    for words in (["list", "--nope", "--json"], ["--json", "lst"], ["show", "--json"]):
        assert "error" in json.loads(bare(*words).stderr)
    assert bare("enqueue", "t b", "--", "--json").stderr.startswith("error: ")


# 39: database URLs

URLS = [
    (2, "", "the database URL is empty"),
    (2, "postgres://", "names no database"),
    (2, "nonsense", "not a database URL"),
    (2, "mysql://u:{}@h/d", "mysql is not a database"),
    (2, "sqlite://relative.db", "write sqlite:///"),
    (2, "sqlite:////", "is a folder"),
    (2, "sqlite:////no/such/folder/x.db", "does not exist"),
    (2, "sqlite://", "needs a file"),
    (2, "postgresql:/u:{}@h/d", "not a database URL"),
    (2, "u:{}@h/d", "not a database URL"),
    (2, "sqlite:///x.db?foo={}", "'foo' is not an option of a SQLite URL"),
    (2, "sqlite:///file:x.db?uri=true&mode=ro", "a job queue writes to its file"),
    (2, "postgresql://u:{}\udcff@127.0.0.1:1/d", "the database URL is not valid UTF-8"),
    (2, "postgresql://u@127.0.0.1:1/d?password={}\udcff", "the database URL is not valid UTF-8"),
    (2, "postgresql://\udcff:{}@127.0.0.1:1/d", "the database URL is not valid UTF-8"),
    (1, "postgresql://u:{}@127.0.0.1:1/d", "Connection refused"),
    (2, "postgresql://u:p@{}@127.0.0.1:1/d", "write the @"),
    (1, "postgresql://u@127.0.0.1:1/d?password={}", "Connection refused"),
    (1, "postgresql://u:{}@no-such-host.invalid/d", "resolve"),
]


WAYS = ["option", "environment", "pyproject", "debug"]
CASES = [  # Every URL one way, in turns; and one of them every way.
    *((WAYS[number % 2 and 3], *row) for number, row in enumerate(URLS)),
    *((way, *URLS[-4]) for way in WAYS),
]


@pytest.mark.parametrize(
    ("way", "code", "text", "message"), CASES, ids=[f"{case[0]} {case[2]}" for case in CASES]
)
def test_a_bad_url_is_explained_and_its_password_is_not_shown(
    text: str, code: int, message: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = text.replace("{}", "hunter2sentinel")
    words = ["list"]
    it = Cli(given if way == "environment" else None)
    if way == "option":
        words = ["--url", given, "list"]
    elif way == "debug":
        words = ["--url", given, "list", "--debug"]
    elif way == "pyproject":
        (tmp_path / "pyproject.toml").write_text(f"[tool.jobqueue]\nurl = {json.dumps(given)}\n")
    from click.testing import CliRunner

    from jobqueue.cli.main import cli

    env = {"JOBQUEUE_URL": it.url, "JOBQUEUE_APP": None}
    result = CliRunner().invoke(cli, words, env=env)
    assert result.exit_code == code, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message.lower() in last.lower()
    assert "hunter2" not in result.output
    assert ("Traceback" in result.stderr) is (way == "debug")


@pytest.mark.parametrize(
    "option", ["timeout=5", "check_same_thread=true", "isolation_level=EXCLUSIVE", "detect_types=3"]
)
def test_an_option_of_a_sqlite_url_that_an_application_may_need_is_taken(
    offline: Cli, option: str
) -> None:
    offline.ok("--url", f"sqlite:///x.db?{option}", "enqueue", "t")
    (job,) = offline.json("--url", f"sqlite:///x.db?{option}", "list")
    assert job["task"] == "t"


@pytest.mark.parametrize("password", ["p@ss", "s:e", "a/b", "q?x", "50%", "[x]", "^]", "postgres"])
def test_no_part_of_an_odd_password_is_shown(offline: Cli, password: str) -> None:
    url = f"postgresql://ada:{password}sentinel@127.0.0.1:1/d"
    result = offline("--url", url, "list", "--json")
    assert result.exit_code in (1, 2)
    assert "sentinel" not in result.output


def test_a_file_that_is_no_database_is_left_alone(offline: Cli, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary, " * 100)
    assert "not a database" in offline.refused(1, "--url", f"sqlite:///{file}", "list")
    assert file.read_text() == "dear diary, " * 100


# 40, 41: settings


def test_the_option_wins_over_the_environment_and_that_over_pyproject(
    offline: Cli, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.jobqueue]\nurl = "sqlite:///project.db"\n')
    offline.id("t")
    assert (tmp_path / "project.db").exists()
    offline.url = "sqlite:///environment.db"
    offline.id("t")
    assert (tmp_path / "environment.db").exists()
    offline.id("t", "--url", "sqlite:///option.db")
    offline.ok("--url", "sqlite:///wrong.db", "enqueue", "t", "--url", "sqlite:///option.db")
    assert (tmp_path / "option.db").exists()
    assert not (tmp_path / "wrong.db").exists()


def test_without_any_setting_it_is_a_file_in_the_current_folder(offline: Cli, tmp_path) -> None:
    offline.id("t")
    assert (tmp_path / "jobqueue.db").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[tool.jobqueue\n", "line 1"),
        (b"[tool.jobqueue]\nurl = 5\n", "5 is not text"),
        (b"[tool]\njobqueue = 5\n", "is not a table"),
        (b"\xff\xfe", "pyproject.toml"),
        (b"\xef\xbb\xbf[tool.jobqueue]\n", "pyproject.toml"),
    ],
)
def test_a_broken_pyproject_is_named(
    offline: Cli, tmp_path: Path, text: bytes, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text)
    assert message in offline.refused(2, "list")


# 43: the app

APPS = [
    ("no_such_module:jobs", None, "there is no module 'no_such_module'"),
    ("no_such.sub:jobs", None, "there is no module 'no_such'"),
    ("bad", None, "is not of the form module:attribute"),
    (":jobs", None, "is not of the form module:attribute"),
    ("a b:jobs", None, "is not of the form module:attribute"),
    ("folder/bad.py:jobs", None, "names a file; name the module as in an import: folder.bad:jobs"),
    ("bad:", "import jobqueue\n", "is not there"),
    ("bad:other", "from jobqueue import JobQueue\nhere = JobQueue()\n", "module bad defines here"),
    ("bad:x", "x = 5\n", "'x' is an int, not a JobQueue"),
    ("bad:jobs", "import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing'"),
    ("bad:jobs", "\n\n1 / 0\n", "ZeroDivisionError: division by zero ("),
    ("bad:jobs", "def f(:\n", "SyntaxError: "),
    ("bad:jobs", "raise SystemExit(3)\n", "SystemExit: 3"),
    ("bad:jobs", "class E(BaseException): ...\nraise E('odd\\nsecond')\n", "E: odd ("),
    (
        "bad:jobs",
        "from jobqueue import JobQueue\njobs = JobQueue()\n@jobs.task\ndef f(): ...\n@jobs.task(name='f')\ndef g(): ...\n",
        "two tasks are named 'f'",
    ),
]


@pytest.mark.parametrize(("name", "text", "message"), APPS, ids=[f"{a} {m}" for a, _, m in APPS])
def test_an_app_that_cannot_be_loaded_shows_the_users_own_error(
    offline: Cli, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "bad.py").write_text(text)
    command = [["worker"], ["tasks"], ["enqueue", "t"]][len(message) % 3]
    result = offline(*command, "--app", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    if "(" in message or "SystemExit" in message:
        assert "bad.py:" in result.stderr


def test_debug_shows_the_users_traceback(offline: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad_too.py").write_text("1 / 0\n")
    from click.testing import CliRunner

    from jobqueue.cli.main import cli

    result = CliRunner().invoke(cli, ["tasks", "--app", "bad_too:jobs", "--debug"])
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_a_worker_without_an_app_says_how_to_name_it(offline: Cli) -> None:
    message = offline.refused(2, "worker")
    assert "--app module:attribute" in message
    assert "$JOBQUEUE_APP" in message


def test_what_an_app_prints_at_import_is_no_part_of_the_answer(
    bare: Cli, make_app: Callable[..., str]
) -> None:
    bare.app = make_app("print('hello')\nfrom jobqueue import JobQueue\njobs = JobQueue()\n")
    result = bare("tasks", "--json")
    assert json.loads(result.stdout) == []
    assert "hello" in result.stderr


def test_without_any_url_the_apps_own_database_is_meant(
    offline: Cli, make_app: Callable[..., str], tmp_path: Path
) -> None:
    offline.app = make_app(
        "from jobqueue import JobQueue\njobs = JobQueue('sqlite:///own.db')\n@jobs.task\ndef t(): ...\n"
    )
    offline.id("t")
    assert (tmp_path / "own.db").exists()
    assert len(offline.json("list")) == 1
    offline.id("t", "--url", "sqlite:///other.db")
    assert (tmp_path / "other.db").exists()
    assert len(offline.json("list")) == 1


# 45: other schemas


def test_tables_of_another_product_are_left_alone(offline: Cli, tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tmp_path / "jobqueue.db")) as connection:
        connection.execute("CREATE TABLE jobs (mine TEXT)")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.commit()
    offline.id("t", "--url", "sqlite:///jobqueue.db")
    with closing(sqlite3.connect(tmp_path / "jobqueue.db")) as connection:
        assert connection.execute("SELECT * FROM jobs").fetchall() == []
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == []
