"""`demo`: real work, a kill -9, and a verification."""

import tempfile
from pathlib import Path

import click
from rich.console import Console
from sqlalchemy import URL

from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.errors import CliError


@click.command(cls=Command)
@pass_cli
def demo(cli: CliContext) -> None:
    """Prove that a kill -9 loses nothing.

    Hashes every module of Python's standard library with three workers, kills one of them half-way,
    and verifies each result. Uses a new SQLite file or, with --url, a queue of its own in that
    database; $JOBQUEUE_URL is ignored.
    """
    from jobqueue.cli.demo.output import Narration, to_json
    from jobqueue.cli.demo.run import perform
    from jobqueue.store.urls import masked, parse

    folder = Path(tempfile.mkdtemp(prefix="jobqueue-demo-"))
    own = URL.create("sqlite", database=str(folder / "demo.db"))
    url = own if cli.given_url is None else parse(cli.given_url)
    narration = Narration(Console(quiet=True) if cli.json else None)
    narration.tell("database", str(url.database) if url is own else masked(url))
    run = perform(url, folder, narration)
    if cli.json:
        cli.print_json(to_json(run))
    else:
        narration.end(run)
    if run.problems:
        raise CliError(f"the proof failed: {'; '.join(run.problems)} (kept: {folder})")
