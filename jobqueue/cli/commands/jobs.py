"""`list`, `show`, `why`, `wait`: jobs, one job in full, why it waits, and the end of jobs."""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import click
from rich.text import Text

from jobqueue import options, text_parsing
from jobqueue.cli import params
from jobqueue.cli.context import CliContext, Command, pass_cli, to_json
from jobqueue.cli.errors import CliError
from jobqueue.cli.job_renderer import render_details, title_of
from jobqueue.cli.params import option, whole_option
from jobqueue.cli.streams import STDOUT, echo, reader_gone
from jobqueue.cli.tables import COLOURS, NAME_CELLS, Column, Table, console, put
from jobqueue.config import WORKER
from jobqueue.display import ago, call_of, duration, error_of, took
from jobqueue.errors import JobNotFound, ResultTimeout
from jobqueue.job import Job, as_completed
from jobqueue.json_forms import job_json, with_attempts
from jobqueue.known_names import unknown_in
from jobqueue.printable_text import escape_controls, listed
from jobqueue.records import JobFilter, JobRecord
from jobqueue.states import FINAL, State
from jobqueue.store.why import explain

T = TypeVar("T")

SAMPLE_ROWS = 500
"""Number of rows that decide the widths of the columns."""

LINE_MAX = 2000
"""Characters of a result in one line."""


def detail(job: JobRecord) -> str:
    """Return what matters most about a job in its state: due time, progress, result or error."""
    if job.state is State.SCHEDULED:
        waits = "waits for its unique key" if job.awaits_key else f"due {ago(job.run_at)}"
        return ", ".join(filter(None, [waits, error_of(job) or job.reason]))
    if job.state is State.RUNNING:
        return _so_far(job) or f"on {job.worker or 'no worker'}"
    if job.state is State.SUCCEEDED:
        return job.reason or job.result or ""
    return error_of(job) or job.reason or ""


def _so_far(job: JobRecord) -> str:
    asked = "asked to stop" if job.cancel_requested_at else ""
    fraction = "" if job.progress is None else f"{job.progress:.0%}"
    progress = " ".join(filter(None, [fraction, job.progress_message]))
    return ", ".join(filter(None, [asked, progress]))


def _beside_worker(job: JobRecord) -> str:
    return _so_far(job) if job.state is State.RUNNING and job.worker else detail(job)


def _detail_style(job: JobRecord) -> str:
    return "red" if job.error is not None and job.state is not State.SUCCEEDED else ""


LIST = [
    Column[JobRecord]("id", lambda job: job.id, right=True),
    Column[JobRecord]("state", lambda job: job.state, style=lambda job: COLOURS[job.state]),
    Column[JobRecord]("task", lambda job: job.task, rank=1, least=NAME_CELLS, in_middle=True),
    Column[JobRecord]("arguments", call_of, rank=3, least=12),
    Column[JobRecord]("queue", lambda job: job.queue, rank=5, least=NAME_CELLS, in_middle=True),
    Column[JobRecord]("prio", lambda job: job.priority or "", rank=8, right=True),
    Column[JobRecord]("attempt", lambda job: f"{job.attempt}/{job.max_attempts}", rank=4),
    Column[JobRecord]("created", lambda job: ago(job.created_at), rank=6, style="dim"),
    Column[JobRecord]("took", took, rank=7, right=True),
    Column[JobRecord]("tags", lambda job: ",".join(job.tags), rank=9, least=6),
    Column[JobRecord](
        "worker", lambda job: job.worker, rank=10, least=10, in_middle=True, style="dim"
    ),
    Column[JobRecord](
        "detail", detail, rank=2, least=20, style=_detail_style, beside=("worker", _beside_worker)
    ),
]


@click.command("list", cls=Command, hints={click.UsageError: "for one job: jobqueue show ID"})
@params.filter_options
@option("--since since_text", "WHEN", "Only jobs enqueued since: 2h, or 2026-12-24T18:00Z.")
@whole_option("--limit", "Show at most N jobs; 0 shows all.", default="50")
@pass_cli
def list_(
    cli: CliContext, /, *, error: str | None, limit: int | str, **filters: str | None
) -> None:
    """List jobs, newest first."""
    wanted = text_parsing.a_filter(**filters, error=cli.error(error))
    most = options.whole(limit, "limit", 0, params.LIMIT_MAX)
    found = cli.jobs.find(wanted, most or None)
    first = next(found, None)
    if first is None:
        _say_nothing_is_found(cli, wanted)
    else:
        found = itertools.chain([first], found)
    if cli.json:
        _print_array(found)
        return
    sample = list(itertools.islice(found, SAMPLE_ROWS))
    if not sample:
        return
    rows = Table(LIST, sample, console(), has_more=len(sample) == SAMPLE_ROWS)
    rows.head()
    rows.rows(sample)
    for job in found:
        rows.rows([job])
        if reader_gone():
            return


def _say_nothing_is_found(cli: CliContext, wanted: JobFilter) -> None:
    """Say on stderr that no job matches; for an unknown name with --json, too."""
    error = None
    if (wanted.task, wanted.queue, wanted.tag) != (None, None, None):
        error = cli.unknown(lambda known: unknown_in(wanted, known))
    if error is not None:
        echo(escape_controls(f"no jobs match; {error}"), err=True)
    else:
        cli.note("no jobs match" if wanted != JobFilter() else "no jobs")


def _print_array(jobs: Iterator[JobRecord]) -> None:
    """Print an array item by item, so that it may be of any length."""
    opening = "["
    for job in jobs:
        STDOUT.write(opening + to_json(job_json(job)))
        opening = ",\n"
        if reader_gone():
            return
    echo("[]" if opening == "[" else "]")


@click.command(cls=Command)
@click.argument("id", metavar="ID")
@pass_cli
def show(cli: CliContext, id: str) -> None:  # noqa: A002 - the name in the contract's messages.
    """Show one job and its attempts.

    Arguments, state, every attempt with its times, traceback, result, progress.
    """
    id_ = text_parsing.job_id(id)
    job = _there(cli, id_, cli.jobs.get(id_))
    if cli.json:
        cli.print_json(with_attempts(cli.jobs, job))
    else:
        screen = console()
        put(screen, title_of(job))
        render_details(job, cli.jobs.attempts(job), screen)


def _there(cli: CliContext, id_: int, found: T | None) -> T:
    """Return what was found of a job. Raises JobNotFound."""
    if found is None:
        raise JobNotFound(
            f"there is no job {id_} (any more) in {cli.target}; see: jobqueue list",
            field="id",
            value=id_,
        )
    return found


@click.command(cls=Command)
@click.argument("id", metavar="ID")
@pass_cli
def why(cli: CliContext, id: str) -> None:  # noqa: A002 - the name in the contract's messages.
    """Say why a job is where it is, and what to do.

    One sentence, by the conditions of the claim: not due, paused, limited, behind others, …
    """
    id_ = text_parsing.job_id(id)
    found = _there(cli, id_, explain(cli.jobs, id_))
    found = replace(found, advice=cli.as_typed(found.advice))
    said = (f"job {id_}: {found.sentence}", f"to do: {found.advice}")
    cli.answer(found.to_json(), *map(escape_controls, said))


@click.command(cls=Command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@option("--timeout", "TIME", "Give up after, for example, 30s or 5m.")
@pass_cli
def wait(cli: CliContext, ids: tuple[str, ...], timeout: str | None) -> None:
    """Wait until jobs have ended.

    Exits with 0 if all succeeded, with 1 if one did not.
    """
    wanted = text_parsing.job_ids(ids)
    limit = None if timeout is None else options.seconds(timeout, "timeout")
    missing = sorted(set(wanted) - cli.jobs.states(wanted).keys())
    if missing:
        _there(cli, missing[0], None)
    ended: dict[int, JobRecord] = {}
    for job in await_all(cli, wanted, limit):
        ended[job.id] = job
        if not cli.json:
            print_end(job)
    if cli.json:
        answer = [with_attempts(cli.jobs, ended[id_]) for id_ in wanted]
        cli.print_json(answer[0] if len(answer) == 1 else answer)
    require_success(ended.values())


def await_all(cli: CliContext, ids: tuple[int, ...], limit: float | None) -> Iterator[JobRecord]:
    """Yield jobs as they end. Raises CliError when the time is up."""
    if not (cli.monitor.workers() or all(s in FINAL for s in cli.jobs.states(ids).values())):
        cli.note(cli.as_typed(f"no worker is running yet; start one with: {WORKER}"))
    handles = [Job[object](id_, cli.jobs, json.loads) for id_ in ids]
    left = set(ids)
    try:
        for handle in as_completed(handles, limit):
            left.discard(handle.id)
            yield handle.record()
    except ResultTimeout:
        assert limit is not None
        shown = listed(sorted(left))
        raise CliError(
            f"not ended within {duration(limit)}: job {shown}; it goes on by itself, "
            f"wait again with: jobqueue wait {min(left)}",
            field="timeout",
            value=limit,
        ) from None


def print_end(job: JobRecord) -> None:
    """Print how a job ended."""
    line = Text(f"{job.id}  ")
    line.append(job.state, style=COLOURS[job.state])
    screen = console()
    said = escape_controls(detail(job)[:LINE_MAX])
    put(screen, line + Text(f"  {said}") if said else line)


def require_success(jobs: Iterable[JobRecord]) -> None:
    """Raise a CliError unless all of them succeeded."""
    bad = [job for job in jobs if job.state is not State.SUCCEEDED]
    if not bad:
        return
    job = bad[0]
    if len(bad) == 1:
        what = f"job {job.id} ({job.task}) {_ended(job)}"
    else:
        named = listed([f"{job.id} {job.state}" for job in bad])
        what = f"{len(bad):,} jobs did not succeed: {named}"
    raise CliError(f"{what}; see: jobqueue show {job.id}", field="id", value=job.id)


def _ended(job: JobRecord) -> str:
    if job.state is State.CANCELLED:
        return "was cancelled" + (f": {job.reason}" if job.reason else "")
    return f"{job.state}: {error_of(job) or job.reason or 'no reason is known'}"
