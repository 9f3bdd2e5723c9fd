"""`completion`: the script for a shell; and which values may stand where."""

import contextlib
import functools
import operator
import threading
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from jobqueue.cli.context import CliContext, Command, cli_of, pass_cli
from jobqueue.cli.shells import SHELLS, script
from jobqueue.known_names import names_of
from jobqueue.states import State
from jobqueue.store.names import Names, names_in_use
from jobqueue.store.schema import REVISION

NAMES_TIMEOUT = 2.0
"""Seconds that a TAB waits for the app and the database."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

HELP = """Print the script for completion at TAB.

Commands, options, states, tasks, queues, tags and files complete. The database is asked for at most
two seconds, and only read.

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
    """Completes a name of the known `queues`, `tasks` or `tags`."""
    return lambda context, _parameter, text: _starting(getattr(_names(context), kind), text)


def several_queues(
    context: click.Context, _parameter: click.Parameter, text: str
) -> list[CompletionItem[str]]:
    """Completes the last of several queues with commas between them."""
    before, comma, last = text.rpartition(",")
    given = {part.partition(":")[0] for part in before.split(",")}
    found = _starting(_names(context).queues - given, last)
    return [CompletionItem(before + comma + item.value) for item in found]


states = words(*State)
queues, tasks, tags = known("queues"), known("tasks"), known("tags")


def _starting(known: Iterable[str], text: str) -> list[CompletionItem[str]]:
    return [CompletionItem(str(name)) for name in sorted(known) if name.startswith(text)]


def _names(context: click.Context) -> Names:
    """The known names, or as many of them as are there in time.

    Somebody is typing: there is no place for an error, and waiting for a server that is away would
    freeze the line. What goes wrong here is said by the command itself.
    """
    found: list[Names] = [Names()]

    def look() -> None:
        cli = cli_of(context)
        cli.notes_default = False
        with context.scope(cleanup=False):
            with contextlib.suppress(Exception):
                if cli.app is not None:
                    found.append(names_of(cli.app.registry))
            with contextlib.suppress(Exception):
                if cli.store.revision() == REVISION:
                    found.append(names_in_use(cli.store))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(NAMES_TIMEOUT)
    return functools.reduce(operator.or_, found)


COMMANDS = (completion,)
