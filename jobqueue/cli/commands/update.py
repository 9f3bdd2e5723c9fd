"""`update`: change jobs that wait."""

import click

from jobqueue import wire
from jobqueue.bulk_verbs import updating
from jobqueue.cli import completion, params
from jobqueue.cli.commands.bulk_actions import Choice, Safety, perform, safety_options
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.job_changes import JobChanges
from jobqueue.states import WAITING

FILTERS = "--state --task --in-queue --with-tag"


@click.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--priority", type=params.whole, metavar="N", help="New priority; smaller is first.")
@click.option(
    "--queue", metavar="NAME", help="Move them to this queue.", shell_complete=completion.queues
)
@click.option("--at", metavar="INSTANT", help="Due then, such as 2026-12-24T18:00+01:00.")
@click.option("--tag", "tags", metavar="NAME", multiple=True, help="New tag, instead of the old.")
@click.option(
    "--state",
    "state_name",
    metavar="STATE",
    help=f"Only jobs in this state: {', '.join(WAITING)}.",
    shell_complete=completion.words(*WAITING),
)
@click.option(
    "--task", metavar="NAME", help="Only jobs of this task.", shell_complete=completion.tasks
)
@click.option(
    "--in-queue", metavar="NAME", help="Only jobs in this queue.", shell_complete=completion.queues
)
@click.option(
    "--with-tag", metavar="NAME", help="Only jobs with this tag.", shell_complete=completion.tags
)
@click.option("--all", "everything", is_flag=True, help="Update all jobs that wait.")
@safety_options
@pass_cli
def update(
    cli: CliContext,
    *,
    ids: tuple[str, ...],
    priority: int | str | None,
    queue: str | None,
    at: str | None,
    tags: tuple[str, ...],
    state_name: str | None,
    task: str | None,
    in_queue: str | None,
    with_tag: str | None,
    everything: bool,
    safety: Safety,
) -> None:
    """Change jobs that wait.

    Priority, queue, due time or tags of scheduled and available jobs; others are refused. Give
    either ids, or filters, or --all.
    """
    given = {"priority": priority, "queue": queue, "at": at, "tags": tags or None}
    verb = updating(JobChanges.of(given))
    wanted = wire.a_filter(state_name, task, in_queue, with_tag)
    perform(cli, verb, Choice.of(verb, ids, wanted, FILTERS, everything=everything), safety)


COMMANDS = (update,)
