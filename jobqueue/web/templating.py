"""Renders templates. What comes from the data is text: never markup, and without controls."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from jobqueue.display import ago, counted_waiting, duration
from jobqueue.printable_text import escape_json, escape_lines
from jobqueue.records import counted, format_bytes
from jobqueue.states import State
from jobqueue.web.charts import area, lines, round_top, sparkline

TEMPLATES = Path(__file__).parent / "templates"
MARKS = {
    State.SCHEDULED: "due",
    State.AVAILABLE: "wait",
    State.RUNNING: "run",
    State.SUCCEEDED: "ok",
    State.FAILED: "bad",
    State.CANCELLED: "off",
}
"""The class of a state's mark: a shape and a colour."""


def environment() -> Environment:
    """Return the environment of all pages."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_inert,
    )
    made.filters |= {
        "bytes": format_bytes,
        "counted": counted,
        "exact": escape_json,
        "mark": MARKS.__getitem__,
        "number": lambda value: f"{value:,}",
        "json": json.dumps,
        "area": area,
        "instant": datetime.fromisoformat,
        "lines": lines,
        "round_top": round_top,
        "seconds": duration,
        "spark": sparkline,
        "waited": counted_waiting,
        "time": _time,
    }
    return made


def _inert(value: Any) -> Any:
    """Show controls, and what reorders or hides text, as escapes; so that one sees them."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(escape_lines(value))
    return "" if value is None else value


def _time(instant: datetime | None, form: str = "ago") -> Markup:
    """Return an instant as an element: relative, with the absolute time as its title."""
    if instant is None:
        return Markup()
    at = instant.astimezone(UTC)
    title = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    shown = f"{at:%H:%M:%S}" if form == "clock" else title if form == "full" else ago(at)
    kept = "" if form == "ago" else Markup(" data-kept")
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        at.isoformat(timespec="milliseconds"), title, kept, escape(shown)
    )
