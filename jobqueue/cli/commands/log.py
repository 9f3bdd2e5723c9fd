"""`log`, `undo`: what operators did, and how to take it back."""

from datetime import datetime
from typing import Any

import click

from jobqueue import options, text_parsing
from jobqueue.cli import params
from jobqueue.cli.commands.stats import show
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import option, whole_option
from jobqueue.cli.tables import Column
from jobqueue.display import ago
from jobqueue.store.audit import Audit, operator
from jobqueue.store.undo import Undo

Row = dict[str, Any]


LOG = [
    Column[Row]("id", lambda row: row["id"], right=True),
    Column[Row]("when", lambda row: ago(datetime.fromisoformat(row["at"])), right=True),
    Column[Row]("who", lambda row: row["actor"], least=12),
    Column[Row]("did", lambda row: row["verb"]),
    Column[Row]("target", lambda row: row["about"], least=20, wraps=True),
    Column[Row]("changed", lambda row: f"{row['changed']:,}", rank=1, right=True),
]


@click.command(cls=Command)
@option("--since", "WHEN", "Only what was done since: 2h, or 2026-12-24T18:00Z.")
@whole_option("--limit", "Show at most N actions; 0 shows all.", default="50")
@pass_cli
def log(cli: CliContext, since: str | None, limit: int | str) -> None:
    """Show what operators did.

    Newest first: who changed jobs, queues or schedules, by this command line or by HTTP, and how
    many. Kept for 90 days.
    """
    most = options.whole(limit, "limit", 0, params.LIMIT_MAX)
    rows = Audit(cli.store).find(most or None, text_parsing.since(since))
    show(cli, rows, LOG, "no operator has changed anything" + (" since then" if since else " yet"))


@click.command(cls=Command)
@click.argument("id_", metavar="ID")
@pass_cli
def undo(cli: CliContext, id_: str) -> None:
    """Take an action back.

    ID is its number in jobqueue log. A pause, a resume, a limit, a rate, fair shares, a change of a
    schedule, or a move of jobs to another queue or priority: not if that was changed since.
    """
    said = Undo(cli.store).undo(text_parsing.action_id(id_), operator(), lambda _verb: None)
    cli.wake_workers()
    cli.answer({"changed": 1, "undone": said}, f"undone: {said}")
