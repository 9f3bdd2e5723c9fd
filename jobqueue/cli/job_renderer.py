"""Renders a job as text, as `show` and `top` print it."""

import json
import shutil
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from jobqueue.cli.tables import COLOURS, Column, put, table
from jobqueue.display import ago, duration, took
from jobqueue.printable_text import escape_controls, escape_json, escape_lines
from jobqueue.records import AttemptRecord, JobRecord, counted, format_bytes, headers_of
from jobqueue.states import State

LABEL_CELLS = 12
TEXT_MAX = 100_000
"""Characters of one value that are shown; --json has all of it."""


def title_of(job: JobRecord) -> Text:
    """Return a job's id, task and state."""
    title = Text(f"job {job.id}  ", style="bold") + Text(escape_controls(job.task), style="bold")
    return title + Text("  ") + Text(job.state, style=COLOURS[job.state])


def render_details(job: JobRecord, attempts: list[AttemptRecord], screen: Console) -> None:
    """Print all that is known of a job below its title."""
    _facts(job, screen)
    _arguments(job, screen)
    if job.result is not None:
        _heading(screen, "result")
        _json_block(job.result, screen)
    if attempts:
        _heading(screen, "attempts")
        table(attempts, ATTEMPTS, screen)
    _traceback(job, screen)


def _facts(job: JobRecord, screen: Console) -> None:
    facts: list[tuple[str, str]] = [
        ("queue", f"{job.queue}" + (f", priority {job.priority}" if job.priority else "")),
        ("attempt", f"{job.attempt} of {job.max_attempts}" + _odds(job)),
        ("reason", job.reason or ""),
        ("progress", _progress(job)),
        ("created", _at(job.created_at)),
        ("due", _due(job)),
        ("started", _at(job.started_at)),
        ("finished", ", after ".join(filter(None, [_at(job.finished_at), took(job)]))),
        ("cancelled" if job.final else "stop asked", _at(job.cancel_requested_at)),
        ("worker", job.worker or ""),
        ("timeout", duration(job.timeout)),
        ("deadline", _at(job.deadline_at)),
        ("unique key", _key(job)),
        ("tags", ", ".join(job.tags)),
        ("headers", _headers(job)),
        ("for", _at(job.scheduled_for)),
        ("expires", _at(job.expires_at)),
        ("lane", job.lane or ""),
    ]
    for label, value in facts:
        if value:
            put(screen, Text(f"{label:<{LABEL_CELLS}}", style="dim") + Text(escape_controls(value)))


def _due(job: JobRecord) -> str:
    if job.awaits_key:
        return ""  # Not its time holds it up, which is mostly over.
    return _at(job.run_at) if job.state is State.SCHEDULED or job.attempt == 0 else ""


def _key(job: JobRecord) -> str:
    if job.unique_key is None:
        return ""
    waits = ", waits for it" if job.awaits_key else ""
    return f"{job.unique_key} until {job.unique_until}{waits}"


def _headers(job: JobRecord) -> str:
    headers = headers_of(job.headers)
    if headers is None:
        return f"{job.headers} (not as jobqueue writes them)"
    return ", ".join(f"{name}={value}" for name, value in headers.items())


def _odds(job: JobRecord) -> str:
    odds = [
        (job.snoozes, "snoozed"),
        (job.crashes - job.child_crashes, "lost with its worker"),
        (job.child_crashes, "crashed"),
    ]
    return "".join(f", {count} × {what}" for count, what in odds if count)


def _progress(job: JobRecord) -> str:
    fraction = "" if job.progress is None else f"{job.progress:.0%}"
    return "  ".join(filter(None, [fraction, job.progress_message]))


def _at(instant: datetime | None) -> str:
    if instant is None:
        return ""
    here = instant.astimezone(UTC)
    return f"{here:%Y-%m-%d %H:%M:%S}Z  {ago(instant)}"


def _heading(screen: Console, title: str) -> None:
    put(screen, "", Text(title.upper(), style="dim"))


def _arguments(job: JobRecord, screen: Console) -> None:
    try:
        given = json.loads(job.args)
        named = [("", value) for value in given["args"]] + list(given["kwargs"].items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        _heading(screen, "arguments (not as jobqueue writes them)")
        _block(job.args, screen)
        return
    if not named:
        return
    _heading(screen, "arguments")
    for name, value in named:
        lines = _pretty(value, screen)
        prefix = f"{escape_controls(name)} = " if name else ""
        put(screen, Text("  " + prefix, style="dim") + Text(lines[0]))
        put(screen, *(Text("  " + line) for line in lines[1:]))


def _pretty(value: object, screen: Console) -> list[str]:
    ascii_only = not screen.encoding.startswith("utf")
    short = escape_json(value, ascii_only=ascii_only)
    fits = len(short) <= max(40, shutil.get_terminal_size().columns - 20)
    text = short if fits else escape_json(value, ascii_only=ascii_only, indent=2)
    return _shorten(text).split("\n")


def _shorten(text: str) -> str:
    if len(text) <= TEXT_MAX:
        return text
    return (
        text[:TEXT_MAX] + f"… ({counted(len(text) - TEXT_MAX, 'more character')}; --json has them)"
    )


def _json_block(text: str, screen: Console) -> None:
    try:
        lines = _pretty(json.loads(text), screen)
    except (ValueError, RecursionError):
        lines = escape_lines(_shorten(text))
    put(screen, *(Text("  " + line) for line in lines))


def _block(text: str, screen: Console) -> None:
    for line in escape_lines(_shorten(text.rstrip())):
        put(screen, Text("  " + line))


def _traceback(job: JobRecord, screen: Console) -> None:
    if job.error is None:
        return
    if job.error.traceback:
        _heading(screen, "traceback of the last error")
        _block(job.error.traceback, screen)
    elif "\n" in job.error.message:
        _heading(screen, "last error")
        _block(f"{job.error.type}: {job.error.message}", screen)


def _attempt_error(attempt: AttemptRecord) -> str:
    if attempt.error is None:
        return ""
    return f"{attempt.error.type}: {attempt.error.message}".rstrip(": ")


def _attempt_peak(attempt: AttemptRecord) -> str:
    return "" if attempt.peak_memory is None else format_bytes(attempt.peak_memory)


def _attempt_style(attempt: AttemptRecord) -> str:
    return {"succeeded": "green", "running": "yellow"}.get(
        attempt.outcome, "red" if attempt.error else ""
    )


ATTEMPTS = [
    Column[AttemptRecord]("#", lambda attempt: attempt.attempt, right=True),
    Column[AttemptRecord]("outcome", lambda attempt: attempt.outcome, style=_attempt_style),
    Column[AttemptRecord]("started", lambda attempt: _at(attempt.started_at), rank=2),
    Column[AttemptRecord]("took", took, rank=3, right=True),
    Column[AttemptRecord](
        "worker", lambda attempt: attempt.worker, rank=4, least=10, in_middle=True, style="dim"
    ),
    Column[AttemptRecord]("signal", lambda attempt: attempt.exit_signal, rank=5),
    Column[AttemptRecord]("peak", _attempt_peak, rank=6, right=True),
    Column[AttemptRecord]("error", _attempt_error, rank=1, least=28),
]
