"""`cancel`, `retry`, `delete`: one action on jobs given by id, or on all that match."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import click

from jobqueue import wire
from jobqueue.cli import params
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.errors import MISUSED, CliError, complain
from jobqueue.cli.streams import echo
from jobqueue.errors import InvalidOption
from jobqueue.known_names import unknown_in
from jobqueue.records import JobFilter, Refusal, counted
from jobqueue.states import MOVES, State
from jobqueue.store.audit import Action, target_of
from jobqueue.store.jobs import Jobs
from jobqueue.text import escape_controls, listed
from jobqueue.wire import changes

F = TypeVar("F", bound=Callable[..., Any])

IDS_PER_STATEMENT = 1000
"""Ids in one statement."""
FORCE = " (--force takes it as it is)"
REFUSALS_SHOWN = 20
"""Refusals that are printed, a line each."""


@dataclass(frozen=True)
class Verb:
    """What a command does to jobs."""

    name: str
    done: str
    states: tuple[State, ...]
    act: Callable[[Jobs, JobFilter, Action], tuple[list[int], list[Refusal]]]


CANCEL = Verb("cancel", "cancelled", MOVES["cancel"].before, Jobs.cancel)
RETRY_ALL = Verb(
    "retry",
    "retried",
    (*MOVES["hasten"].before, *MOVES["rerun"].before),
    partial(Jobs.rerun, succeeded=True),
)
RETRY = replace(
    RETRY_ALL,
    states=tuple(state for state in RETRY_ALL.states if state is not State.SUCCEEDED),
    act=partial(Jobs.rerun, ask="--succeeded"),
)
"""Leaves out succeeded jobs: to run them again repeats their effects."""
DELETE = Verb(
    "delete",
    "deleted",
    tuple(state for state in State if state is not State.RUNNING),
    Jobs.delete,
)


def _command(verb: Verb, help_: str) -> click.Command:
    @click.command(verb.name, cls=Command, help=help_)
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @params.filter_options
    @click.option("--all", "everything", is_flag=True, help=f"{verb.name.capitalize()} all jobs.")
    @click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
    @click.option("--force", is_flag=True, help="Accept a task, queue or tag that is not known.")
    @_succeeded_option(verb)
    @pass_cli
    def command(
        cli: CliContext,
        *,
        ids: tuple[str, ...],
        state_name: str | None,
        task: str | None,
        queue: str | None,
        tag: str | None,
        everything: bool,
        yes: bool,
        force: bool,
        succeeded: bool = False,
    ) -> None:
        wanted = wire.a_filter(state_name, task, queue, tag)
        named = wire.job_ids(ids)
        is_bulk = wanted != JobFilter() or everything
        if bool(named) == is_bulk or (everything and wanted != JobFilter()):
            raise InvalidOption(
                f"{verb.name}: give ids, or a filter (--state --task --queue --tag), or --all: "
                "one of the three",
                field="id",
            )
        acts = RETRY_ALL if succeeded else verb
        left_out = 0
        if is_bulk:
            left_out = _left_out(cli, acts, wanted)
            _confirm(cli, acts, wanted, _but(left_out), yes=yes, force=force)
        elif acts is RETRY and not yes and _asks_again(cli, named):
            acts = RETRY_ALL
        result = _apply(cli, acts, wanted, named)
        if cli.json:
            answer = changes(*result)
            cli.print_json(answer | {"left_out": left_out} if left_out else answer)
        elif result.changed or not result.refused:
            echo(_summary(cli, verb, named, result, left_out))
        if result.refused:
            raise _refusal(result.refused, json=cli.json)

    return command


def _succeeded_option(verb: Verb) -> Callable[[F], F]:
    if verb is not RETRY:
        return lambda function: function
    return click.option("--succeeded", is_flag=True, help="Include jobs that have succeeded.")


def _left_out(cli: CliContext, verb: Verb, wanted: JobFilter) -> int:
    """Return how many matching jobs have succeeded, so that they are left out."""
    if verb is not RETRY or wanted.state not in (None, State.SUCCEEDED):
        return 0
    if wanted.state is State.SUCCEEDED:
        raise InvalidOption(
            "state: jobs that have succeeded are only retried with --succeeded: it runs them again",
            field="state",
            value=wanted.state.value,
        )
    return cli.jobs.count(replace(wanted, state=State.SUCCEEDED))


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


def _confirm(
    cli: CliContext, verb: Verb, wanted: JobFilter, but: str, *, yes: bool, force: bool
) -> None:
    """Ask, with the number of jobs and the database. Raises InvalidOption for an unknown name."""
    count = _count(cli, verb, wanted)
    if count == 0 and not force:
        stranger = cli.unknown(lambda known: unknown_in(wanted, known, FORCE))
        if stranger is not None:
            raise stranger
    which = params.describe(wanted)
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


def _count(cli: CliContext, verb: Verb, wanted: JobFilter) -> int:
    if wanted.state is not None and wanted.state not in verb.states:
        raise InvalidOption(
            f"state: {wanted.state} jobs cannot be {verb.done}; "
            f"those that can are {', '.join(verb.states)}",
            field="state",
            value=wanted.state.value,
        )
    states = verb.states if wanted.state is None else (wanted.state,)
    return sum(cli.jobs.count(replace(wanted, state=state)) for state in states)


class Result(NamedTuple):
    """The ids that were changed, and the refusals."""

    changed: list[int]
    refused: list[Refusal]


def _apply(cli: CliContext, verb: Verb, wanted: JobFilter, named: tuple[int, ...]) -> Result:
    filters = [
        JobFilter(ids=named[start : start + IDS_PER_STATEMENT])
        for start in range(0, len(named), IDS_PER_STATEMENT)
    ]
    result = Result([], [])
    action = cli.action(verb.name, **target_of(replace(wanted, ids=named or None)))
    for part in filters or [wanted]:
        changed, refused = verb.act(cli.jobs, part, action)
        result.changed.extend(changed)
        result.refused.extend(refused)
    if verb.name == RETRY.name and result.changed:
        cli.wake_workers()
    return result


def _summary(
    cli: CliContext, verb: Verb, named: Sequence[int], result: Result, left_out: int
) -> str:
    """Return what was done, in one line."""
    count = len(result.changed)
    parts = [f"{verb.done} {counted(count, 'job')}{_but(left_out)}"]
    if verb is CANCEL and (running := _still_running(cli, result.changed)):
        parts.append(f"{running:,} of them still running, asked to stop")
    if named and (already := len(named) - count - len(result.refused)):
        parts.append(f"{already:,} needed nothing")
    return "; ".join(parts)


def _refusal(refused: Sequence[Refusal], *, json: bool) -> CliError:
    """Return the error for refused jobs, and print a line for each of the others (up to 20)."""
    messages = [escape_controls(f"job {refusal.id}: {refusal.reason}") for refusal in refused]
    if not json:
        for message in messages[1:REFUSALS_SHOWN]:
            complain(message)
    more = f" (and {len(refused) - REFUSALS_SHOWN:,} more)" if len(refused) > REFUSALS_SHOWN else ""
    return CliError(f"{messages[0]}{more}", field="id", value=refused[0].id)


def _still_running(cli: CliContext, changed: list[int]) -> int:
    with contextlib.suppress(Exception):  # Only the wording depends on it: the jobs are cancelled.
        states = cli.jobs.states(changed[:IDS_PER_STATEMENT])
        return sum(state is State.RUNNING for state in states.values())
    return 0


CHOICE = "Give either ids, or filters, or --all."
COMMANDS = (
    _command(
        CANCEL,
        "Cancel jobs that wait or run.\n\n"
        "A waiting job never starts, a running one is asked to stop. " + CHOICE,
    ),
    _command(
        RETRY,
        "Run jobs again.\n\nFailed and cancelled jobs get all their attempts again, scheduled "
        "ones are due now. Succeeded jobs are run again only with --succeeded. " + CHOICE,
    ),
    _command(
        DELETE,
        "Delete jobs that are not running.\n\nTheir attempts are deleted, too. " + CHOICE,
    ),
)
