"""`completion`: the script for a shell, and what a TAB is answered with.

The scripts and words are click's, but for what bash takes apart: there `app:jobs`,
`sqlite:///file.db` and `--queue=mail` are several words each, so its script hands over the line up
to the cursor instead.
"""

import contextlib
import functools
import itertools
import operator
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from jobqueue.cli.context import CliContext, Command, cli_of, pass_cli
from jobqueue.cli.streams import echo
from jobqueue.known_names import names_of
from jobqueue.printable_text import escape_controls
from jobqueue.states import State
from jobqueue.store.database import Store
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.names import Names, names_in_use
from jobqueue.store.schema import REVISION

T = TypeVar("T")

NAMES_TIMEOUT = 2.0
"""Seconds that a TAB waits for the app and the database."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

VARIABLE = "_JOBQUEUE_COMPLETE"
"""Where the shell that asks for what completes a line says its name."""

LINE, BREAKS = "_JOBQUEUE_LINE", "_JOBQUEUE_BREAKS"

BASH = """\
_jobqueue_completion() {
    local kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default 2>/dev/null ||
                while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -f -- "$2") ;;
            dir) compopt -o dirnames 2>/dev/null ||
                while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -d -- "$2") ;;
        esac
    done < <(_JOBQUEUE_LINE="${COMP_LINE:0:COMP_POINT}" _JOBQUEUE_BREAKS="$COMP_WORDBREAKS" \\
        _JOBQUEUE_COMPLETE=bash_complete "${1/#\\~/$HOME}" 2>/dev/null </dev/null)
}
complete -o nosort -F _jobqueue_completion jobqueue 2>/dev/null ||
    complete -F _jobqueue_completion jobqueue
"""


class _WholeWords(ShellComplete):
    """Keeps `--option=` before a value, for shells where both are one word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        items = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("--") and "--" not in args:
            for item in items:
                item.value = f"{option}={item.value}"
        return items


class _Bash(_WholeWords):
    name = "bash"

    def source(self) -> str:
        return BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        # With a letter more, the last word is there also where it is empty, or in open quotes.
        *words, last = split_arg_string(os.environ.get(LINE, "") + "x")
        return words[1:], last[:-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        # bash completes what stands behind the last of its breaks.
        word = self.get_completion_args()[1]
        breaks = [word.rfind(character) for character in os.environ.get(BREAKS, "\"'=:")]
        return f"{item.type},{item.value[max(breaks) + 1 :]}"


class _Zsh(_WholeWords, ZshComplete): ...


class _Fish(_WholeWords, FishComplete): ...


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@pass_cli
@click.pass_context
def completion(context: click.Context, cli: CliContext, shell: str) -> None:
    """Print the script for completion at TAB.

    Commands, options, states, tasks, queues, tags, schedules and files complete. The database is
    asked for at most two seconds, and only read.

    \b
      bash: eval "$(jobqueue completion bash)"     in ~/.bashrc
      zsh:  eval "$(jobqueue completion zsh)"      in ~/.zshrc, after compinit
      fish: jobqueue completion fish > ~/.config/fish/completions/jobqueue.fish
    """  # noqa: D301 - of click.
    root = context.find_root().command
    text = SHELLS[shell](root, {}, "jobqueue", VARIABLE).source().strip()
    cli.answer({"script": text + "\n"}, text)


def answer(root: click.Command, program: str) -> int | None:
    """Print the words that fit where the cursor is; return the exit code, None without a TAB."""
    shell, _, request = os.environ.get(VARIABLE, "").partition("_")
    if shell not in SHELLS or request != "complete":
        return None
    # What the app prints while it is imported would stand in the line that somebody types.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        words = SHELLS[shell](root, {}, program, VARIABLE).complete()
    if words:
        echo(words)
    return 0


def words(*known: str) -> Completer:
    """Completes one of these."""
    return lambda _context, _parameter, text: _starting(known, text)


def path(kind: str) -> Completer:
    """Lets the shell complete a `file` or a `dir`."""
    return lambda _context, _parameter, text: [CompletionItem(text, type=kind)]


def known(kind: str) -> Completer:
    """Completes a name of the known `queues`, `tasks`, `tags` or `schedules`."""
    return lambda context, _parameter, text: _starting(getattr(_names(context), kind), text)


def several_queues(
    context: click.Context, _parameter: click.Parameter, text: str
) -> list[CompletionItem[str]]:
    """Completes the last of several queues with commas between them."""
    before, comma, last = text.rpartition(",")
    given = {part.partition(":")[0] for part in before.split(",")}
    found = _starting(_names(context).queues - given, last)
    return [CompletionItem(before + comma + item.value) for item in found]


def errors(
    context: click.Context, _parameter: click.Parameter, text: str
) -> list[CompletionItem[str]]:
    """Completes the id of an error; shells that show descriptions show which it is."""

    def of_database(cli: CliContext) -> list[tuple[str, str]]:
        return _of_database(cli, lambda store: ErrorGroups(store).known(), [])

    found = _found_in_time(context, of_database)
    return [
        CompletionItem(id_, help=escape_controls(signature))
        for id_, signature in itertools.chain.from_iterable(found)
        if id_.startswith(text)
    ]


states = words(*State)
queues, tasks, tags = known("queues"), known("tasks"), known("tags")
schedules = known("schedules")


def _starting(known: Iterable[str], text: str) -> list[CompletionItem[str]]:
    # A name that plain SQL has written may do anything in the line that somebody types.
    harmless = (name for name in sorted(known) if name == escape_controls(name))
    return [CompletionItem(str(name)) for name in harmless if name.startswith(text)]


def _names(context: click.Context) -> Names:
    """The known names, or as many of them as are there in time."""

    def of_app(cli: CliContext) -> Names:
        return Names() if cli.app is None else names_of(cli.app.registry)

    found = _found_in_time(context, of_app, lambda cli: _of_database(cli, names_in_use, Names()))
    return functools.reduce(operator.or_, found, Names())


def _of_database(cli: CliContext, ask: Callable[[Store], T], nothing: T) -> T:
    return ask(cli.store) if cli.store.revision() == REVISION else nothing


def _found_in_time(context: click.Context, *asks: Callable[[CliContext], T]) -> list[T]:
    """Return what each has found within two seconds.

    A shell completes while its user types: an error has no place there, and waiting for a dead
    server would freeze the line. The command itself reports what is wrong.
    """
    found: list[T] = []

    def look() -> None:
        cli = cli_of(context)
        cli.notes_default = False
        with context.scope(cleanup=False):
            for ask in asks:
                with contextlib.suppress(Exception):
                    found.append(ask(cli))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(NAMES_TIMEOUT)
    return found[:]
