"""`stats`, `workers`, `tasks`, `prune`: statistics and maintenance."""

import math
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from jobqueue import options
from jobqueue.cli.commands.bulk_actions import confirm
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import flag, option, whole_option
from jobqueue.cli.streams import echo, reader_gone
from jobqueue.cli.tables import COLOURS, Column, console, put, table
from jobqueue.config import WORKER
from jobqueue.display import ago, counted_waiting, duration
from jobqueue.printable_text import escape_controls
from jobqueue.queue_switches import rate_of
from jobqueue.records import JobFilter, counted
from jobqueue.states import State
from jobqueue.store.audit import Action, operator
from jobqueue.store.maintenance import BATCH, Maintenance
from jobqueue.store.stats import MINUTES as MINUTES_SHOWN
from jobqueue.task_list import task_rows

Row = dict[str, Any]

MINUTES_MAX = 24 * 60
HOME_AND_CLEAR = "\x1b[H\x1b[2J"


def _number(
    name: str, title: str = "", rank: int = 0, *, style: Callable[[Row], str] | str = ""
) -> Column[Row]:
    def cell(row: Row) -> str:
        more = "+" if row.get(f"{name}_more") else ""  # It is a bound.
        return "" if row.get(name) is None else f"{row[name]:,}{more}"

    return Column[Row](title or name, cell, rank=rank, right=True, style=style)


def _count(state: State, rank: int) -> Column[Row]:
    return _number(state, rank=rank, style=lambda row: COLOURS[state] if row.get(state) else "dim")


def _named(name: str, title: str = "", **how: Any) -> Column[Row]:
    return Column[Row](title or name, lambda row: row.get(name), **how)


def _timed(name: str, title: str, rank: int) -> Column[Row]:
    return Column[Row](title, lambda row: duration(row.get(name)), rank=rank, right=True)


def _rate(row: Row) -> str:
    rate = rate_of(row) if "rate_count" in row else None  # Not in the line of the totals.
    return "" if rate is None else str(rate)


QUEUE_CELLS, TASK_CELLS = 20, 28
"""Cells of 80 of a name that stay visible: its middle is left out before the columns of figures."""

PAUSED = Column[Row]("paused", lambda row: "yes" if row["paused"] else "", style="yellow")
QUEUES = [  # An operator looks here for the limit that was just set: it is left out late.
    _named("queue", least=QUEUE_CELLS, in_middle=True),
    _count(State.AVAILABLE, 1),
    _count(State.RUNNING, 2),
    _count(State.SCHEDULED, 7),
    _count(State.SUCCEEDED, 9),
    _count(State.FAILED, 5),
    _count(State.CANCELLED, 10),
    _timed("oldest_available_seconds", "oldest", 6),
    PAUSED,
    _number("max_running", "limit", 3),
    Column[Row]("rate", _rate, rank=4),
    Column[Row]("fair", lambda row: "yes" if row.get("fair") else "", rank=8),
    _number("max_pending", "bound", 11),
]
TASKS = [
    _named("task", least=TASK_CELLS, in_middle=True),
    _number("waiting", rank=1),
    _count(State.SUCCEEDED, 5),
    _count(State.FAILED, 2),
    _number("errored_attempts", "errors", 4),
    _timed("avg_duration", "avg", 3),
    _timed("max_duration", "max", 7),
    _timed("avg_wait", "wait", 6),
    PAUSED,
    _number("known_by", "workers", 8),
]
OF_APP = [
    *TASKS,
    Column[Row](
        "note",
        lambda row: "" if row["registered"] in (True, None) else "not in the app",
        rank=9,
        style="yellow",
    ),
    _named("signature", rank=10, least=12, style="dim"),
]
MINUTES = [
    Column[Row](
        "minute", lambda row: f"{datetime.fromisoformat(row['minute']).astimezone():%H:%M}"
    ),
    _number("workers", rank=7),
    _number("processed"),
    _number("errored", rank=2),
    _number("failed", rank=2),
    _number("snoozed", rank=11),
    _timed("avg_duration", "avg", 4),
    _timed("p50_duration", "p50", 9),
    _timed("p95_duration", "p95", 6),
    _timed("avg_wait", "wait", 5),
    _timed("p50_wait", "p50 wait", 10),
    _timed("p95_wait", "p95 wait", 8),
    Column[Row]("waiting", lambda row: counted_waiting(row["waiting"]), rank=3, right=True),
    Column[Row](
        "busy",
        lambda row: "" if row["utilisation"] is None else f"{row['utilisation']:.0%}",
        rank=1,
        right=True,
    ),
]
WORKERS = [
    _named("worker", least=12, in_middle=True),
    Column[Row]("busy", lambda row: f"{row['running']}/{row['concurrency']}", right=True),
    Column[Row]("draining", lambda row: "yes" if row["stopping_at"] else "", style="yellow"),
    _number("processed", rank=1),
    _number("errored", rank=2),
    Column[Row](
        "heartbeat",
        lambda row: f"{duration(row['heartbeat_age_seconds'])} ago",
        rank=3,
        right=True,
        style=lambda row: "red" if row["heartbeat_age_seconds"] > row["lease"] else "",
    ),
    Column[Row](
        "queues",
        lambda row: "all" if row["queues"] is None else ", ".join(row["queues"]),
        rank=4,
        least=8,
    ),
    _named("host", rank=6, least=8, style="dim"),
    _named("pid", rank=5, right=True, style="dim"),
]


@click.command(cls=Command)
@flag("--watch", "Refresh until Ctrl-C.")
@option("--interval", "TIME", "Time between two refreshes with --watch.", default="2s")
@whole_option(
    "--minutes", "Show worker activity for the last N minutes.", default=str(MINUTES_SHOWN)
)
@pass_cli
def stats(cli: CliContext, watch: bool, interval: str, minutes: int | str) -> None:
    """Show counts, workers and throughput.

    Counts are by queue and by task; worker activity is by minute.
    """
    every = options.seconds(interval, "interval", least=0.1)
    count = options.whole(minutes, "minutes", 0, MINUTES_MAX)
    if not watch:
        _print_stats(cli, console(), count)
        return
    pause = threading.Event()
    while not reader_gone():
        screen = console()
        if not screen.is_terminal or cli.json:
            _print_stats(cli, screen, count)
            if not cli.json:
                echo()
        else:
            with screen.capture() as frame:
                _print_stats(cli, screen, count)
            # One write, so that nothing flickers.
            echo(HOME_AND_CLEAR + frame.get(), end="")
        pause.wait(every)


def _print_stats(cli: CliContext, screen: Console, minutes: int) -> None:
    found = cli.monitor.stats(minutes)
    if cli.json:
        cli.print_json(found)
        return
    queues = [*found["queues"], *_total(found["queues"])]
    for rows, columns in ((queues, QUEUES), (found["tasks"], TASKS), (found["minutes"], MINUTES)):
        if rows:
            table(rows, columns, screen)
            put(screen, "")
    for row in found["pauses"]:
        by = f" by {row['paused_by']}" if row["paused_by"] else ""
        since = ago(datetime.fromisoformat(row["paused_at"]))
        said = escape_controls(f"{row['kind']} {row['name']} paused {since}{by}")
        put(screen, Text(said, "yellow"))
    workers = found["workers"]
    line = Text(counted(workers, "worker"), "" if workers else "yellow")
    put(screen, line + Text(f", {throughput(found['throughput_per_second'])} in the last minute"))


def throughput(per_second: float) -> str:
    """Jobs per second; or, where that is less than one, how many jobs there were in a minute."""
    if per_second < 1:
        return counted(math.ceil(round(60 * per_second, 3)), "job")
    return f"{per_second:,.0f} jobs/s" if per_second >= 100 else f"{per_second:.3g} jobs/s"  # noqa: PLR2004


def _total(rows: list[Row]) -> list[Row]:
    if len(rows) < 2:  # noqa: PLR2004
        return []
    sums = {state.value: sum(row[state] for row in rows) for state in State}
    bounds = {name: any(row[name] for row in rows) for name in ("available_more", "scheduled_more")}
    return [{"queue": "total", "paused": False, **sums, **bounds}]


def show(cli: CliContext, rows: list[Row], columns: Sequence[Column[Row]], nothing: str) -> None:
    """Print rows as JSON or as a table, or say that there is nothing."""
    if cli.json:
        cli.print_json(rows)
    elif rows:
        table(rows, columns)
    else:
        cli.note(nothing)


@click.command(cls=Command)
@pass_cli
def workers(cli: CliContext) -> None:
    """List the workers."""
    rows = cli.monitor.workers_json()
    nothing = cli.as_typed(f"no worker is running; start one with: {WORKER}")
    show(cli, rows, WORKERS, nothing)


@click.command(cls=Command)
@pass_cli
def tasks(cli: CliContext) -> None:
    """List the app's and the database's tasks."""
    app = cli.app
    rows = task_rows(cli.monitor, None if app is None else app.registry)
    columns = TASKS if app is None else OF_APP
    show(cli, rows, columns, "no tasks are known; name the app with --app to see its own")


@click.command(cls=Command)
@option(
    "--older-than", "TIME", "Age of succeeded and cancelled jobs, since their end.", default="7d"
)
@option("--failed-older-than", "TIME", "Age of failed jobs, since their end.", default="30d")
@flag("--yes", "Do not ask, even if all jobs of a state would be deleted.")
@pass_cli
def prune(cli: CliContext, older_than: str, failed_older_than: str, yes: bool) -> None:
    """Delete jobs that ended long ago.

    Deletes in batches. Workers prune by themselves as well.
    """
    age = options.seconds(older_than, "older_than")
    failed_age = options.seconds(failed_older_than, "failed_older_than")
    ages = {State.SUCCEEDED: age, State.CANCELLED: age, State.FAILED: failed_age}
    every = [state for state, limit in ages.items() if limit == 0]
    if every and not yes:
        count = sum(cli.jobs.count(JobFilter(state=state)) for state in every)
        names = ", ".join(every)
        confirm(f"prune {counted(count, 'job')} ({names}) in {cli.target}")
    cli.note(f"pruning {cli.target}")
    maintenance = Maintenance(cli.store)
    action = Action(operator(), "prune", {"older_than": ages})
    deleted = {state: _prune(maintenance, state, limit, action) for state, limit in ages.items()}
    total = sum(deleted.values())
    parts = ", ".join(f"{count:,} {state}" for state, count in deleted.items() if count)
    said = f"deleted {counted(total, 'job')}" + (f": {parts}" if parts else "")
    cli.answer({"deleted": total, **deleted}, said)


def _prune(maintenance: Maintenance, state: State, older_than: float, action: Action) -> int:
    total = count = maintenance.prune(state, older_than, action=action)
    while count == BATCH:
        count = maintenance.prune(state, older_than, action=action)
        total += count
    return total
