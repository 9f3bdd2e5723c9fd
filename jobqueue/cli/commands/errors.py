"""`errors`: what fails, grouped by task, type and place."""

import click

from jobqueue import options, text_parsing
from jobqueue.cli import completion
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import option, whole_option
from jobqueue.cli.streams import echo
from jobqueue.cli.tables import NAME_CELLS, Column, table
from jobqueue.display import ago, first_line
from jobqueue.error_groups import ErrorGroup
from jobqueue.known_names import unknown
from jobqueue.printable_text import escape_controls
from jobqueue.store.error_groups import GROUPS_MAX, WINDOWS, ErrorGroups

COLUMNS = [
    Column[ErrorGroup]("id", lambda group: group.id),
    Column[ErrorGroup]("task", lambda group: group.task, least=NAME_CELLS, in_middle=True),
    Column[ErrorGroup]("error", lambda group: group.type, rank=1, least=16, style="red"),
    Column[ErrorGroup]("place", lambda group: group.place, rank=4, least=16),
    Column[ErrorGroup]("1h", lambda group: f"{group.hour:,}", rank=3, right=True),
    Column[ErrorGroup]("24h", lambda group: f"{group.day:,}", right=True),
    Column[ErrorGroup]("7d", lambda group: f"{group.week:,}", rank=2, right=True),
    Column[ErrorGroup]("failed", lambda group: f"{group.failed:,}", rank=5, right=True),
    Column[ErrorGroup]("first", lambda group: ago(group.first_seen), rank=8, style="dim"),
    Column[ErrorGroup]("last", lambda group: ago(group.last_seen), rank=6, style="dim"),
    Column[ErrorGroup]("message", lambda group: first_line(group.message), rank=7, least=20),
]


@click.command("errors", cls=Command)
@option(
    "--since",
    "TIME",
    "Only what has errored in the last 1h, 24h or 7d, and sorted by that.",
    completion.words(*WINDOWS),
    default="7d",
)
@option("--task", "NAME", "Only errors of this task.", completion.tasks)
@whole_option("--limit", "Show at most N; 0 shows all, up to 1,000.", default="50")
@pass_cli
def errors(cli: CliContext, since: str, task: str | None, limit: int | str) -> None:
    """Show what fails, grouped.

    By task, type and the function of yours that raised it: attempts in whole hours (1h is this hour
    and the one before), and the jobs that failed in 7 days. To run them again:

    \b
      jobqueue retry --error ID --dry-run
    """  # noqa: D301 - of click.
    most = options.whole(limit, "limit", 0, GROUPS_MAX)
    named = text_parsing.a_filter(task=task).task
    found = ErrorGroups(cli.store).find(since, named, most or GROUPS_MAX)
    if cli.json:
        cli.print_json([group.to_json() for group in found])
    elif found:
        table(found, COLUMNS)
    if not found:
        error = named and cli.unknown(lambda known: unknown("task", [named], known.tasks))
        if error:
            echo(escape_controls(f"no errors; {error}"), err=True)
        else:
            cli.note(f"no errors in the last {since}")
