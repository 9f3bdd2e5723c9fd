"""Draws the tasks and tags that are paused, as lines that resume them."""

from rich.text import Text

from jobqueue.cli.commands.top.views import Item, Line, Room
from jobqueue.printable_text import escape_controls
from jobqueue.store.schema import PauseKind
from jobqueue.store.stats import Rows


def pause_list(rows: Rows, room: Room, most: int | None = None) -> list[Line]:
    """Return a line for each pause; of more than `most`, how many are left out."""
    lines = [_line(row, room) for row in rows[:most]]
    if more := len(rows) - len(lines):
        rest = "g q" if room.has_keys else "jobqueue stats"
        lines.append(Line(Text(f"… and {more:,} more paused: {rest}", "dim")))
    return lines


def _line(row: dict[str, object], room: Room) -> Line:
    by = f" by {row['paused_by']}" if row["paused_by"] else ""
    which = "of it" if row["kind"] == PauseKind.TASK else "that has it"
    name = f"{row['kind']} {row['name']}"
    text = Text(escape_controls(f"{name} is paused{by}: no job {which} starts"), "yellow")
    text.truncate(room.width, overflow="ellipsis")
    return Line(text, Item("pause", name, row))
