"""`queues`: what queues there are, and their switches; `pause`, `resume`: tasks and tags."""

import click

from jobqueue import options
from jobqueue.cli import completion, params
from jobqueue.cli.commands.bulk_actions import confirm, print_dry_run
from jobqueue.cli.commands.stats import QUEUES, show
from jobqueue.cli.context import CliContext, Command, Group, pass_cli
from jobqueue.cli.params import flag, whole_option
from jobqueue.errors import InvalidOption, invalid
from jobqueue.queue_switches import Rate, check_limit
from jobqueue.records import JobFilter, counted
from jobqueue.states import WAITING
from jobqueue.store.audit import operator
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schema import PauseKind

NONE = "none"
"""The word that takes a limit or a rate back."""


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def queues(context: click.Context) -> None:
    """List the queues; pause, limit or purge some."""
    if context.invoked_subcommand is None:
        context.invoke(list_)


@queues.command("list", cls=Command)
@pass_cli
def list_(cli: CliContext) -> None:
    """List the queues."""
    show(cli, cli.monitor.bounded_queues(), QUEUES, "no queue has jobs yet")


def _change_pauses(
    cli: CliContext, verb: str, named: dict[PauseKind, tuple[str, ...]], *, force: bool
) -> tuple[int, list[tuple[PauseKind, str, str]]]:
    """Pause or resume what is named. Raises InvalidOption, as `check_names`.

    Return how many were changed, and the kind, the name and the state in words of each.
    """
    for kind, names in named.items():
        cli.check_names(kind, names, force=force)
    change = getattr(Pauses(cli.store, operator()), verb)
    changed = {
        (kind, name): bool(change(kind, name)) for kind, names in named.items() for name in names
    }
    if verb == "resume" and any(changed.values()):
        cli.wake_workers()
    state = "paused" if verb == "pause" else "runs"
    said = [(*key, state if new else f"{state} already") for key, new in changed.items()]
    return sum(changed.values()), said


def _pausing(name: str, help_: str) -> None:
    @queues.command(name, cls=Command, help=help_)
    @click.argument(
        "names", metavar="QUEUE...", nargs=-1, required=True, shell_complete=completion.queues
    )
    @_force
    @pass_cli
    def command(cli: CliContext, names: tuple[str, ...], force: bool) -> None:
        names = tuple(dict.fromkeys(names))
        changed, said = _change_pauses(cli, name, {PauseKind.QUEUE: names}, force=force)
        document = {"changed": changed, "queues": list(names)}
        cli.answer(document, *(f"{queue} {state}" for _, queue, state in said))


_force = flag("--force", "Accept a queue that is not known yet.")
_queue = click.argument("queue", shell_complete=completion.queues)

_pausing("pause", "Start no more jobs of these queues.\n\nRunning jobs go on.")
_pausing("resume", "Start jobs of these queues again.")


@queues.command(cls=Command)
@_queue
@click.argument("most", metavar="N|none", type=options.integer)
@_force
@pass_cli
def limit(cli: CliContext, queue: str, most: int | str, force: bool) -> None:
    """Limit how many jobs run at once.

    In the whole fleet, from the next claim on; what runs goes on. With 0 no job starts. The
    word none takes the limit back.
    """
    if isinstance(most, str) and (text := params.clean(most, "limit")) != NONE:
        raise invalid("limit", f"{text[:40]!r} is neither a whole number nor {NONE}", most)
    number = None if most == NONE else check_limit(most)
    cli.check_names("queue", [queue], force=force)
    is_new = QueueControl(cli.store, operator()).limit(queue, number)
    said = "has no limit" if number is None else f"runs at most {counted(number, 'job')} at once"
    _answer(cli, queue, said, is_new=is_new)


@queues.command(cls=Command)
@_queue
@click.argument("rate", metavar="RATE|none")
@whole_option("--burst", "Starts that may run ahead. [default: 1]")
@_force
@pass_cli
def rate(cli: CliContext, queue: str, rate: str, burst: int | str | None, force: bool) -> None:
    """Limit how often jobs start.

    RATE is 100/minute, or 5/30s: starts are evenly spaced, but for the burst. The word none takes
    the rate back.
    """
    if rate == NONE and burst is not None:
        raise invalid("burst", "there is no rate to run ahead of", burst)
    text = params.clean(rate, "rate")
    if text != NONE and "/" not in text:
        said = f"{text[:40]!r} is neither a rate, such as 100/minute, nor {NONE}"
        raise invalid("rate", said, text)
    new = None if text == NONE else Rate.of(text, burst)
    cli.check_names("queue", [queue], force=force)
    is_new = QueueControl(cli.store, operator()).rate(queue, new)
    _answer(cli, queue, "has no rate" if new is None else f"starts {new}", is_new=is_new)


@queues.command(cls=Command)
@_queue
@click.argument("switch", metavar="on|off", shell_complete=completion.words("off", "on"))
@_force
@pass_cli
def fair(cli: CliContext, queue: str, switch: str, force: bool) -> None:
    """Share a queue among concurrency keys.

    With on the keys take turns, with off jobs run in order.
    """
    is_on = options.one_of(switch, "fair", ("on", "off")) == "on"
    cli.check_names("queue", [queue], force=force)
    is_new = QueueControl(cli.store, operator()).fair(queue, fair=is_on)
    _answer(cli, queue, "is fair" if is_on else "is not fair", is_new=is_new)


def _answer(cli: CliContext, queue: str, said: str, *, is_new: bool) -> None:
    if is_new:
        cli.wake_workers()
    document = {"changed": int(is_new), "queues": [queue]}
    cli.answer(document, f"{queue} {said}" + ("" if is_new else " already"))


@queues.command(cls=Command)
@_queue
@flag("--dry-run", "Print how many jobs, and a sample; change nothing.")
@flag("--yes", "Do not ask for confirmation.")
@_force
@pass_cli
def purge(cli: CliContext, queue: str, dry_run: bool, yes: bool, force: bool) -> None:
    """Delete the waiting jobs.

    Running jobs go on.
    """
    cli.check_names("queue", [queue], force=force)
    if dry_run:
        print_dry_run(cli, "purge", [JobFilter(queue=queue)], WAITING)
        return
    waiting = sum(cli.jobs.count(JobFilter(state=state, queue=queue)) for state in WAITING)
    question = f"delete {counted(waiting, 'waiting job')} (queue {queue}) in {cli.target}"
    if yes:
        cli.note(question)
    else:
        confirm(question)
    deleted = QueueControl(cli.store, operator()).purge(queue)
    cli.answer({"deleted": deleted}, f"deleted {counted(deleted, 'job')}")


def _of_tasks_and_tags(verb: str, help_: str) -> click.Command:
    for_a_queue = f"for a queue: jobqueue queues {verb} NAME"
    hints = dict.fromkeys((click.UsageError, click.NoSuchOption), for_a_queue)

    @click.command(verb, cls=Command, help=help_, hints=hints)
    @params.option(
        "--task tasks",
        "NAME",
        "Jobs of this task; may be repeated.",
        completion.tasks,
        multiple=True,
    )
    @params.option(
        "--tag tags", "NAME", "Jobs with this tag; may be repeated.", completion.tags, multiple=True
    )
    @flag("--force", "Accept a task or tag that is not known yet.")
    @pass_cli
    def command(
        cli: CliContext, tasks: tuple[str, ...], tags: tuple[str, ...], force: bool
    ) -> None:
        if not (tasks or tags):
            raise InvalidOption(f"{verb}: give --task or --tag; {for_a_queue}", field="task")
        tasks, tags = tuple(dict.fromkeys(tasks)), tuple(dict.fromkeys(tags))
        named = {PauseKind.TASK: tasks, PauseKind.TAG: tags}
        changed, said = _change_pauses(cli, verb, named, force=force)
        document = {"changed": changed, "tasks": list(tasks), "tags": list(tags)}
        cli.answer(document, *map(" ".join, said))

    return command


pause = _of_tasks_and_tags(
    "pause",
    "Start no more jobs of a task, or with a tag.\n\n"
    "In all queues. Running jobs go on. For a queue: jobqueue queues pause.",
)
resume = _of_tasks_and_tags(
    "resume", "Start jobs of a paused task or tag again.\n\nFor a queue: jobqueue queues resume."
)
