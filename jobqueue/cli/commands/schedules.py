"""`schedules`: what runs at fixed times, and its switches."""

import itertools
from collections.abc import Callable
from typing import Any

import click

from jobqueue import options
from jobqueue.cli import completion
from jobqueue.cli.commands.enqueue import call_of, call_options
from jobqueue.cli.context import CliContext, Command, Group, pass_cli
from jobqueue.cli.params import clean, flag, option, whole_option
from jobqueue.cli.streams import echo
from jobqueue.cli.tables import Column, table
from jobqueue.display import ago
from jobqueue.errors import invalid
from jobqueue.json_forms import job_json
from jobqueue.printable_text import listed
from jobqueue.schedules.api import DAYS_MAX, Schedules
from jobqueue.schedules.definition import CATCH_UPS, OVERLAPS, ScheduleRecord
from jobqueue.schedules.timing import Run, Timing, cron, every
from jobqueue.store.audit import operator
from jobqueue.tasks import Registry

PAGE = 1000
FEW = 20
"""Runs that are printed as text unless --days says which."""
NAME_LEAST, WHEN_LEAST, STATE_LEAST = 20, 30, 14
"""Cells of 80 that stay visible: whether a schedule is paused goes before all of its name."""


def _state(record: ScheduleRecord) -> str:
    parts = []
    if record.paused_at is not None:
        parts.append(f"paused {ago(record.paused_at)} by {record.paused_by}")
    if record.orphaned_at is not None:
        parts.append("no longer in the code")
    elif record.orphaned:
        parts.append("no live worker knows the task")
    if record.differs:
        parts.append("differs from the code")
    return ", ".join(parts)


NAMES = click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=completion.schedules
)
SCHEDULES = [
    Column[ScheduleRecord]("schedule", lambda each: each.name, least=NAME_LEAST, in_middle=True),
    Column[ScheduleRecord]("when", lambda each: each.definition.describe(), least=WHEN_LEAST),
    Column[ScheduleRecord](
        "task", lambda each: each.definition.task, rank=3, least=12, in_middle=True
    ),
    Column[ScheduleRecord](
        "next", lambda each: "" if each.paused_at else ago(each.next_at), right=True
    ),
    Column[ScheduleRecord]("last", lambda each: ago(each.nominal_at), rank=2, right=True),
    Column[ScheduleRecord]("job", lambda each: each.last_job_id or "", rank=4, right=True),
    Column[ScheduleRecord]("state", _state, rank=1, least=STATE_LEAST, style="yellow"),
]


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def schedules(context: click.Context) -> None:
    """List and change schedules."""
    if context.invoked_subcommand is None:
        context.invoke(list_)


@schedules.command("list", cls=Command)
@pass_cli
def list_(cli: CliContext) -> None:
    """List the schedules."""
    found = list(_in_database(cli))
    if cli.json:
        cli.print_json([cli.jobs.redaction.schedule(each.to_json()) for each in found])
    elif found:
        table(found, SCHEDULES)
    declared = (name for name, task in cli.app_tasks.items() if task.settings.schedule is not None)
    if missing := sorted({*declared} - {each.name for each in found}):
        cli.note(f"declared by the app, stored when a worker starts: {listed(missing)}")
    elif not found:
        cli.note("no schedules yet; workers write those that their code declares")


def _in_database(cli: CliContext) -> Schedules:
    """The schedules, for what imports no app."""
    return Schedules(cli.store, Registry(), cli.notifier).of(operator())


@schedules.command(cls=Command)
@click.argument("name", shell_complete=completion.schedules)
@whole_option("--days", f"All runs of the next N days. [default: the next {FEW}; in JSON, 7 days]")
@pass_cli
def preview(cli: CliContext, name: str, days: int | None) -> None:
    """Print the runs to come.

    Each has its offset from UTC, and a mark if a clock change moves it.
    """
    most = 7 if cli.json else DAYS_MAX
    count = options.whole(most if days is None else days, "days", 1, DAYS_MAX)
    runs = cli.queue.schedules.preview(name, count * 86_400)
    if cli.json:
        cli.print_json([{"at": run.at.isoformat(), "note": run.note} for run in runs])
        return
    shown = itertools.islice(runs, FEW) if days is None else runs
    while page := list(itertools.islice(shown, PAGE)):
        echo("\n".join(map(_line, page)))


def _line(run: Run) -> str:
    offset = f"{run.at:%z}"
    line = f"{run.at:%a %Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:]}"
    return line if run.note is None else f"{line}  {run.note}"


@schedules.command(cls=Command)
@click.argument("name")
@click.argument("task", shell_complete=completion.tasks)
@click.argument("values", metavar="[VALUE | KEY=VALUE]...", nargs=-1)
@option("--cron cron_text", "FIELDS", 'Cron fields, such as "0 3 * * *".')
@option("--every every_text", "TIME", "Interval: 30s, 5m, 2h or 7d.")
@option("--tz", "ZONE", "Time zone of --cron. [default: UTC]")
@option(
    "--catch-up",
    "WHICH",
    "Missed ticks that are made up for: latest, all or none.",
    completion.words(*CATCH_UPS),
    default="latest",
    show_default=True,
)
@option(
    "--overlap",
    "WHAT",
    "While the last job has not ended: skip or allow. [default: skip; allow with --catch-up all]",
    completion.words(*OVERLAPS),
)
@call_options
@flag("--replace", "Change the schedule of that name.")
@flag("--force", "Accept a task that is not known yet.")
@pass_cli
def add(cli: CliContext, /, **given: Any) -> None:
    """Run a task at fixed times, from now on.

    VALUEs and KEY=VALUEs are its arguments, as with enqueue.

    \b
      jobqueue schedules add nightly report --cron "0 3 * * *" --tz Europe/Zurich
      jobqueue schedules add sync-7 sync 7 --every 5m
    """  # noqa: D301 - of click.
    name = options.name(given["name"], "name")
    when = _timing(given["cron_text"], given["every_text"], given["tz"])
    call = call_of(cli, given)
    if cli.app is None and not given["force"]:
        cli.check_names("task", [call.task.name])
    added = cli.queue.schedules.of(operator()).add(
        name,
        call,
        when,
        catch_up=given["catch_up"],
        overlap=given["overlap"],
        replace=given["replace"],
    )
    then = f"next {ago(added.next_at)}" if added.paused_at is None else _state(added)
    said = f"{name}: {added.definition.describe()}, {then}"
    cli.answer(added.to_json(), said)


def _timing(cron_text: str | None, every_text: str | None, tz: str | None) -> Timing:
    if (cron_text is None) == (every_text is None):
        raise invalid("cron", 'give either --cron "0 3 * * *" or --every 5m', cron_text)
    if every_text is not None and tz is not None:
        raise invalid("tz", "only with --cron; --every counts in UTC", tz)
    if every_text is not None:
        return every(seconds=options.seconds(every_text, "every", least=1))
    return cron(clean(cron_text or "", "cron"), tz="UTC" if tz is None else clean(tz, "tz"))


@schedules.command(cls=Command)
@click.argument("name", shell_complete=completion.schedules)
@pass_cli
def run(cli: CliContext, name: str) -> None:
    """Enqueue a job now and print its id.

    The ticks stay as they are.
    """
    job = cli.queue.schedules.of(operator()).run(name)
    if cli.json:
        cli.print_json(job_json(cli.jobs.redaction(job.record())) | {"created": job.created})
        return
    echo(job.id)
    if not job.created:
        cli.note(f"job {job.id} of {name} has not ended, and overlap is skip: no new one was made")


def _switch(
    verb: str, help_: str, done: str, undone: str, change: Callable[[Schedules, str], bool]
) -> None:
    @schedules.command(verb, cls=Command, help=help_)
    @NAMES
    @pass_cli
    def command(cli: CliContext, names: tuple[str, ...]) -> None:
        found, names = _named(cli, names), tuple(dict.fromkeys(names))
        changed = {name for name in names if change(found, name)}
        said = [f"{name} {done if name in changed else undone}" for name in names]
        cli.answer({"changed": len(changed), "schedules": list(names)}, *said)


def _named(cli: CliContext, names: tuple[str, ...]) -> Schedules:
    """The schedules, all of which are there: else nothing is changed."""
    found = _in_database(cli)
    for name in names:
        found.get(name)
    return found


@schedules.command(cls=Command)
@NAMES
@pass_cli
def remove(cli: CliContext, names: tuple[str, ...]) -> None:
    """Delete schedules.

    Their jobs stay.
    """
    found, names = _named(cli, names), tuple(dict.fromkeys(names))
    removed = [found.remove(name) for name in names]
    if cli.json:
        cli.print_json({"changed": len(removed), "schedules": list(names)})
        return
    for each in removed:
        echo(f"{each.name} removed")
        if each.declared is not None and each.orphaned_at is None:
            cli.note(
                f"the code declares {each.name}: the next worker that starts adds it again; "
                "to keep it off, pause it"
            )


_switch("pause", "Make no more jobs.", "paused", "paused already", Schedules.pause)
_switch(
    "resume",
    "Make jobs again.\n\nNone for the time of the pause.",
    "runs",
    "runs already",
    Schedules.resume,
)
_switch(
    "reset",
    "Undo changes of what the code declares.\n\nA pause stays.",
    "is as the code declares it",
    "is as the code declares it already",
    Schedules.reset,
)
