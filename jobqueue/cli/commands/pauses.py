"""`pause`, `resume`: tasks and tags; a queue's own switch is under `queues`."""

from typing import NamedTuple

import click

from jobqueue.cli import completion
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import flag, option
from jobqueue.errors import InvalidOption
from jobqueue.store.audit import operator
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind


class Changed(NamedTuple):
    """What a pause or resume has changed."""

    number: int
    said: dict[tuple[PauseKind, str], str]
    """The state of each now, in words."""


def change_pauses(
    cli: CliContext, verb: str, named: dict[PauseKind, tuple[str, ...]], *, force: bool
) -> Changed:
    """Pause or resume what is named. Raises InvalidOption, as `check_names`."""
    for kind, names in named.items():
        cli.check_names(kind, names, force=force)
    change = getattr(Pauses(cli.store, operator()), verb)
    changed = {
        (kind, name): bool(change(kind, name))
        for kind, names in named.items()
        for name in dict.fromkeys(names)
    }
    if verb == "resume" and any(changed.values()):
        cli.wake_workers()
    state = "paused" if verb == "pause" else "runs"
    said = {key: state if new else f"{state} already" for key, new in changed.items()}
    return Changed(sum(changed.values()), said)


def _command(verb: str, help_: str) -> click.Command:
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
        if not (tasks or tags):
            raise InvalidOption(
                f"{verb}: give --task or --tag; for a queue: jobqueue queues {verb} NAME",
                field="task",
            )
        named = {PauseKind.TASK: tasks, PauseKind.TAG: tags}
        changed = change_pauses(cli, verb, named, force=force)
        document = {"changed": changed.number, "tasks": list(tasks), "tags": list(tags)}
        said = [f"{kind} {name} {state}" for (kind, name), state in changed.said.items()]
        cli.answer(document, *said)

    return command


pause = _command(
    "pause",
    "Start no more jobs of a task, or with a tag.\n\n"
    "In all queues. Running jobs go on. For a queue: jobqueue queues pause.",
)
resume = _command(
    "resume", "Start jobs of a paused task or tag again.\n\nFor a queue: jobqueue queues resume."
)
