"""`top`: the live screen in a terminal."""

import os
import shutil
import sys

import click

from jobqueue import options
from jobqueue.cli.commands.top.reader import Reader
from jobqueue.cli.commands.top.verbs import Verbs
from jobqueue.cli.commands.top.views import TABS, Room
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.errors import MISUSED, CliError, in_one_line
from jobqueue.cli.params import flag, option
from jobqueue.cli.tables import console, put
from jobqueue.errors import InvalidOption

IN_A_PIPE = (120, 40)
"""Columns and lines of the first screen, where there is no terminal."""


@click.command(cls=Command)
@option("--interval", "TIME", "Time between two readings of the database.", default="2s")
@flag("--read-only", "Without the verbs: pause, retry, cancel.")
@flag("--once", "Print the first screen once, as text, and end.")
@pass_cli
def top(cli: CliContext, interval: str, read_only: bool, once: bool) -> None:
    """Show queues, workers and failures, live.

    A screen with keys: what is wrong, what moves, who runs what, what failed; a job in full; and
    verbs that ask first. It keeps the last picture while the database is away.
    """
    every = options.seconds(interval, "interval", least=0.1)
    if cli.json:
        said = "json: a screen has none; see: jobqueue stats --json, errors --json, doctor --json"
        raise InvalidOption(said, field="json")
    if not once:
        _require_terminal()
        from jobqueue.cli.commands.top.screen import Top  # An extra, which says so.

    reader = Reader(cli.jobs, cli.as_typed)
    picture = reader.read(TABS["n"])  # What is wrong with the database is said as by any command.
    if once:
        room = Room(*shutil.get_terminal_size(IN_A_PIPE), has_keys=False)
        put(console(), *(line.text for line in picture(room)))
        return
    verbs = None if read_only else Verbs(cli.jobs, cli.notifier.notify)
    screen = Top(reader.read, verbs, lambda error: in_one_line(error, cli), cli.target, every)
    screen.keep(TABS["n"], picture)
    screen.run(mouse=False)
    if screen.return_code:
        raise CliError("the screen ended with an error", code=screen.return_code)


def _require_terminal() -> None:
    """Raise CliError unless a person can see the screen and press its keys."""
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    missing = next((name for name, stream in streams.items() if not stream.isatty()), None)
    what = f"{missing} is not a terminal" if missing else ""
    if not missing and os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        what = "this terminal cannot place its cursor (TERM)"
    if what:
        raise CliError(f"top: {what}; to print it once: jobqueue top --once", code=MISUSED)
