"""`completion`: the script for a shell; and which values may stand where."""

import contextlib
import functools
import itertools
import operator
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from jobqueue.cli.context import CliContext, Command, cli_of, pass_cli
from jobqueue.cli.shells import SHELLS, script
from jobqueue.known_names import names_of
from jobqueue.states import State
from jobqueue.store.database import Store
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.names import Names, names_in_use
from jobqueue.store.schema import REVISION
from jobqueue.text import escape_controls

T = TypeVar("T")

NAMES_TIMEOUT = 2.0
"""Seconds that a TAB waits for the app and the database."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

HELP = """Print the script for completion at TAB.

Commands, options, states, tasks, queues, tags, schedules and files complete. The database is asked
for at most two seconds, and only read.

\b
  bash: eval "$(jobqueue completion bash)"     in ~/.bashrc
  zsh:  eval "$(jobqueue completion zsh)"      in ~/.zshrc, after compinit
  fish: jobqueue completion fish > ~/.config/fish/completions/jobqueue.fish
"""


@click.command(cls=Command, help=HELP)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@pass_cli
@click.pass_context
def completion(context: click.Context, cli: CliContext, shell: str) -> None:
    """Print a shell's script."""
    text = script(context.find_root().command, shell)
    cli.answer({"script": text}, text.rstrip())


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


COMMANDS = (completion,)
