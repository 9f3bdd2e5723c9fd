"""`pause`, `resume`: tasks and tags; a queue's own switch is under `queues`."""

from functools import partial

import click

from jobqueue import options
from jobqueue.cli import completion
from jobqueue.cli.commands.bulk_actions import FORCE
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import flag, option
from jobqueue.errors import InvalidOption
from jobqueue.known_names import unknown
from jobqueue.store.names import Names
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind


def _command(verb: str, done: str, help_: str) -> click.Command:
    @click.command(verb, cls=Command, help=help_)
    @option(
        "--task tasks",
        "NAME",
        "Jobs of this task; may be repeated.",
        completion.tasks,
        multiple=True,
    )
    @option(
        "--tag tags", "NAME", "Jobs with this tag; may be repeated.", completion.tags, multiple=True
    )
    @flag("--force", "Accept a task or tag that is not known yet.")
    @pass_cli
    def command(
        cli: CliContext, tasks: tuple[str, ...], tags: tuple[str, ...], force: bool
    ) -> None:
        named = {PauseKind.TASK: tasks, PauseKind.TAG: tags}
        if not (tasks or tags):
            raise InvalidOption(
                f"{verb}: give --task or --tag; for a queue: jobqueue queues {verb} NAME",
                field="task",
            )
        _check(cli, named, force=force)
        switch = getattr(Pauses(cli.store), verb)
        changed = {
            (kind, name): switch(kind, name, cli.action(verb, **{kind.value: name}))
            for kind, names in named.items()
            for name in names
        }
        if verb == "resume" and any(changed.values()):
            cli.wake_workers()
        document = {"changed": sum(changed.values()), "tasks": list(tasks), "tags": list(tags)}
        cli.answer(
            document,
            *(
                f"{kind} {name} {done}{'' if new else ' already'}"
                for (kind, name), new in changed.items()
            ),
        )

    return command


def _check(cli: CliContext, named: dict[PauseKind, tuple[str, ...]], *, force: bool) -> None:
    """Raise InvalidOption for a text that is not a name, or (not `force`) not known."""
    for kind, names in named.items():
        for name in names:
            options.name(name, kind)
        if not force:
            cli.require_known(partial(_unknown, kind, names))


def _unknown(kind: PauseKind, names: tuple[str, ...], known: Names) -> InvalidOption | None:
    return unknown(kind, names, getattr(known, f"{kind}s"), FORCE)


COMMANDS = (
    _command(
        "pause",
        "paused",
        "Start no more jobs of a task, or with a tag.\n\n"
        "In all queues. Running jobs go on. For a queue: jobqueue queues pause.",
    ),
    _command("resume", "runs", "Start jobs of a paused task or tag again."),
)
