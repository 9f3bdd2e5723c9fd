"""Draws what was read as lines that fit a terminal. What comes from the data is escaped."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.text import Text

from jobqueue import overview
from jobqueue.cli.commands.errors import COLUMNS as ERRORS
from jobqueue.cli.commands.jobs import LIST as JOBS
from jobqueue.cli.commands.schedules import SCHEDULES
from jobqueue.cli.commands.top.pauses import pause_list
from jobqueue.cli.commands.top.views import Item, ItemKind, Line, Room
from jobqueue.cli.tables import Column, Table
from jobqueue.display import duration
from jobqueue.doctor_findings import Finding
from jobqueue.error_groups import ErrorGroup
from jobqueue.overview import HOUR, Point, Running
from jobqueue.printable_text import escape_controls, listed
from jobqueue.records import JobRecord, counted
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.states import State
from jobqueue.store.job_pages import WINDOW, JobPage
from jobqueue.store.stats import Rows

T = TypeVar("T")
Row = dict[str, Any]

BARS = "▁▂▃▄▅▆▇█"
SPARKS = (60, 30, 20, 12)
"""Cells of an hour; the first that leaves room for all other columns is taken."""
SLOTS_SHOWN = 16
"""Slots of a worker that are drawn, one mark each."""
LEAST = 2
"""Rows of each table on the first screen, however small the terminal is."""
FINDINGS, FINDINGS_IF_TALL, TALL = 3, 8, 30
NOT_LOW = 22
"""Lines of the screen from which on a finding may take two."""
NAME = 14
"""Cells of a name that stay."""


class Now(NamedTuple):
    """What the first screen shows."""

    findings: list[Finding]
    queues: Rows
    workers: Rows
    errors: list[ErrorGroup]
    jobs: list[JobRecord]
    paused_by: Mapping[str, str] = {}
    pauses: Rows = []  # noqa: RUF012 - nothing changes it.
    no_worker: str = ""


def memory(width: int) -> Console:
    """Return a console of that width that prints nowhere, to lay text out."""
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        highlight=False,
        markup=False,
        emoji=False,
    )


def now(found: Now, room: Room) -> list[Line]:
    """Draw the first screen: is it moving, what is wrong, who runs what, what failed."""
    lines = [Line(text) for text in wrap(_figures(found), room.width)]
    lines += _needs(found.findings, room)
    lines += pause_list(found.pauses, room, FINDINGS_IF_TALL if _is_tall(room) else FINDINGS)
    errors = error_list(found.errors, room, "no attempt has errored in 24 hours")
    tables = {  # By what shows the rows that have no room.
        ("g q", "queues"): queue_list(found.queues, found.paused_by, room),
        ("g w", "workers"): worker_list(found.workers, room, found.no_worker),
        ("g e", "errors --since 24h"): errors,
        ("g j", "list"): job_list(JobPage(found.jobs, None, False), "", room),
    }
    gap = [Line(Text())] if _is_tall(room) else []
    shares = [*map(len, tables.values())]
    if room.height is not None:
        shares = _shares(shares, room.height - len(lines) - len(gap) * len(tables))
    for ((key, command), table), share in zip(tables.items(), shares, strict=True):
        rest = key if room.has_keys else f"jobqueue {command}"
        lines += [*gap, *_cut(table, share, rest)]
    return lines


def _is_tall(room: Room) -> bool:
    return room.height is None or room.height >= TALL


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """Divide lines among tables: a line to each in turn, until each has what it wants."""
    shares = [min(want, 1 + LEAST) for want in wanted]
    while sum(shares) < room and shares != [*wanted]:
        for at, want in enumerate(wanted):
            if shares[at] < want and sum(shares) < room:
                shares[at] += 1
    return shares


def _cut(lines: list[Line], share: int, rest: str) -> list[Line]:
    """Return as many lines of a table; the last says how many are left out, and what has them."""
    more = len(lines) - share
    if more <= 0:
        return lines
    return [*lines[: share - 1], Line(Text(f"… and {more + 1:,} more: {rest}", "dim"))]


def _figures(found: Now) -> Text:
    """Return the whole in one line."""
    alive = [row for row in found.workers if row["alive"]]
    of = overview.totals(found.queues, alive)
    oldest = "" if of["oldest"] is None else f", oldest {duration(of['oldest'])}"
    later = f", {_number(of, State.SCHEDULED)} later" if of["scheduled"] else ""
    return Text(" · ").join(
        [
            Text(f"{_number(of, State.AVAILABLE)} waiting{oldest}{later}"),
            Text(f"{of['running']:,}/{of['slots']:,} busy"),
            Text(f"{of['pace']:,} done/min"),
            Text(f"{of['failed']:,} failed 1h", "bold red" if of["failed"] else ""),
            Text(counted(len(alive), "worker"), "" if alive else "bold red"),
        ]
    )


def _number(row: Row, state: State) -> str:
    """Return the number of waiting jobs, with a plus if the count stopped at a bound."""
    return f"{row[state.value]:,}" + ("+" if row[f"{state.value}_more"] else "")


def _needs(findings: Sequence[Finding], room: Room) -> list[Line]:
    """Return what needs somebody, each as a sentence of at most two lines."""
    most = FINDINGS_IF_TALL if _is_tall(room) else FINDINGS
    each_has = 2 if room.height is None or room.height >= NOT_LOW else 1
    lines = []
    for each in findings[:most]:
        style = "red" if each.check == overview.CAUSE else "yellow"
        wrapped = wrap(Text(escape_controls(each.sentence), style), room.width - 2)
        item = Item("finding", key_of(each), each)
        for at, text in enumerate(wrapped[:each_has]):
            if at == each_has - 1 and len(wrapped) > each_has:
                text.truncate(room.width - 3)
                text.append("…")
            lines.append(Line(Text("! " if at == 0 else "  ", f"bold {style}") + text, item))
    if len(findings) > most:
        more = f"… and {len(findings) - most:,} more: jobqueue doctor"
        lines.append(Line(Text(more, "dim")))
    return lines or [Line(Text("doctor finds nothing wrong", "green"))]


def key_of(each: Finding) -> str:
    """Return what stays of a finding while its numbers change."""
    return " ".join((each.check, *each.names[:1]))


def wrap(text: Text, width: int) -> list[Text]:
    """Return a text as lines of at most `width` cells."""
    return list(text.wrap(memory(width), max(1, width), overflow="fold")) or [Text()]


def _table(
    rows: Sequence[T],
    columns: Sequence[Column[T]],
    room: Room,
    item: Callable[[T], Item | None],
    nothing: str,
) -> list[Line]:
    """Return a table's titles and rows, or a line that says that there is nothing."""
    if not rows:
        return [Line(text) for text in wrap(Text(nothing, "dim"), room.width)]
    head, *lines = Table(columns, rows, memory(room.width), room.width).lines(rows)
    return [Line(head), *(Line(text, item(row)) for text, row in zip(lines, rows, strict=True))]


def _item(kind: ItemKind, key: Callable[[Any], object]) -> Callable[[Any], Item]:
    return lambda it: Item(kind, str(key(it)), it)


# Queues


def spark(points: Sequence[Point], cells: int) -> Text:
    """Return what ended in an hour as a line of bars, red where some failed; empty if none did."""
    size = HOUR // cells
    whole = overview.whole_spans(points)
    whole = whole[len(whole) % size :]
    spans = [whole[at : at + size] for at in range(0, len(whole), size)]
    sums = [sum(point.done + point.failed for point in span) for span in spans]
    most = max(sums, default=0)
    line = Text()
    for span, each in zip(spans, sums, strict=True):
        height = 0 if not each else max(1, round((len(BARS) - 1) * each / (most or 1)))
        line.append(BARS[height], "red" if any(point.failed for point in span) else "cyan")
    return line if most else Text()


def _queue_columns(paused_by: Mapping[str, str], cells: int) -> list[Column[Row]]:
    def waiting(row: Row) -> str:
        later = f" + {_number(row, State.SCHEDULED)}" if row[State.SCHEDULED.value] else ""
        return _number(row, State.AVAILABLE) + later

    def running(row: Row) -> str:
        limit = row["max_running"]
        return f"{row[State.RUNNING.value]:,}" + ("" if limit is None else f"/{limit:,}")

    def paused(row: Row) -> str:
        by = paused_by.get(row["queue"])
        return "" if not row["paused"] else f"by {by}" if by else "yes"

    failed: Callable[[Row], str] = lambda row: "bold red" if row["failed_hour"] else "dim"  # noqa: E731
    return [
        Column[Row]("queue", lambda row: row["queue"], least=NAME, in_middle=True, style="bold"),
        Column[Row]("waiting", waiting, right=True),
        Column[Row]("running", running, right=True),
        Column[Row](
            "oldest", lambda row: duration(row["oldest_available_seconds"]), rank=4, right=True
        ),
        Column[Row]("done/min", lambda row: f"{row['pace']:,}", rank=3, right=True),
        Column[Row](
            "failed 1h", lambda row: f"{row['failed_hour']:,}", rank=1, right=True, style=failed
        ),
        Column[Row]("paused", paused, rank=2, least=10, style="bold yellow"),
        Column[Row]("last hour", lambda row: spark(row["hour"], cells).plain, rank=5),
    ]


def queue_list(rows: Rows, paused_by: Mapping[str, str], room: Room) -> list[Line]:
    """Draw the queues."""
    for cells in SPARKS:
        columns = _queue_columns(paused_by, cells)
        fitted = Table(columns, rows, memory(room.width), room.width)
        if "last hour" in fitted.titles:
            break
    item = _item("queue", lambda row: row["queue"])
    lines = _table(rows, columns, room, item, "no queue yet: its first job makes one")
    for row, line in zip(rows, lines[1:], strict=False):
        bars = spark(row["hour"], cells)
        at = line.text.plain.rfind(bars.plain) if bars else -1
        if at >= 0:  # The table has it as plain text: it is coloured where it stands.
            head, _, tail = line.text.divide([at, at + len(bars)])
            line.text.copy_styles(Text.assemble(head, bars, tail))
    return lines


def queues_and_pauses(
    rows: Rows, paused_by: Mapping[str, str], pauses: Rows, room: Room
) -> list[Line]:
    """Draw the queues, and all tasks and tags that are paused."""
    gap = [Line(Text())] if pauses else []
    return [*queue_list(rows, paused_by, room), *gap, *pause_list(pauses, room)]


# Workers


MARKS = {"busy": "■", "stuck": "!", "free": "□"}


def _slots(row: Row) -> str:
    """Return a mark for each slot, and whether the worker is draining."""
    marks = "".join(MARKS[slot] for slot in row["slots"][:SLOTS_SHOWN])
    more = "…" if len(row["slots"]) > SLOTS_SHOWN else ""
    draining = ", draining" if row["stopping_at"] else ""
    return f"{marks}{more} {row['busy']}/{row['concurrency']}{draining}"


def _longest(row: Row) -> str:
    if not row["jobs"]:
        return ""
    job: Running = row["jobs"][0]
    return f"{job.id} {job.task} {duration(job.seconds)}" + (f", {job.stuck}" if job.stuck else "")


def _heartbeat(row: Row) -> str:
    age = duration(round(row["heartbeat_age_seconds"]))
    return f"{age} ago" if row["alive"] else f"lost {age} ago"


WORKERS = [
    Column[Row]("worker", lambda row: row["worker"], least=NAME, in_middle=True, style="bold"),
    Column[Row]("slots busy", _slots),
    Column[Row](
        "longest job",
        _longest,
        rank=1,
        least=16,
        style=lambda row: "bold red" if any(job.stuck for job in row["jobs"]) else "",
    ),
    Column[Row](
        "heartbeat", _heartbeat, right=True, style=lambda row: "" if row["alive"] else "bold red"
    ),
    Column[Row](
        "queues",
        lambda row: "all" if row["queues"] is None else listed(row["queues"]),
        rank=3,
        least=8,
    ),
    Column[Row]("processed", lambda row: f"{row['processed']:,}", rank=2, right=True),
    Column[Row]("host", lambda row: row["host"], rank=4, least=8, style="dim"),
]
RUNNING = [
    Column[Running]("id", lambda job: job.id, right=True),
    Column[Running]("task", lambda job: job.task, least=NAME, in_middle=True, style="bold"),
    Column[Running]("running for", lambda job: duration(job.seconds), right=True),
    Column[Running]("stuck", lambda job: job.stuck, rank=1, least=10, style="bold red"),
]


def worker_list(rows: Rows, room: Room, nothing: str = "") -> list[Line]:
    """Draw the workers, or what is said if there is none."""
    item = _item("worker", lambda row: row["worker"])
    return _table(rows, WORKERS, room, item, nothing)


def worker_jobs(rows: Rows, room: Room) -> list[Line]:
    """Draw one worker, and what it runs; `rows` are its leases."""
    item = _item("job", lambda job: job.id)
    lines = _table(rows, WORKERS, room, lambda _: None, "this worker is gone")
    jobs = [job for row in rows[:1] for job in row["jobs"]]
    return [*lines, Line(Text()), *_table(jobs, RUNNING, room, item, "it runs nothing now")]


# Errors, jobs, schedules, findings


def error_list(
    groups: Sequence[ErrorGroup], room: Room, nothing: str = "no attempt has errored in 7 days"
) -> list[Line]:
    """Draw errors by cause."""
    return _table(groups, ERRORS, room, _item("error", lambda group: group.id), nothing)


def job_list(page: JobPage, search: str, room: Room) -> list[Line]:
    """Draw jobs, those that match a search if there is one."""
    nothing = "no job matches" if search else "no jobs yet"
    lines = _table(page.jobs, JOBS, room, _item("job", lambda job: job.id), nothing)
    if search:
        lines.insert(0, Line(Text(f"jobs that match: {escape_controls(search)}", "bold")))
    if page.window:
        lines.append(Line(Text(f"only the newest {WINDOW:,} were looked through", "yellow")))
    elif page.after is not None:
        lines.append(Line(Text(f"these are the newest {len(page.jobs):,}; / finds others", "dim")))
    return lines


def schedule_list(records: Sequence[ScheduleRecord], room: Room) -> list[Line]:
    """Draw the schedules. The cursor leads to the last job of each."""

    def item(each: ScheduleRecord) -> Item | None:
        return None if each.last_job_id is None else Item("job", str(each.last_job_id), each)

    return _table(records, SCHEDULES, room, item, "no schedules yet")


def finding(found: Sequence[Finding], room: Room) -> list[Line]:
    """Draw a finding in full, with what to do."""
    if not found:
        return [Line(Text("this is mended: it is found no more", "green"))]
    lines = []
    for each in found[:1]:
        texts = [
            *wrap(Text(escape_controls(each.sentence), "bold"), room.width),
            Text(),
            *wrap(Text(f"to do: {escape_controls(each.remedy)}"), room.width),
            Text(),
            *wrap(Text(escape_controls(", ".join(each.names)), "dim"), room.width),
        ]
        lines += [Line(text) for text in texts]
    return lines
