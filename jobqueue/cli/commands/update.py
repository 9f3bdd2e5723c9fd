"""`update`: change jobs that wait."""

import click

from jobqueue import wire
from jobqueue.bulk_verbs import updating
from jobqueue.cli import completion
from jobqueue.cli.commands.bulk_actions import Choice, Safety, perform, safety_options
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import flag, option, whole_option
from jobqueue.job_changes import JobChanges
from jobqueue.states import WAITING

FILTERS = "--state --task --in-queue --with-tag"


@click.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@whole_option("--priority", "New priority; smaller is first.")
@option("--queue", "NAME", "Move them to this queue.", completion.queues)
@option("--at", "INSTANT", "Due then, such as 2026-12-24T18:00+01:00.")
@option("--tag tags", "NAME", "New tag, instead of the old; may be repeated.", multiple=True)
@option(
    "--state state_name",
    "STATE",
    f"Only jobs in this state: {', '.join(WAITING)}.",
    completion.words(*WAITING),
)
@option("--task", "NAME", "Only jobs of this task.", completion.tasks)
@option("--in-queue", "NAME", "Only jobs in this queue.", completion.queues)
@option("--with-tag", "NAME", "Only jobs with this tag.", completion.tags)
@flag("--all everything", "Update all jobs that wait.")
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
