"""The documents are true: their programs run, their commands exist, their links lead somewhere, and the tables of the reference
are those of the code."""

import ast
import codeop
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from jobqueue import JobContext, JobQueue, errors, events
from jobqueue.cli.main import cli
from jobqueue.errors import JobQueueError
from jobqueue.options import Options
from jobqueue.states import MOVES, State
from jobqueue.worker.settings import WorkerSettings
from tests.pages import ROOT, blocks, environment, named_by, outside, python_of, text_of

README = ROOT / "README.md"
QUICKSTART = ROOT / "docs" / "quickstart.md"
REFERENCE = ROOT / "docs" / "reference.md"
LOGGING = ROOT / "docs" / "logging.md"
PROMISES = ROOT / "docs" / "promises.md"
OPERATIONS = ROOT / "docs" / "operations.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_ELSEWHERE = {"http.md", "logging.md", "testing.md"}
"""By tests/web/test_http_docs.py, by a test below, and by tests/testing/test_plugin.py."""
PROGRAMS = [page for page in PAGES if blocks(page, "python") and page.name not in RUN_ELSEWHERE]


MEANT = re.compile(r"""ConnectionError(: not yet|\("not yet"\))|ValueError(: no|\("no"\))""")
"""What the quickstart's handlers raise, in a log with tracebacks."""


def run(program: Path, page: Path) -> str:
    """What a program prints, where only that is installed which the page names."""
    python = environment(program.parent / "venv", named_by(page))
    # Development mode would check the memory of extensions too, of which we have none.
    checked = {**outside(), "PYTHONMALLOC": "pymalloc"}
    done = subprocess.run(
        [python, "-X", "dev", "-W", "error", program.name],
        cwd=program.parent,
        env=checked,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in MEANT.sub("", done.stderr)
    return done.stdout


# The programs


@pytest.mark.slow
@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_the_programs_of_a_page_run_and_print_what_it_says(page: Path, tmp_path: Path) -> None:
    program = tmp_path / f"{page.stem.lower()}.py"
    program.write_text(python_of(page), "utf-8")
    printed = iter(run(program, page).splitlines())
    for expected in re.findall(r"^ *print\(.*\)  # (.*?)$", python_of(page), re.MULTILINE):
        expected = expected.split("  # ")[-1]
        assert expected in printed, f"{expected!r} was not printed, or not in its turn"


TYPED = """
import os, shlex, sys
from click.testing import CliRunner
from jobqueue.cli.main import cli

for line in sys.stdin.read().splitlines():
    word, *words = shlex.split(line)
    if word == "export":
        os.environ.update([words[0].split("=", 1)])
    else:
        done = CliRunner().invoke(cli, words)
        sys.stdout.write(done.output)
        assert done.exit_code == 0, line
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", ["schedules.md", "limits.md", "why.md"])
def test_the_commands_of_a_page_can_be_typed_after_its_program(page: str, tmp_path: Path) -> None:
    source = ROOT / "docs" / page
    (tmp_path / "shop.py").write_text(blocks(source, "python")[0][1], "utf-8")
    (tmp_path / "program.py").write_text(python_of(source), "utf-8")
    run(tmp_path / "program.py", source)
    consoles = "".join(block for _, block in blocks(source, "console"))
    typed = re.findall(r"^\$ ((?:jobqueue|export) .*)$", consoles, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", TYPED],
        input="\n".join(typed),
        cwd=tmp_path,
        env=outside(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in re.findall(r"^(?!\$)(.+)$", consoles, re.MULTILINE):
        assert said in done.stdout.splitlines()


def test_the_quickstart_can_be_pasted_block_by_block_into_a_repl() -> None:
    for start, block in blocks(QUICKSTART, "python"):
        entered: list[str] = []
        for line in block.splitlines():
            entered.append(line)
            if codeop.compile_command("\n".join(entered)) is not None:
                entered = []
        assert entered == [], f"line {start}: the next block would go on with these"


def test_every_engine_on_postgres_names_its_driver() -> None:
    # For `postgresql://` SQLAlchemy 2.0 takes psycopg2, and 2.1 takes psycopg 3.
    sources = [*PAGES, *(ROOT / "examples").glob("*.py")]
    given = []
    for source in sources:
        text = text_of(source)
        for argument in re.findall(r"create_(?:async_)?engine\(\s*(.+)", text):
            name = re.match(r"\w*", argument)[0]
            meant = re.search(rf"^{name} = (.+)", text, re.MULTILINE) if name else None
            given.append((source.name, meant[1] if meant else argument))
    given.remove(("testing.md", "jobqueue.url)"))  # Names it: tests/testing/test_queue_tester.py.
    assert {name for name, _ in given} >= {"README.md", "quickstart.md", "nightly_import.py"}
    wrong = [one for one in given if "sqlite" not in one[1] and "postgresql+" not in one[1]]
    assert wrong == []


@pytest.mark.slow
def test_the_program_of_the_page_on_logging_logs_what_the_page_says(tmp_path: Path) -> None:
    program = tmp_path / "logs.py"
    program.write_text(python_of(LOGGING), "utf-8")
    lines = [json.loads(line) for line in run(program, LOGGING).splitlines()]
    (expected,) = (json.loads(block) for _, block in blocks(LOGGING, "json"))
    (said,) = [line for line in lines if line["logger"] == "shop"]
    assert list(said) == list(expected)
    assert {**said, "time": ""} == {**expected, "time": ""}
    assert "INFO [charge, attempt 1] charged\n" in (tmp_path / "shop.log").read_text("utf-8")
    assert {line["worker"] for line in lines if line["event"]} == {"till-1"}
    by_logger = {line["logger"]: line for line in lines}
    parcels, carrier = by_logger["shop.parcels"], by_logger["shop.carrier"]
    assert (parcels["message"], parcels["parcels"], parcels["task"]) == ("packed", 2, "ship")
    assert (parcels["order"], carrier["order"], said["order"]) == (43, 43, 42)
    fields = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text_of(LOGGING), re.M)))
    assert [*list(said)[:-2], "traceback", "stack"] == fields


@pytest.mark.slow
def test_the_first_program_runs_and_is_the_one_in_the_readme(tmp_path: Path) -> None:
    source = text_of(ROOT / "examples" / "first.py")
    program = tmp_path / "first.py"
    program.write_text(source, "utf-8")
    assert run(program, README) == "5\n"
    docstring = ast.get_docstring(ast.parse(source))
    assert (
        blocks(README, "python")[0][1].strip() == source.replace(f'"""{docstring}"""', "").strip()
    )


@pytest.mark.slow
def test_the_worker_and_the_enqueue_of_the_readme_work_together(tmp_path: Path) -> None:
    program = tmp_path / "first.py"
    program.write_text(text_of(ROOT / "examples" / "first.py"), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobqueue"]
    arguments = ["worker", "--app", "first:jobs", "--concurrency", "8"]
    with subprocess.Popen(
        [*command, *arguments], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            enqueued = subprocess.run(
                [*command, "enqueue", "add", "2", "3", "--app", "first:jobs", "--wait"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert enqueued.returncode == 0, enqueued.stderr
            assert enqueued.stdout.splitlines()[-1].split() == ["1", "succeeded", "5"]
        finally:
            worker.terminate()
    assert worker.returncode == 0


# The commands


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words lead to, and the words left over."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            break
        command, words = command.commands[words[0]], words[1:]
    return command, words


def wrong_with(line: str) -> str | None:
    """What is wrong with a command line that starts with `jobqueue`; parsed, not run."""
    words = shlex.split(line, comments=True)[1:]
    command, rest = find(words)
    if command is cli or (isinstance(command, click.Group) and rest and rest[0][0] != "-"):
        return f"{line}: there is no such command"
    try:
        with click.Context(cli) as above:
            command.make_context(command.name, rest, parent=above)
    except click.exceptions.Exit:
        return None
    except (click.ClickException, JobQueueError) as error:
        return f"{line}: {error}"
    return None


def console_lines(page: Path) -> Iterator[str]:
    for _, block in blocks(page, "console"):
        for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            if line.startswith("jobqueue "):
                yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    assert [wrong for line in console_lines(page) if (wrong := wrong_with(line))] == []


def mentioned(page: Path) -> Iterator[str]:
    """`jobqueue …` in the text: the command and its options, not its arguments."""
    without_blocks = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(jobqueue [a-z][^`]*)`", without_blocks)


@pytest.mark.parametrize(
    "page", [README, QUICKSTART, REFERENCE, PROMISES, OPERATIONS], ids=lambda page: page.name
)
def test_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    problems = []
    for line in mentioned(page):
        command, rest = find(shlex.split(line)[1:])
        options = {name for parameter in command.params for name in parameter.opts}
        if command is cli and rest != ["COMMAND", "--help"]:
            problems.append(f"{line}: there is no such command")
        own = rest[: rest.index("--")] if "--" in rest else rest
        given = {word for word in own if word.startswith("-")} - {"--help"}
        problems += [f"{line}: there is no {option}" for option in given - options]
    assert problems == []


@pytest.mark.parametrize(
    "line",
    ["jobqueue fly", "jobqueue worker --wings 2", "jobqueue queues fly", "jobqueue list --limit"],
)
def test_a_command_line_that_does_not_exist_is_found(line: str) -> None:
    assert wrong_with(line)


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            yield from commands(inner, f"{name}{word} ")
    if name and not (isinstance(command, click.Group) and not command.invoke_without_command):
        yield name.strip(), command


@pytest.mark.parametrize("name", [name for name, _ in commands(cli)])
def test_every_command_and_all_of_its_options_are_in_the_reference(name: str) -> None:
    command = dict(commands(cli))[name]
    reference = text_of(REFERENCE)
    assert re.search(rf"`jobqueue {name}\b", reference)
    missing = [
        parameter.opts[0]
        for parameter in command.params
        if isinstance(parameter, click.Option)
        and not re.search(rf"`[^`\n]*{parameter.opts[0]}(?![\w-])[^`\n]*`", reference)
    ]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in cli.commands if name])
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"`(jobqueue )?{name}\b", text_of(README))


def test_the_sql_of_the_readme_answers(url: str) -> None:
    with JobQueue(url) as jobs:

        @jobs.task
        def nothing() -> None: ...

        job = nothing.enqueue()
        with jobs.worker():
            job.result(timeout=60)
        queries = [sql for _, sql in blocks(README, "sql")]
        with jobs.store.read() as connection:
            answers = [
                connection.exec_driver_sql(sql.rstrip("; \n")).mappings().all() for sql in queries
            ]
    assert [(row["queue"], row["succeeded"]) for row in answers[0]] == [("default", 1)]
    assert [(row["task"], row["succeeded"]) for row in answers[1]] == [("nothing", 1)]


# The tables of the reference


def table_of(heading: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by their first cell."""
    section = re.split(rf"^##+ {re.escape(heading)}$", text_of(REFERENCE), flags=re.MULTILINE)[1]
    rows = re.search(r"^\|.*?(?=^[^|])", section, re.MULTILINE | re.DOTALL)
    assert rows is not None
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in rows[0].splitlines()[2:]
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def shown(value: object) -> str:
    return f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


def test_the_options_are_those_of_the_code_with_their_defaults() -> None:
    documented = {name: row[0] for name, row in table_of("Options").items()}
    assert documented == {field.name: shown(field.default) for field in fields(Options)}


def test_the_workers_settings_are_those_of_the_code_with_their_defaults() -> None:
    rows = table_of("Worker settings")
    assert {name: row[0] for name, row in rows.items()} == {
        field.name: shown(field.default) for field in fields(WorkerSettings)
    }
    options = {name for parameter in cli.commands["worker"].params for name in parameter.opts}
    named = {option for row in rows.values() for option in re.findall(r"`(-[\w-]+)`", row[1])}
    of_the_command_alone = {
        "--log-format",
        "--log-level",
        "--processes",
        "--reload",
        "--health-port",
        "--metrics-port",
        "--probe-host",
        "--pool-size",
    }
    assert named == options - {"--url", "--app", "--json", "--debug"} - of_the_command_alone


def test_the_states_are_those_of_the_code() -> None:
    assert list(table_of("States")) == [state.value for state in State]


def diagram() -> str:
    lines = [
        f"    {before} --> {move.after}: {verb}"
        for verb, move in MOVES.items()
        for before in move.before
    ]
    return "\n".join(["stateDiagram-v2", *lines, ""])


def test_the_diagram_of_states_is_drawn_from_the_moves() -> None:
    ((_, drawn),) = blocks(REFERENCE, "mermaid")
    assert drawn == diagram(), f"put this in:\n{diagram()}"


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    _, tree = blocks(REFERENCE, "text")[-1]
    assert errors.__doc__ is not None
    assert tree.strip() in errors.__doc__
    named = re.findall(r"^[│├└─ ]*([A-Z]\w+)", tree, re.MULTILINE)
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    assert set(named) == {kind.__name__ for kind in classes if kind.__module__ == errors.__name__}


def test_a_handler_sees_of_its_job_what_the_reference_names_and_nothing_else() -> None:
    rows = re.findall(r"(?:^|`)([a-z]\w*)", "\n".join(table_of("The running job")), re.MULTILINE)
    assert sorted(rows) == [name for name in dir(JobContext) if not name.startswith("_")]


def test_the_events_are_those_of_the_code() -> None:
    named = [name for cell in table_of("Events") for name in re.findall(r"\w+", cell)]
    assert set(named) == set(events.NAMES)


# Badges, links, and what is said to prove the promises


def test_the_badges_say_what_the_project_says() -> None:
    badges = dict(re.findall(r"!\[(\w+): (.*?)\]\(https://img\.shields\.io/", text_of(README)))
    addresses = re.findall(r"img\.shields\.io/badge/(.*?)-(?:blue|orange)\)", text_of(README))
    assert [unquote(address).split("-", 1) for address in addresses] == [
        [label, value] for label, value in badges.items()
    ]
    settings = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    project = settings["project"]
    development = f"Development Status :: 3 - {badges['status'].title()}"
    assert f">={badges['python']}" == f"{project['requires-python']}+"
    assert badges["license"] == project["license"]
    assert badges["types"] == "mypy strict" and settings["tool"]["mypy"]["strict"]
    assert development in project["classifiers"]
    assert badges["databases"] == "SQLite | Postgres"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(target)
        elif anchor and anchor not in anchors(file):
            broken.append(target)
    assert broken == []


def test_the_tests_that_prove_the_promises_exist() -> None:
    missing = []
    for path, test in re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", text_of(PROMISES)):
        file = ROOT / path
        if not file.is_file() or (test and f"def {test}(" not in text_of(file)):
            missing.append(f"{path}::{test}")
    assert missing == []


def test_every_promise_names_a_test() -> None:
    promises = re.split(r"^## ", text_of(PROMISES), flags=re.MULTILINE)[1:]
    assert len(promises) == 16
    assert [
        promise.splitlines()[0] for promise in promises if "*Proven by* `tests/" not in promise
    ] == []


def test_the_changelog_has_this_version() -> None:
    project = text_of(ROOT / "pyproject.toml")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None and f"## [{version[1]}]" in text_of(ROOT / "CHANGELOG.md")
