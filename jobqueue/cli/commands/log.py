"""`log`: what operators did."""

from datetime import datetime
from typing import Any

import click

from jobqueue import options, wire
from jobqueue.cli import params
from jobqueue.cli.commands.stats import show
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import option, whole_option
from jobqueue.cli.tables import Column
from jobqueue.display import ago
from jobqueue.store.audit import Audit

Row = dict[str, Any]


def _target(row: Row) -> str:
    """Return the target in words: `queue mail`, `ids 1, 2 and 7 more`, `all`."""
    parts = dict(row["target"])
    more = parts.pop("more_ids", 0)
    said = [name if value is True else f"{name} {_value(value)}" for name, value in parts.items()]
    return ", ".join(said) + (f" and {more:,} more" if more else "")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_value(one)}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


LOG = [
    Column[Row]("when", lambda row: ago(datetime.fromisoformat(row["at"])), right=True),
    Column[Row]("who", lambda row: row["actor"], least=12),
    Column[Row]("did", lambda row: row["verb"]),
    Column[Row]("target", _target, least=20),
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
    rows = Audit(cli.store).find(most or None, wire.since(since))
    show(cli, rows, LOG, "no operator has changed anything" + (" since then" if since else " yet"))


COMMANDS = (log,)
