"""`cancel`, `retry`, `delete`, `update`: one action on jobs given by id, or on all that match."""

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import click

from jobqueue import bulk_verbs, text_parsing
from jobqueue.bulk_verbs import (
    CANCEL,
    DELETE,
    IDS_PER_STATEMENT,
    RETRY_ALL,
    Changed,
    DryRun,
    Verb,
    change_jobs,
    parts_of,
    require_state,
    updating,
)
from jobqueue.cli import completion, params
from jobqueue.cli.context import FORCE, CliContext, Command, pass_cli
from jobqueue.cli.errors import MISUSED, CliError, print_error
from jobqueue.cli.params import F, flag
from jobqueue.cli.streams import echo
from jobqueue.errors import InvalidOption
from jobqueue.job_changes import JobChanges
from jobqueue.known_names import unknown_in
from jobqueue.printable_text import escape_controls, listed
from jobqueue.records import JobFilter, Refusal, counted
from jobqueue.states import WAITING, State
from jobqueue.store.audit import operator
from jobqueue.store.jobs import Jobs

FILTERS = "--state --task --queue --tag --error"
UPDATE_FILTERS = "--state --task --in-queue --with-tag"
REFUSALS_SHOWN = 20
"""Refusals that are printed, a line each."""


RETRY = replace(bulk_verbs.RETRY, act=partial(Jobs.retry, ask="--succeeded"))


def _command(verb: Verb, help_: str) -> click.Command:
    @click.command(verb.name, cls=Command, help=help_)
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @params.filter_options
    @flag("--all everything", f"{verb.name.capitalize()} all jobs.")
    @safety_options
    @_succeeded_option(verb)
    @pass_cli
    def command(
        cli: CliContext,
        /,
        *,
        ids: tuple[str, ...],
        error: str | None,
        everything: bool,
        safety: Safety,
        succeeded: bool = False,
        **filters: str | None,
    ) -> None:
        wanted = text_parsing.a_filter(**filters, error=cli.error(error))
        chosen = Choice.of(verb, ids, wanted, FILTERS, everything=everything)
        acts = RETRY_ALL if succeeded else verb
        left_out = 0
        if not chosen.ids:
            left_out = bulk_verbs.left_out(acts, cli.jobs, wanted, "--succeeded")
        elif acts is RETRY and not (safety.yes or safety.dry_run) and _asks_again(cli, chosen.ids):
            acts = RETRY_ALL
        perform(cli, acts, chosen, safety, left_out)

    return command


def safety_options(function: F) -> F:
    """Add `--dry-run --yes --force`, and pass them as `safety`."""

    @functools.wraps(function)
    def with_safety(*args: Any, dry_run: bool, yes: bool, force: bool, **given: Any) -> Any:
        return function(*args, safety=Safety(dry_run, yes, force), **given)

    options = params.all_of(
        flag("--dry-run", "Print how many jobs, and a sample; change nothing."),
        flag("--yes", "Do not ask for confirmation."),
        flag("--force", "Accept a task, queue or tag not known."),
    )
    return options(with_safety)  # type: ignore[return-value]


class Safety(NamedTuple):
    """How careful a bulk verb is."""

    dry_run: bool
    yes: bool
    force: bool


class Choice(NamedTuple):
    """The jobs of a bulk verb: ids, or without any a filter."""

    ids: tuple[int, ...]
    wanted: JobFilter

    @classmethod
    def of(
        cls, verb: Verb, ids: tuple[str, ...], wanted: JobFilter, filters: str, *, everything: bool
    ) -> "Choice":
        """Take exactly one of ids, a filter and --all. Raises InvalidOption."""
        named = text_parsing.job_ids(ids)
        if sum((bool(named), wanted != JobFilter(), everything)) != 1:
            raise InvalidOption(
                f"{verb.name}: give ids, or a filter ({filters}), or --all: one of the three",
                field="id",
            )
        return cls(named, wanted)

    @property
    def all(self) -> JobFilter:
        """The ids, or the filter."""
        return replace(self.wanted, ids=self.ids or None)


def perform(cli: CliContext, verb: Verb, chosen: Choice, safety: Safety, left_out: int = 0) -> None:
    """Change the chosen jobs and print how many, after a question; or print what it would do.

    Raises CliError for refused jobs, after the others were changed.
    """
    if not chosen.ids:
        count = _count_known(cli, verb, chosen.wanted, force=safety.force)
        if not safety.dry_run:
            _confirm(cli, verb, chosen.wanted, count, _but(left_out), yes=safety.yes)
    if safety.dry_run:
        print_dry_run(cli, verb.name, parts_of(chosen.all), verb.states)
        return
    done = change_jobs(verb, cli.jobs, chosen.all, operator(), cli.wake_workers)
    changed, refused = done.changed, done.refused
    if cli.json:
        answer = done.to_json()
        cli.print_json(answer | {"left_out": left_out} if left_out else answer)
    elif changed or not refused:
        echo(_summary(cli, verb, done, left_out))
    if refused:
        raise _refusal(refused, json=cli.json)


def print_dry_run(
    cli: CliContext, verb: str, filters: Sequence[JobFilter], states: Sequence[State]
) -> None:
    """Print how many jobs a verb would change now, and a sample of them; change nothing."""
    found = DryRun.of(cli.jobs, filters, states)
    if cli.json:
        cli.print_json(found.to_json())
        return
    echo(f"would {verb} {counted(found.count, 'job')} in {cli.target}; nothing was changed")
    width = max([len(str(job.id)) for job in found.sample], default=0)
    for job in found.sample:
        echo(f"  {job.id:>{width}}  {escape_controls(job.task)}")
    if more := found.count - len(found.sample):
        echo(f"  and {more:,} more")


def _succeeded_option(verb: Verb) -> Callable[[F], F]:
    if verb is not RETRY:
        return lambda function: function
    return flag("--succeeded", "Include jobs that have succeeded.")


def _asks_again(cli: CliContext, named: tuple[int, ...]) -> bool:
    """Ask on a terminal whether succeeded jobs shall run again; False where there are none.

    Raises CliError if the answer is no.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    states = cli.jobs.states(named)
    done = [str(id_) for id_ in named if states.get(id_) is State.SUCCEEDED]
    if done:
        one = len(done) == 1
        which = f"job {done[0]} has" if one else f"jobs {listed(done)} have"
        confirm(f"{which} succeeded; run {'it' if one else 'them'} again")
    return bool(done)


def _count_known(cli: CliContext, verb: Verb, wanted: JobFilter, *, force: bool) -> int:
    """Return how many jobs match. Raises InvalidOption if none do and a name is not known."""
    require_state(verb, wanted)
    states = verb.states if wanted.state is None else (wanted.state,)
    count = sum(cli.jobs.count(replace(wanted, state=state)) for state in states)
    if count == 0 and not force:
        cli.require_known(lambda known: unknown_in(wanted, known, FORCE))
    return count


def _confirm(
    cli: CliContext, verb: Verb, wanted: JobFilter, count: int, but: str, *, yes: bool
) -> None:
    """Ask, with the number of jobs and the database."""
    which = ", ".join(f"{key} {value}" for key, value in wanted.named().items())
    what = counted(count, "job") + (f" ({which})" if which else "")
    question = f"{verb.name} {what} in {cli.target}{but}"
    if yes:
        cli.note(question)
    else:
        confirm(question)


def _but(left_out: int) -> str:
    if not left_out:
        return ""
    which = "1 that has" if left_out == 1 else f"{left_out:,} that have"
    return f", without {which} succeeded (--succeeded)"


def confirm(question: str) -> None:
    """Ask for confirmation. Raises CliError if it is denied, or without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CliError(
            f"{question}? cannot ask for confirmation: not a terminal; pass --yes",
            code=MISUSED,
            field="yes",
        )
    echo(escape_controls(f"{question}? [y/N] "), err=True, end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CliError("not confirmed; nothing was changed", field="yes")


def _summary(cli: CliContext, verb: Verb, done: Changed, left_out: int) -> str:
    """Return what was done, in one line."""
    parts = [f"{verb.done} {counted(len(done.changed), 'job')}{_but(left_out)}"]
    if verb is CANCEL and (running := _still_running(cli, done.changed)):
        parts.append(f"{running:,} of them still running, asked to stop")
    if done.unchanged:
        parts.append(f"{done.unchanged:,} {done.said}")
    return "; ".join(parts)


def _refusal(refused: Sequence[Refusal], *, json: bool) -> CliError:
    """Return the error for refused jobs, and print a line for each of the others (up to 20)."""
    messages = [escape_controls(f"job {refusal.id}: {refusal.reason}") for refusal in refused]
    if not json:
        for message in messages[1:REFUSALS_SHOWN]:
            print_error(message)
    more = f" (and {len(refused) - REFUSALS_SHOWN:,} more)" if len(refused) > REFUSALS_SHOWN else ""
    return CliError(f"{messages[0]}{more}", field="id", value=refused[0].id)


def _still_running(cli: CliContext, changed: list[int]) -> int:
    with contextlib.suppress(Exception):  # Only the wording depends on it: the jobs are cancelled.
        states = cli.jobs.states(changed[:IDS_PER_STATEMENT])
        return sum(state is State.RUNNING for state in states.values())
    return 0


@click.command(cls=Command)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@params.whole_option("--priority", "New priority; smaller is first.")
@params.option("--queue to_queue", "NAME", "Move them to this queue.", completion.queues)
@params.option("--at", "INSTANT", "Due then, such as 2026-12-24T18:00+01:00.")
@params.option("--tag tags", "NAME", "New tag, instead of the old; may be repeated.", multiple=True)
@params.option(
    "--state state_name",
    "STATE",
    f"Only jobs in this state: {', '.join(WAITING)}.",
    completion.words(*WAITING),
)
@params.option("--task", "NAME", "Only jobs of this task.", completion.tasks)
@params.option("--in-queue queue", "NAME", "Only jobs in this queue.", completion.queues)
@params.option("--with-tag tag", "NAME", "Only jobs with this tag.", completion.tags)
@flag("--all everything", "Update all jobs that wait.")
@safety_options
@pass_cli
def update(
    cli: CliContext,
    /,
    *,
    ids: tuple[str, ...],
    priority: int | str | None,
    to_queue: str | None,
    at: str | None,
    tags: tuple[str, ...],
    everything: bool,
    safety: Safety,
    **filters: str | None,
) -> None:
    """Change jobs that wait.

    Priority, queue, due time or tags of scheduled and available jobs; others are refused. Give
    either ids, or filters, or --all.
    """
    given = {"priority": priority, "queue": to_queue, "at": at, "tags": tags or None}
    verb = updating(JobChanges.of(given))
    chosen = Choice.of(
        verb, ids, text_parsing.a_filter(**filters), UPDATE_FILTERS, everything=everything
    )
    perform(cli, verb, chosen, safety)


CHOICE = "Give either ids, or filters, or --all."
cancel = _command(
    CANCEL,
    "Cancel jobs that wait or run.\n\n"
    "A waiting job never starts, a running one is asked to stop. " + CHOICE,
)
retry = _command(
    RETRY,
    "Run jobs again.\n\nFailed and cancelled jobs get all their attempts again, scheduled "
    "ones are due now. Succeeded jobs are run again only with --succeeded. " + CHOICE,
)
delete = _command(
    DELETE, "Delete jobs that are not running.\n\nTheir attempts are deleted, too. " + CHOICE
)
