"""What all commands share."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from jobqueue.cli.main import cli
from tests.cli.conftest import Cli


def paths(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*before, name)
        if isinstance(command, click.Group):
            yield from paths(command, *before, name)


COMMANDS = sorted(paths(cli))


def command_of(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    return command


def test_the_commands_of_this_version() -> None:
    names = "cancel db delete doctor enqueue errors exec list prune queues retry schedules show stats tasks top wait web why worker workers"
    assert set(names.split()) <= set(cli.commands)


@pytest.mark.parametrize("path", [(), *COMMANDS], ids=" ".join)
def test_help_names_the_shared_options_and_the_environment(path: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(cli, [*path, flag])
        assert (result.exit_code, result.stderr) == (0, "")
        for word in ("--url", "--app", "--json", "--debug", "JOBQUEUE_URL", "JOBQUEUE_APP"):
            assert word in result.stdout
        lines = result.stdout.splitlines()
        assert all(len(line) <= 80 for line in lines)
        assert "\\b" not in result.stdout  # click's mark, in a docstring that is raw.
        common = lines[lines.index("Common options:") + 1 :]
        assert "sqlite:///jobqueue.db]" in result.stdout  # What holds where nothing is named.
        assert len(common) <= 5 or path == ()


def test_the_first_sentence_of_each_command_is_shown_whole() -> None:
    for group in ([], ["db"], ["queues"]):
        assert (
            "..." not in CliRunner().invoke(cli, [*group, "--help"]).stdout.partition("Commands")[2]
        )
    for path in COMMANDS:
        assert not command_of(path).get_short_help_str().endswith("..."), (
            path
        )  # Also beside a TAB's words.


def test_every_option_that_may_be_repeated_says_so() -> None:
    repeated = [
        parameter
        for path in COMMANDS
        for parameter in command_of(path).params
        if isinstance(parameter, click.Option) and parameter.multiple
    ]
    assert len(repeated) > 10
    assert [one.opts for one in repeated if "may be repeated" not in (one.help or "")] == []


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_shared_options_stand_before_and_after_the_command(path: tuple[str, ...]) -> None:
    shared = ["--url", "sqlite:///x.db", "--app", "a:b", "--json", "--debug"]
    for words in ([*shared, *path], [*path, *shared], [*path[:1], *shared, *path[1:]]):
        assert CliRunner().invoke(cli, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize("words", [[], ["db"]])
def test_without_a_command_the_help_is_shown_as_an_error(words: list[str]) -> None:
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr


def test_the_version_is_shown() -> None:
    assert CliRunner().invoke(cli, ["--version"]).stdout.startswith("jobqueue ")


def test_an_error_that_nobody_foresaw_is_one_line_too(
    offline: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd\nindeed")

    monkeypatch.setattr("jobqueue.store.jobs.Jobs.find", fail)
    message = offline.refused(1, "list")
    assert message == "error: unexpected RuntimeError: odd; this is a bug: --debug shows where"
    result = CliRunner().invoke(cli, ["list", "--debug"])
    assert "Traceback" in result.stderr
